//! The floating-point environment as C and assembly see it: its registers by name, and a quotient that depends on it.
//!
//! There are four patterns, which differ in every register. [`DEFAULT`] is what a thread begins with. Tests that set
//! another compute nothing until they are back at it, and assert after that.

use std::ffi::{CStr, c_char, c_uint};

#[link(name = "switchback_fixtures", kind = "static")]
unsafe extern "C" {
    safe fn fixture_fp_register_count() -> c_uint;
    fn fixture_fp_register_name(register: c_uint) -> *const c_char;
    fn fixture_fp_pattern(register: c_uint, pattern: c_uint) -> u64;
    fn fixture_fp_read(register: c_uint) -> u64;
    fn fixture_fp_write(register: c_uint, value: u64);
    fn fixture_fp_thirds(quotients: *mut u64) -> c_uint;
}

/// The pattern that Rust assumes.
pub const DEFAULT: u32 = 0;

/// How many patterns there are.
pub const PATTERNS: u32 = 4;

/// Makes a pattern the environment of this thread.
///
/// # Panics
///
/// If there is no such pattern.
pub fn set(pattern: u32) {
    assert!(pattern < PATTERNS);
    // Masks and flags of two patterns do not always go together: by way of the default, which masks all.
    for pattern in [DEFAULT, pattern] {
        // The flags come after the masks, and are the first to be cleared.
        let registers = 0..fixture_fp_register_count();
        let write = |register| {
            // SAFETY: register and pattern exist, and the value is one that the register can hold.
            unsafe { fixture_fp_write(register, fixture_fp_pattern(register, pattern)) }
        };
        if pattern == DEFAULT { registers.rev().for_each(write) } else { registers.for_each(write) }
    }
}

/// The names of the registers that do not hold what the pattern has for them.
pub fn lost(pattern: u32) -> Vec<&'static str> {
    assert!(pattern < PATTERNS);
    (0..fixture_fp_register_count())
        // SAFETY: register and pattern exist.
        .filter(|&register| unsafe { fixture_fp_read(register) != fixture_fp_pattern(register, pattern) })
        .map(|register| {
            // SAFETY: a register has a name, which is a literal in C.
            let name = unsafe { CStr::from_ptr(fixture_fp_register_name(register)) };
            name.to_str().expect("register names are ASCII")
        })
        .collect()
}

/// How many registers there are.
pub fn registers() -> usize {
    fixture_fp_register_count() as usize
}

/// What this thread's environment makes of one third, in each unit of the processor that divides: the bits.
pub fn thirds() -> Vec<u64> {
    let mut quotients = [0; 2];
    // SAFETY: at most two are written.
    let units = unsafe { fixture_fp_thirds(quotients.as_mut_ptr()) };
    quotients[..units as usize].to_vec()
}
