//! x86_64, System V ABI.
//!
//! Saved by hand: rbx and rbp, which LLVM keeps for itself. Every other register is a clobber.
//!
//! ```text
//!            suspended coroutine              resumer, while the coroutine runs
//!            +--------------------+           +--------------------+
//!   sp + 16  | rbp                |  sp + 16  | rbp                |
//!   sp +  8  | rbx                |  sp +  8  | rbx                |
//!   sp ----> | address to go on at|  sp ----> | return address     |  <- pushed by the call in `resume`
//!            +--------------------+           +--------------------+
//!
//!            new coroutine                    in the trampoline
//!            +--------------------+           +--------------------+
//!   sp + 24  | link: data         |           | link: data         |
//!   sp + 16  | link: parent       |  rsp ---> | link: parent       |
//!   sp +  8  | entry              |           +--------------------+
//!   sp ----> | trampoline         |
//!            +--------------------+
//! ```
//!
//! MXCSR and the x87 control word are not touched: a change made on one side of a switch is seen on the other.

use core::arch::{asm, naked_asm};

use super::{Signal, StackPointer, Word};

/// The ABI's alignment at a call.
pub const STACK_ALIGNMENT: usize = 16;
/// The System V ABI lets a leaf function use 128 bytes below the stack pointer.
pub const RED_ZONE: usize = 128;
/// rustc's target specification has inline stack probes.
pub const STACK_PROBES: bool = true;

/// Assembly that leaves a context and comes back to it: every register is lost but those it saves itself.
macro_rules! switch {
    ($($assembly:tt)*) => {
        asm!(
            $($assembly)*
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("sysv64"),
        )
    };
}

/// First code of a new coroutine, see `asm/x86_64.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/x86_64.s"), options(raw))
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
    // SAFETY: the asm leaves rsp, rbx and rbp as it found them and declares the rest clobbered; the caller vouches
    // for the context. Without `nostack` the compiler keeps nothing in the red zone here.
    unsafe {
        switch!(
            "push rbp",
            "push rbx",
            // To the resumed side, which finds its own stack pointer in rdx and ours, with the return address, in rsp.
            "call [rdx]",
            "pop rbx",
            "pop rbp",
            inlateout("rdi") word => answer,
            inlateout("rsi") signal => _,
            inlateout("rdx") target.0.get() => pointer,
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
            "push rbp",
            "push rbx",
            "lea rax, [rip + 2f]",
            "push rax",
            "mov rdx, rsp",
            // To the resumer's `call`, which expects a return.
            "mov rsp, rcx",
            "ret",
            // From a `call [rdx]`: note the resumer's stack pointer, go back to our own.
            "2:",
            "mov rcx, rsp",
            "lea rsp, [rdx + 8]",
            "pop rbx",
            "pop rbp",
            inlateout("rdi") word => answer,
            lateout("rsi") signal,
            inlateout("rcx") parent.0.get() => pointer,
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
            "push rbp",
            "push rbx",
            "lea rax, [rip + 2f]",
            "push rax",
            "mov [r8], rsp",
            // The target finds its own stack pointer in rdx and the parent's, with its return address, in rsp.
            "mov rsp, rcx",
            "jmp [rdx]",
            // As in `suspend`.
            "2:",
            "mov rcx, rsp",
            "lea rsp, [rdx + 8]",
            "pop rbx",
            "pop rbp",
            inlateout("rdi") word => answer,
            inlateout("rsi") 0_usize => signal,
            inlateout("rdx") target.0.get() => _,
            inlateout("rcx") parent.0.get() => pointer,
            inlateout("r8") place => _,
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
        "push rbp",
        ".cfi_def_cfa rsp, 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdx",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}
