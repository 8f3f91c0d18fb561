//! 32-bit arm, AAPCS, in ARM state or in Thumb-2, with or without VFP.
//!
//! The address that a context goes on at has its lowest bit set in Thumb state, as branches expect. Which state it is, the
//! build script tells by the target; where a flag of the compiler says otherwise, an instruction here does not assemble.
//!
//! Saved by hand: r6, r7 and r11, which LLVM keeps for itself (r7 is the frame pointer in Thumb state, r11 in ARM
//! state), and the return address. Every other register is a clobber. Among those are d8-d15, callee-saved where there
//! is VFP; they are named as d registers because LLVM drops a clobber of q4-q7 silently on a target without NEON.
//!
//! ```text
//!            suspended context                parent, while the context runs
//!            +--------------------+           +--------------------+
//!   sp +  8  | r11                |  sp + 12  | r7 (Thumb: r11)    |
//!   sp +  4  | r7                 |  sp +  8  | r6                 |
//!   sp ----> | r6                 |  sp +  4  | return address     |  <- stored by the resumed side
//!            +--------------------+  sp ----> | r11 (Thumb: r7)    |  <- the same
//!                                             +--------------------+
//! ```
//!
//! FPSCR is not touched: a change made on one side of a switch is seen on the other.

use core::arch::{asm, naked_asm};

use super::{Link, Word};

/// AAPCS: eight bytes at a public interface.
pub const STACK_ALIGNMENT: usize = 8;
/// AAPCS gives none.
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
            lateout("r4") _, lateout("r5") _, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("lr") _,
            lateout("d8") _, lateout("d9") _, lateout("d10") _, lateout("d11") _,
            lateout("d12") _, lateout("d13") _, lateout("d14") _, lateout("d15") _,
            clobber_abi("C"),
        )
    };
}

/// The landing's address in r5.
#[cfg(not(thumb))]
macro_rules! set_r5_to_2 {
    () => {
        "adr r5, 2f"
    };
}

/// The same with the bit that keeps a branch there in Thumb state.
#[cfg(thumb)]
macro_rules! set_r5_to_2 {
    () => {
        "adr.w r5, 2f + 1"
    };
}

/// The register that frame records are chained through.
#[cfg(not(thumb))]
macro_rules! frame_pointer {
    () => {
        "r11"
    };
}

/// The one of r7 and r11 that is not.
#[cfg(not(thumb))]
macro_rules! other_register {
    () => {
        "r7"
    };
}

/// The register that frame records are chained through.
#[cfg(thumb)]
macro_rules! frame_pointer {
    () => {
        "r7"
    };
}

/// The one of r7 and r11 that is not.
#[cfg(thumb)]
macro_rules! other_register {
    () => {
        "r11"
    };
}

/// Tells the trampoline's assembly which state it is for.
#[cfg(not(thumb))]
macro_rules! set_thumb {
    () => {
        ".set .Lthumb, 0"
    };
}

/// Tells the trampoline's assembly which state it is for.
#[cfg(thumb)]
macro_rules! set_thumb {
    () => {
        ".set .Lthumb, 1"
    };
}

/// Stores the resumer's frame record, which it returns through.
macro_rules! push_frame_record {
    () => {
        concat!("push {{", frame_pointer!(), ", lr}}\n")
    };
}

/// Where a suspended context goes on: completes the resumer's frame, keeps its stack pointer and moves to its own stack.
macro_rules! landing {
    () => {
        concat!(
            ".p2align 3\n",
            "nop\n",
            ".p2align 2\n",
            "2:\n",
            push_frame_record!(),
            "mov r3, sp\n",
            "mov sp, r2\n",
            "pop {{r6, r7, r11}}\n",
            "4:\n",
        )
    };
}

/// The same for a context that is to unwind, and the jump there before the first landing.
macro_rules! second_landing {
    () => {
        concat!(
            "3:\n",
            push_frame_record!(),
            "mov r3, sp\n",
            "mov sp, r2\n",
            "pop {{r6, r7, r11}}\n",
            "mov r2, #0\n",
            "b 4f\n",
            ".p2align 3\n",
            "nop\n",
            ".p2align 2\n",
            "b 3b\n",
        )
    };
}

