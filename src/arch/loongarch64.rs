//! loongarch64, any of the LP64 ABIs.
//!
//! Saved by hand: fp ($r22) and s8 ($r31), which LLVM keeps for itself, and the return address. Every other register is
//! a clobber, fs0-fs7 ($f24-$f31) among them. tp ($r2) and the reserved $r21 are never touched.
//!
//! ```text
//!            suspended coroutine              resumer, while the coroutine runs
//!            +--------------------+           +--------------------+
//!   sp + 24  | (padding)          |           | (padding)          |
//!   sp + 16  | s8                 |  sp + 16  | return address     |  <- stored by the resumed side
//!   sp +  8  | fp                 |  sp +  8  | s8                 |
//!   sp ----> | address to go on at|  sp ----> | fp                 |
//!            +--------------------+           +--------------------+
//!
//!            new coroutine                    in the trampoline
//!            +--------------------+           +--------------------+
//!   sp + 24  | link: data         |           | link: data         |
//!   sp + 16  | link: parent       |  sp ----> | link: parent       |
//!   sp +  8  | entry              |           +--------------------+
//!   sp ----> | trampoline         |
//!            +--------------------+
//! ```
//!
//! fcsr is not touched: a change made on one side of a switch is seen on the other.

use core::arch::{asm, naked_asm};

use super::{Signal, StackPointer, Word};

/// The psABI's alignment at a call.
pub const STACK_ALIGNMENT: usize = 16;
/// The psABI gives none.
pub const RED_ZONE: usize = 0;
/// rustc emits none: a large frame can jump over a small guard.
pub const STACK_PROBES: bool = false;

/// Assembly that leaves a context and comes back to it: every register is lost but those it saves itself.
macro_rules! switch {
    ($($assembly:tt)*) => {
        asm!(
            $($assembly)*
            lateout("$ra") _,
            lateout("$s0") _, lateout("$s1") _, lateout("$s2") _, lateout("$s3") _,
            lateout("$s4") _, lateout("$s5") _, lateout("$s6") _, lateout("$s7") _,
            lateout("$fs0") _, lateout("$fs1") _, lateout("$fs2") _, lateout("$fs3") _,
            lateout("$fs4") _, lateout("$fs5") _, lateout("$fs6") _, lateout("$fs7") _,
            clobber_abi("C"),
        )
    };
}

/// First code of a new coroutine, see `asm/loongarch64.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/loongarch64.s"), options(raw))
}

/// Goes on with a suspended context; returns when it suspends or ends (no stack pointer then).
///
/// # Safety
///
/// `target` must be suspended, on a stack that is mapped, and be resumed by the thread that resumed it before. The
/// word and the signal must be what the code there expects.
#[inline(always)]
pub unsafe fn resume(target: StackPointer, word: Word, signal: Signal) -> (Word, Option<StackPointer>) {
    let answer: Word;
    let pointer: usize;
    // SAFETY: the asm leaves sp, fp and s8 as it found them and declares the rest clobbered; the caller vouches for
    // the context.
    unsafe {
        switch!(
            "addi.d $sp, $sp, -32",
            "st.d $fp, $sp, 0",
            "st.d $s8, $sp, 8",
            "ld.d $t0, $a2, 0",
            // To the resumed side, which finds its own stack pointer in a2, ours in sp, and the return address in ra.
            "jirl $ra, $t0, 0",
            "ld.d $fp, $sp, 0",
            "ld.d $s8, $sp, 8",
            "addi.d $sp, $sp, 32",
            inlateout("$a0") word => answer,
            inlateout("$a1") signal => _,
            inlateout("$a2") target.0.get() => pointer,
        );
        (answer, StackPointer::from_raw(pointer))
    }
}

/// Suspends the running context; returns when it is resumed, with the word, the signal and the new parent.
///
/// # Safety
///
/// `parent` must be the context that resumed this one last, and the word what it expects.
#[inline(always)]
pub unsafe fn suspend(parent: StackPointer, word: Word) -> (Word, Signal, StackPointer) {
    let answer: Word;
    let signal: Signal;
    let pointer: usize;
    // SAFETY: as in `resume`; the parent is not null since it is a stack pointer.
    unsafe {
        switch!(
            "la.local $t0, 2f",
            "addi.d $sp, $sp, -32",
            "st.d $t0, $sp, 0",
            "st.d $fp, $sp, 8",
            "st.d $s8, $sp, 16",
            "move $a2, $sp",
            // To the resumer's `jirl`, which expects a return.
            "ld.d $ra, $a3, 16",
            "move $sp, $a3",
            "ret",
            // From a `jirl`: complete the resumer's frame, note its stack pointer, go back to our own.
            "2:",
            "st.d $ra, $sp, 16",
            "move $a3, $sp",
            "ld.d $fp, $a2, 8",
            "ld.d $s8, $a2, 16",
            "addi.d $sp, $a2, 32",
            inlateout("$a0") word => answer,
            lateout("$a1") signal,
            lateout("$a2") _,
            inlateout("$a3") parent.0.get() => pointer,
        );
        (answer, signal, StackPointer::from_raw_unchecked(pointer))
    }
}

/// Suspends the running context, stores where it lies, and goes on with `target` as if `parent` had resumed that one;
/// returns as [`suspend`] does.
///
/// # Safety
///
/// As for [`resume`] and [`suspend`]; `place` must be writable. Both contexts must be of this thread.
#[inline(always)]
pub unsafe fn transfer(
    target: StackPointer,
    parent: StackPointer,
    place: *mut StackPointer,
    word: Word,
) -> (Word, Signal, StackPointer) {
    let answer: Word;
    let signal: Signal;
    let pointer: usize;
    // SAFETY: as in `suspend`. The parent's frame stays as its own resume left it.
    unsafe {
        switch!(
            "la.local $t0, 2f",
            "addi.d $sp, $sp, -32",
            "st.d $t0, $sp, 0",
            "st.d $fp, $sp, 8",
            "st.d $s8, $sp, 16",
            "st.d $sp, $a4, 0",
            // The target finds its own stack pointer in a2, the parent's in sp and its return address in ra.
            "ld.d $ra, $a3, 16",
            "move $sp, $a3",
            "ld.d $t0, $a2, 0",
            "jirl $zero, $t0, 0",
            // As in `suspend`.
            "2:",
            "st.d $ra, $sp, 16",
            "move $a3, $sp",
            "ld.d $fp, $a2, 8",
            "ld.d $s8, $a2, 16",
            "addi.d $sp, $a2, 32",
            inlateout("$a0") word => answer,
            inlateout("$a1") 0_usize => signal,
            inlateout("$a2") target.0.get() => _,
            inlateout("$a3") parent.0.get() => pointer,
            inlateout("$a4") place => _,
        );
        (answer, signal, StackPointer::from_raw_unchecked(pointer))
    }
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
        "addi.d $sp, $sp, -16",
        ".cfi_def_cfa 3, 16",
        "st.d $ra, $sp, 8",
        "st.d $fp, $sp, 0",
        ".cfi_offset 1, -8",
        ".cfi_offset 22, -16",
        "addi.d $fp, $sp, 16",
        ".cfi_def_cfa 22, 0",
        "move $sp, $a2",
        "jirl $ra, $a1, 0",
        "addi.d $sp, $fp, -16",
        ".cfi_def_cfa 3, 16",
        "ld.d $ra, $sp, 8",
        "ld.d $fp, $sp, 0",
        "addi.d $sp, $sp, 16",
        "ret",
        ".cfi_endproc",
    )
}
