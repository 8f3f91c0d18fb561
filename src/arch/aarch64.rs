//! aarch64, AAPCS64 (Linux and the BSDs).
//!
//! Saved by hand: x19 and x29 (the frame pointer), which LLVM keeps for itself, and the return address. Every other
//! register is a clobber, v8-v15 among them: the ABI makes their low halves callee-saved.
//!
//! ```text
//!            suspended coroutine              resumer, while the coroutine runs
//!            +--------------------+           +--------------------+
//!   sp + 24  | (padding)          |           | (padding)          |
//!   sp + 16  | x29                |  sp + 16  | return address     |  <- stored by the resumed side
//!   sp +  8  | x19                |  sp +  8  | x19                |
//!   sp ----> | address to go on at|  sp ----> | x29                |
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
//! FPCR is not touched: a change made on one side of a switch is seen on the other. x18, which some platforms own, is
//! neither saved nor restored.

use core::arch::{asm, naked_asm};

use super::{Signal, StackPointer, Word};

/// The hardware faults on a misaligned stack pointer.
pub const STACK_ALIGNMENT: usize = 16;
/// Linux and the BSDs give none.
pub const RED_ZONE: usize = 0;
/// rustc's target specification has inline stack probes.
pub const STACK_PROBES: bool = true;

/// Assembly that leaves a context and comes back to it: every register is lost but those it saves itself.
macro_rules! switch {
    ($($assembly:tt)*) => {
        asm!(
            $($assembly)*
            lateout("x20") _, lateout("x21") _, lateout("x22") _, lateout("x23") _, lateout("x24") _,
            lateout("x25") _, lateout("x26") _, lateout("x27") _, lateout("x28") _, lateout("lr") _,
            lateout("v8") _, lateout("v9") _, lateout("v10") _, lateout("v11") _,
            lateout("v12") _, lateout("v13") _, lateout("v14") _, lateout("v15") _,
            clobber_abi("C"),
        )
    };
}

/// First code of a new coroutine, see `asm/aarch64.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/aarch64.s"), options(raw))
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
    // SAFETY: the asm leaves sp, x19 and x29 as it found them and declares the rest clobbered; the caller vouches for
    // the context.
    unsafe {
        switch!(
            "stp x29, x19, [sp, #-32]!",
            "ldr x9, [x2]",
            // To the resumed side, which finds its own stack pointer in x2, ours in sp, and the return address in lr.
            "blr x9",
            "ldp x29, x19, [sp], #32",
            inlateout("x0") word => answer,
            inlateout("x1") signal => _,
            inlateout("x2") target.0.get() => pointer,
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
            "adr x9, 2f",
            "stp x9, x19, [sp, #-32]!",
            "str x29, [sp, #16]",
            "mov x2, sp",
            // To the resumer's `blr`, which expects a return.
            "ldr lr, [x3, #16]",
            "mov sp, x3",
            "ret",
            // From a `blr`: complete the resumer's frame, note its stack pointer, go back to our own.
            "2:",
            "str lr, [sp, #16]",
            "mov x3, sp",
            "ldp x19, x29, [x2, #8]",
            "add sp, x2, #32",
            inlateout("x0") word => answer,
            lateout("x1") signal,
            lateout("x2") _,
            inlateout("x3") parent.0.get() => pointer,
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
            "adr x9, 2f",
            "stp x9, x19, [sp, #-32]!",
            "str x29, [sp, #16]",
            "mov x9, sp",
            "str x9, [x4]",
            // The target finds its own stack pointer in x2, the parent's in sp and its return address in lr.
            "ldr lr, [x3, #16]",
            "mov sp, x3",
            "ldr x9, [x2]",
            "br x9",
            // As in `suspend`.
            "2:",
            "str lr, [sp, #16]",
            "mov x3, sp",
            "ldp x19, x29, [x2, #8]",
            "add sp, x2, #32",
            inlateout("x0") word => answer,
            inlateout("x1") 0_usize => signal,
            inlateout("x2") target.0.get() => _,
            inlateout("x3") parent.0.get() => pointer,
            inlateout("x4") place => _,
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
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa sp, 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "mov x29, sp",
        ".cfi_def_cfa_register x29",
        "mov sp, x2",
        "blr x1",
        "mov sp, x29",
        ".cfi_def_cfa_register sp",
        "ldp x29, x30, [sp], #16",
        "ret",
        ".cfi_endproc",
    )
}