/// Whether the thread has a shadow stack now, a second stack of return addresses that no switch here keeps in step.
///
/// The architecture has none.
#[inline(always)]
pub fn has_shadow_stack() -> bool {
    false
}

/// First code of a new context, see `asm/arm.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(
        set_thumb!(),
        include_str!("../../asm/arm.s"),
        options(raw)
    )
}

/// # Safety
///
/// See [the module](super#the-assembly).
#[inline(always)]
pub unsafe fn resume(landing: usize, stack_pointer: usize, word: Word) -> (Word, *const Link, usize) {
    let (answer, link, pointer);
    // SAFETY: the asm leaves sp, r6, r7 and r11 as it found them and declares the rest clobbered; the caller vouches for the
    // context.
    unsafe {
        switch!(
            concat!("push {{r6, ", other_register!(), "}}"),
            // To the resumed side, which finds its own stack pointer in r2, ours in sp, and the return address in lr. It
            // keeps the frame pointer for us.
            "blx r12",
            concat!("pop {{r6, ", other_register!(), "}}"),
            inlateout("r12") landing => _,
            inlateout("r0") word => answer,
            lateout("r1") link,
            inlateout("r2") stack_pointer => pointer,
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
            set_r5_to_2!(),
            "push {{r6, r7, r11}}",
            "str r5, [r1, #8]",
            "mov r2, sp",
            // To the resumer's `blx`, which expects a return.
            "mov sp, r3",
            concat!("pop {{", frame_pointer!(), ", pc}}"),
            second_landing!(),
            landing!(),
            inlateout("r0") word => answer,
            inlateout("r1") link => _,
            lateout("r2") pointer,
            inlateout("r3") parent => resumer,
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
            set_r5_to_2!(),
            "push {{r6, r7, r11}}",
            "str r5, [r1, #8]",
            "str sp, [r1, #4]",
            // The other side finds its own stack pointer in r2, and the parent's in r3: what a landing begins with, two
            // instructions that put it there, is done.
            "add r12, r12, #{two_instructions}",
            "bx r12",
            landing!(),
            two_instructions = const if cfg!(thumb) { 4 } else { 8 },
            inlateout("r12") landing => _,
            inlateout("r0") word => answer,
            inlateout("r1") link => _,
            inlateout("r2") stack_pointer => _,
            inlateout("r3") parent => resumer,
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
        ".fnstart",
        concat!(".save {{", frame_pointer!(), ", lr}}"),
        concat!("push {{", frame_pointer!(), ", lr}}"),
        concat!(".setfp ", frame_pointer!(), ", sp"),
        concat!("mov ", frame_pointer!(), ", sp"),
        "mov sp, r2",
        "blx r1",
        concat!("mov sp, ", frame_pointer!()),
        concat!("pop {{", frame_pointer!(), ", pc}}"),
        ".fnend",
    )
}

/// The stack pointer of the caller, into which this is inlined.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) }
    pointer
}

/// FPSCR without the condition flags, which belong to the last comparison.
#[cfg(target_abi = "eabihf")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpEnvironment {
    fpscr: u32,
}

/// Where floats are not passed in registers there need be no VFP.
#[cfg(not(target_abi = "eabihf"))]
pub use super::no_fp::FpEnvironment;

#[cfg(target_abi = "eabihf")]
impl FpEnvironment {
    /// All but N, Z, C and V.
    const KEPT: u32 = 0x0fff_ffff;

    /// Reads the register.
    #[inline(always)]
    pub fn current() -> Self {
        let fpscr: u32;
        // SAFETY: copies a register.
        unsafe { asm!("vmrs {}, fpscr", out(reg) fpscr, options(nomem, nostack, preserves_flags)) }
        Self { fpscr: fpscr & Self::KEPT }
    }

    /// Loads `self` where `over` is current. A register in which they agree is not written: reading one and comparing is
    /// cheaper than writing it.
    ///
    /// # Safety
    ///
    /// No floating-point operation of Rust may come before the environment is the default one again.
    #[inline(always)]
    pub unsafe fn load(self, over: Self) {
        if self.fpscr != over.fpscr {
            // SAFETY: the value was read from the same register; the caller vouches for what runs under it.
            unsafe { asm!("vmsr fpscr, {}", in(reg) self.fpscr, options(nostack)) }
        }
    }
}
