//! What the tests of this package share: the ABI fixtures, and the way to run a test again as a process of its own.
//!
//! A fixture (`fixtures/`, assembly and C) fills every register that its ABI makes a callee keep with a value of its
//! own, calls back, and compares. The same function serves both sides of a switch. Outside of a coroutine the callback
//! resumes it; inside, the callback suspends. Each side fills the registers from a seed of its own and so overwrites
//! all that the other side wants to find again.

use std::ffi::{CStr, c_char, c_uint, c_void};
use std::ptr;

#[path = "../../tests/common/mod.rs"]
mod common;

pub mod fp_environment;

pub use common::{emulated, in_a_child};

/// What a fixture calls. It may unwind through the frames of the fixture, which then puts the registers back as on a
/// return.
pub type Callback = unsafe extern "C-unwind" fn(data: *mut c_void);
type Fixture = unsafe extern "C-unwind" fn(callback: Callback, data: *mut c_void, seed: u64) -> u64;

#[link(name = "switchback_fixtures", kind = "static")]
unsafe extern "C-unwind" {
    fn fixture_registers_lost(callback: Callback, data: *mut c_void, seed: u64) -> u64;
    fn fixture_live_values_lost(callback: Callback, data: *mut c_void, seed: u64) -> u64;
    fn fixture_clobber(register: *mut c_void);
    fn fixture_lower_stack_pointer(ignored: *mut c_void);
    safe fn fixture_register_count() -> c_uint;
    safe fn fixture_register_name(register: c_uint) -> *const c_char;
}

/// Calls `f` with every callee-saved register filled from `seed`.
///
/// # Errors
///
/// The names of the registers that do not hold their values any more when `f` returns. A stack pointer that is not
/// what it was leaves no way to return: the process says so and aborts.
///
/// # Panics
///
/// A panic of `f` goes through.
pub fn registers_kept(seed: u64, f: impl FnOnce()) -> Result<(), Vec<&'static str>> {
    named(call(fixture_registers_lost, seed, f), registers())
}

/// The same without a Rust closure in between: no frame but the callback's own stands between the fixture and what the
/// callback does.
///
/// # Errors
///
/// As [`registers_kept`].
///
/// # Safety
///
/// `callback` must be sound to call with `data`.
pub unsafe fn registers_kept_by(seed: u64, callback: Callback, data: *mut c_void) -> Result<(), Vec<&'static str>> {
    // SAFETY: the caller's promise.
    named(unsafe { fixture_registers_lost(callback, data, seed) }, registers())
}

/// Calls `f` from a C function that has 12 integers and 12 floating-point values alive across the call: more than
/// there are registers to keep them in.
///
/// # Errors
///
/// The values that changed.
///
/// # Panics
///
/// A panic of `f` goes through.
pub fn live_values_kept(seed: u64, f: impl FnOnce()) -> Result<(), Vec<String>> {
    let names = ["integer", "double"].into_iter().flat_map(|kind| (0..12).map(move |n| format!("{kind} {n}")));
    named(call(fixture_live_values_lost, seed, f), names)
}

/// The names of the registers that [`registers_kept`] fills and compares, in the order of their numbers.
pub fn registers() -> impl Iterator<Item = &'static str> {
    (0..fixture_register_count()).map(|register| {
        // SAFETY: a register below the count has a name, which is a literal in C.
        let name = unsafe { CStr::from_ptr(fixture_register_name(register)) };
        name.to_str().expect("register names are ASCII")
    })
}

/// What [`registers_kept`] says of a callback that breaks the ABI in just one register: proof that the fixture fails
/// where it should.
pub fn registers_kept_by_clobbering(register: usize, seed: u64) -> Result<(), Vec<&'static str>> {
    // SAFETY: the number travels as the pointer and is not used as one. What the callback does to a callee-saved
    // register ends at the fixture, which puts its own caller's value back.
    unsafe { registers_kept_by(seed, fixture_clobber, ptr::without_provenance_mut(register)) }
}

/// Runs the fixture around a callback that returns with another stack pointer. Does not return.
pub fn lose_the_stack_pointer() -> ! {
    // SAFETY: the fixture never uses the stack pointer that the callback leaves, it aborts.
    unsafe { fixture_registers_lost(fixture_lower_stack_pointer, ptr::null_mut(), 0) };
    unreachable!("the fixture returned on a stack pointer that was not its own");
}

fn call<F: FnOnce()>(fixture: Fixture, seed: u64, f: F) -> u64 {
    unsafe extern "C-unwind" fn call_once<F: FnOnce()>(data: *mut c_void) {
        // SAFETY: `data` is the `Option` below, which nothing else uses before the fixture returns.
        let f = unsafe { &mut *data.cast::<Option<F>>() };
        f.take().expect("a fixture calls back once")();
    }
    let mut f = Some(f);
    // SAFETY: `call_once` gets the pointer it is written for, and the fixture hands it over once.
    unsafe { fixture(call_once::<F>, (&raw mut f).cast(), seed) }
}

/// The names whose bits are set.
fn named<N>(lost: u64, names: impl Iterator<Item = N>) -> Result<(), Vec<N>> {
    if lost == 0 {
        return Ok(());
    }
    Err(names.enumerate().filter(|(bit, _)| lost & (1 << bit) != 0).map(|(_, name)| name).collect())
}
