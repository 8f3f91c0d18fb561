//! riscv64, any of the LP64 ABIs.
//!
//! Saved by hand: s0 (the frame pointer) and s1, which LLVM keeps for itself, and the return address. Every other
//! register is a clobber, fs0-fs11 among them. tp and gp are never touched.
//!
//! ```text
//!            suspended context                parent, while the context runs
//!            +--------------------+           +--------------------+
//!   sp +  8  | s1                 |  sp -  8  | return address     |  <- stored by the resumed side
//!   sp ----> | s0                 |  sp - 16  | s0                 |
//!            +--------------------+  sp - 24  | (padding)          |
//!                                    sp - 32  | s1                 |
//!                                             +--------------------+
//! ```
//!
//! The call goes through t1: through t0, an alternate link register, it would pop the return predictor before pushing.
//! fcsr is not touched: a change made on one side of a switch is seen on the other.

use core::arch::{asm, naked_asm};

use super::{Link, Word};

/// The psABI's alignment at a call.
pub const STACK_ALIGNMENT: usize = 16;
/// The psABI gives none.
pub const RED_ZONE: usize = 0;
/// rustc emits none: a large frame can jump over a small guard.
pub const STACK_PROBES: bool = false;
/// Bytes from the jump that `second_landing!` places to the landing that follows.
pub const SECOND_LANDING: usize = 8;

/// Assembly that leaves a context and comes back to it: every register is lost but those it saves itself.
macro_rules! switch {
    ($($assembly:tt)*) => {
        asm!(
            $($assembly)*
            lateout("ra") _,
            lateout("s2") _, lateout("s3") _, lateout("s4") _, lateout("s5") _, lateout("s6") _,
            lateout("s7") _, lateout("s8") _, lateout("s9") _, lateout("s10") _, lateout("s11") _,
            lateout("fs0") _, lateout("fs1") _, lateout("fs2") _, lateout("fs3") _,
            lateout("fs4") _, lateout("fs5") _, lateout("fs6") _, lateout("fs7") _,
            lateout("fs8") _, lateout("fs9") _, lateout("fs10") _, lateout("fs11") _,
            clobber_abi("C"),
        )
    };
}

/// Where a suspended context goes on: completes the resumer's frame, keeps its stack pointer and moves to its own stack.
macro_rules! landing {
    () => {
        concat!(
            ".p2align 3\n",
            ".option push\n",
            ".option norvc\n",
            "nop\n",
            "2:\n",
            "sd ra, 24(sp)\n",
            "addi a3, sp, 32\n",
            ".option pop\n",
            "ld s0, 0(a2)\n",
            "ld s1, 8(a2)\n",
            "addi sp, a2, 16\n",
            "4:\n",
        )
    };
}

/// The same for a context that is to unwind, and the jump there before the first landing.
macro_rules! second_landing {
    () => {
        concat!(
            "3:\n",
            "sd ra, 24(sp)\n",
            "addi a3, sp, 32\n",
            "ld s0, 0(a2)\n",
            "ld s1, 8(a2)\n",
            "addi sp, a2, 16\n",
            "li a2, 0\n",
            "j 4f\n",
            ".p2align 3\n",
            ".option push\n",
            ".option norvc\n",
            "nop\n",
            "j 3b\n",
            ".option pop\n",
        )
    };
}

/// Whether the thread has a shadow stack now, a second stack of return addresses that no switch here keeps in step.
///
/// Answers no: with Zicfiss only code compiled for it has one (rustc's is not), and asking is an instruction that is
/// illegal on processors without Zimop.
#[inline(always)]
pub fn has_shadow_stack() -> bool {
    false
}

/// First code of a new context, see `asm/riscv64.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/riscv64.s"), options(raw))
}

/// # Safety
///
/// See [the module](super#the-assembly).
#[inline(always)]
pub unsafe fn resume(landing: usize, stack_pointer: usize, word: Word) -> (Word, *const Link, usize) {
    let (answer, link, pointer);
    // SAFETY: the asm leaves sp, s0 and s1 as it found them and declares the rest clobbered; the caller vouches for the
    // context.
    unsafe {
        switch!(
            "addi sp, sp, -32",
            "sd s0, 16(sp)",
            "sd s1, 0(sp)",
            // To the resumed side, which finds its own stack pointer in a2, ours in sp, and the return address in ra.
            "jalr t1",
            "ld s0, 16(sp)",
            "ld s1, 0(sp)",
            "addi sp, sp, 32",
            inlateout("t1") landing => _,
            inlateout("a0") word => answer,
            lateout("a1") link,
            inlateout("a2") stack_pointer => pointer,
        );
    }
    (answer, link, pointer)
}

