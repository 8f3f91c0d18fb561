//! 32-bit arm, AAPCS, in ARM state (not Thumb), with or without VFP.
//!
//! Saved by hand: r6, r7 and r11, which LLVM keeps for itself (r7 is the frame pointer in Thumb state, r11 in ARM
//! state), and the return address. Every other register is a clobber. Among those are d8-d15, callee-saved where there
//! is VFP; they are named as d registers because LLVM drops a clobber of q4-q7 silently on a target without NEON.
//!
//! ```text
//!            suspended coroutine              resumer, while the coroutine runs
//!            +--------------------+           +--------------------+
//!   sp + 12  | r11                |  sp + 12  | return address     |  <- stored by the resumed side
//!   sp +  8  | r7                 |  sp +  8  | r11                |
//!   sp +  4  | r6                 |  sp +  4  | r7                 |
//!   sp ----> | address to go on at|  sp ----> | r6                 |
//!            +--------------------+           +--------------------+
//!
//!            new coroutine                    in the trampoline
//!            +--------------------+           +--------------------+
//!   sp + 12  | link: data         |           | link: data         |
//!   sp +  8  | link: parent       |  sp ----> | link: parent       |
//!   sp +  4  | entry              |           +--------------------+
//!   sp ----> | trampoline         |
//!            +--------------------+
//! ```
//!
//! FPSCR is not touched: a change made on one side of a switch is seen on the other.

use core::arch::{asm, naked_asm};

use super::{Signal, StackPointer, Word};

/// AAPCS: eight bytes at a public interface.
pub const STACK_ALIGNMENT: usize = 8;
/// AAPCS gives none.
pub const RED_ZONE: usize = 0;
/// rustc emits none: a large frame can jump over a small guard.
pub const STACK_PROBES: bool = false;

/// Assembly that leaves a context and comes back to it: every register is lost but those it saves itself.
macro_rules! switch {
    ($($assembly:tt)*) => {
        asm!(
            $($assembly)*
            lateout("r4") _, lateout("r5") _, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("lr") _,
            lateout("d8") _, lateout("d9") _, lateout("d10") _, lateout("d11") _,
            lateout("d12") _, lateout("d13") _, lateout("d14") _, lateout("d15") _,
            clobber_abi("C"),
        )
    };
}

/// First code of a new coroutine, see `asm/arm.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/arm.s"), options(raw))
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
    // SAFETY: the asm leaves sp, r6, r7 and r11 as it found them and declares the rest clobbered; the caller vouches
    // for the context.
    unsafe {
        switch!(
            // The place of lr is filled by the resumed side.
            "push {{r6, r7, r11, lr}}",
            "ldr r12, [r2]",
            // To the resumed side, which finds its own stack pointer in r2, ours in sp, and the return address in lr.
            "blx r12",
            "pop {{r6, r7, r11, lr}}",
            inlateout("r0") word => answer,
            inlateout("r1") signal => _,
            inlateout("r2") target.0.get() => pointer,
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
            "adr r5, 2f",
            "push {{r5, r6, r7, r11}}",
            "mov r2, sp",
            // To the resumer's `blx`, which expects a return.
            "ldr lr, [r3, #12]",
            "mov sp, r3",
            "bx lr",
            // From a `blx`: complete the resumer's frame, note its stack pointer, go back to our own.
            "2:",
            "str lr, [sp, #12]",
            "mov r3, sp",
            "add sp, r2, #4",
            "pop {{r6, r7, r11}}",
            inlateout("r0") word => answer,
            lateout("r1") signal,
            lateout("r2") _,
            inlateout("r3") parent.0.get() => pointer,
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
            "adr r5, 2f",
            "push {{r5, r6, r7, r11}}",
            "str sp, [r12]",
            // The target finds its own stack pointer in r2, the parent's in sp and its return address in lr.
            "ldr lr, [r3, #12]",
            "mov sp, r3",
            "ldr pc, [r2]",
            // As in `suspend`.
            "2:",
            "str lr, [sp, #12]",
            "mov r3, sp",
            "add sp, r2, #4",
            "pop {{r6, r7, r11}}",
            inlateout("r0") word => answer,
            inlateout("r1") 0_usize => signal,
            inlateout("r2") target.0.get() => _,
            inlateout("r3") parent.0.get() => pointer,
            inlateout("r12") place => _,
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
        ".fnstart",
        ".save {{r11, lr}}",
        "push {{r11, lr}}",
        ".setfp r11, sp",
        "mov r11, sp",
        "mov sp, r2",
        "blx r1",
        "mov sp, r11",
        "pop {{r11, pc}}",
        ".fnend",
    )
}