/// # Safety
///
/// See [the module](super#the-assembly).
#[inline(always)]
pub unsafe fn suspend(link: *const Link, parent: usize, word: Word) -> (Word, usize, usize) {
    let (answer, pointer, resumer);
    // SAFETY: as in `resume`.
    unsafe {
        switch!(
            "lla t1, 2f",
            "addi sp, sp, -16",
            "sd s0, 0(sp)",
            "sd s1, 8(sp)",
            "sd t1, 16(a1)",
            "mv a2, sp",
            // To the resumer's `jalr`, which expects a return.
            "ld ra, -8(a3)",
            "addi sp, a3, -32",
            "ret",
            second_landing!(),
            landing!(),
            inlateout("a0") word => answer,
            inlateout("a1") link => _,
            lateout("a2") pointer,
            inlateout("a3") parent => resumer,
        );
    }
    (answer, pointer, resumer)
}

/// # Safety
///
/// See [the module](super#the-assembly).
#[inline(always)]
pub unsafe fn transfer(
    landing: usize,
    stack_pointer: usize,
    link: *const Link,
    parent: usize,
    word: Word,
) -> (Word, usize) {
    let (answer, resumer);
    // SAFETY: as in `suspend`.
    unsafe {
        switch!(
            "lla t2, 2f",
            "addi sp, sp, -16",
            "sd s0, 0(sp)",
            "sd s1, 8(sp)",
            "sd t2, 16(a1)",
            "sd sp, 8(a1)",
            // The other side finds its own stack pointer in a2, and the parent's in a3: what a landing begins with, two
            // instructions of four bytes that put it there, is done.
            "jr 8(t1)",
            landing!(),
            inlateout("t1") landing => _,
            inlateout("a0") word => answer,
            inlateout("a1") link => _,
            inlateout("a2") stack_pointer => _,
            inlateout("a3") parent => resumer,
        );
    }
    (answer, resumer)
}

/// Calls `function(data)` on another stack, whose free part ends at `top`, and returns when it does.
///
/// An ordinary call to its caller; backtraces lead through it.
///
/// # Safety
///
/// `top` must be a multiple of [`STACK_ALIGNMENT`], with enough unused stack below it. The function must not unwind.
#[unsafe(naked)]
pub unsafe extern "C" fn call_on(data: *mut (), function: unsafe extern "C" fn(*mut ()), top: *mut u8) {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_signal_frame",
        "addi sp, sp, -16",
        ".cfi_def_cfa sp, 16",
        "sd ra, 8(sp)",
        "sd s0, 0(sp)",
        ".cfi_offset ra, -8",
        ".cfi_offset s0, -16",
        "addi s0, sp, 16",
        ".cfi_def_cfa s0, 0",
        "mv sp, a2",
        "jalr a1",
        "addi sp, s0, -16",
        ".cfi_def_cfa sp, 16",
        "ld ra, 8(sp)",
        "ld s0, 0(sp)",
        "addi sp, sp, 16",
        "ret",
        ".cfi_endproc",
    )
}

/// The stack pointer of the caller, into which this is inlined.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe { asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) }
    pointer
}

/// fcsr.
#[cfg(target_feature = "zicsr")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpEnvironment {
    fcsr: u32,
}

/// F is not visible to `cfg` yet; the extension it depends on is, and no target has that one alone.
#[cfg(not(target_feature = "zicsr"))]
pub use super::no_fp::FpEnvironment;

#[cfg(target_feature = "zicsr")]
impl FpEnvironment {
    /// Reads the register.
    #[inline(always)]
    pub fn current() -> Self {
        let fcsr: u32;
        // SAFETY: copies a register.
        unsafe { asm!("csrr {}, fcsr", out(reg) fcsr, options(nomem, nostack, preserves_flags)) }
        Self { fcsr }
    }

    /// Loads `self` where `over` is current. A register in which they agree is not written: reading one and comparing is
    /// cheaper than writing it.
    ///
    /// # Safety
    ///
    /// No floating-point operation of Rust may come before the environment is the default one again.
    #[inline(always)]
    pub unsafe fn load(self, over: Self) {
        if self.fcsr != over.fcsr {
            // SAFETY: the value was read from the same register; the caller vouches for what runs under it.
            unsafe { asm!("csrw fcsr, {}", in(reg) self.fcsr, options(nostack)) }
        }
    }
}
