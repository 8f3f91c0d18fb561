//! aarch64, AAPCS64 (Linux and the BSDs).
//!
//! Saved by hand: x19 and x29 (the frame pointer), which LLVM keeps for itself, and the return address. Every other
//! register is a clobber, v8-v15 among them: the ABI makes their low halves callee-saved.
//!
//! ```text
//!            suspended context                parent, while the context runs
//!            +--------------------+           +--------------------+
//!   sp +  8  | x29                |  sp + 24  | (padding)          |
//!   sp ----> | x19                |  sp + 16  | x19                |
//!            +--------------------+  sp +  8  | return address     |  <- stored by the resumed side
//!                                    sp ----> | x29                |  <- the same
//!                                             +--------------------+
//! ```
//!
//! FPCR is not touched: a change made on one side of a switch is seen on the other. x18, which some platforms own, is
//! neither saved nor restored.

use core::arch::{asm, naked_asm};

use super::{Link, Word};

/// The hardware faults on a misaligned stack pointer.
pub const STACK_ALIGNMENT: usize = 16;
/// Linux and the BSDs give none.
pub const RED_ZONE: usize = 0;
/// rustc's target specification has inline stack probes, which rustc leaves out under the sanitizers.
pub const STACK_PROBES: bool = cfg!(not(switchback_sanitizer));
/// Bytes from the jump that `second_landing!` places to the landing that follows.
pub const SECOND_LANDING: usize = 16;

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

/// `bti c`: where an indirect call may land, if branch target identification (BTI) is on for the program. A hint, which
/// does nothing where it is off and on processors that do not know it; the assembler knows its number on all of them.
macro_rules! landing_pad {
    () => {
        "hint #34"
    };
}

/// Where a suspended context goes on: completes the resumer's frame, keeps its stack pointer and moves to its own stack.
macro_rules! landing {
    () => {
        concat!(
            ".p2align 3\n",
            "nop\n",
            "2:\n",
            "hint #34\n", // the landing pad
            "stp x29, lr, [sp, #-16]!\n",
            "mov x3, sp\n",
            "mov sp, x2\n",
            "ldp x19, x29, [sp], #16\n",
            "4:\n",
        )
    };
}

/// The same for a context that is to unwind, and the jump there before the first landing.
macro_rules! second_landing {
    () => {
        concat!(
            "3:\n",
            "stp x29, lr, [sp, #-16]!\n",
            "mov x3, sp\n",
            "mov sp, x2\n",
            "ldp x19, x29, [sp], #16\n",
            "mov x2, xzr\n",
            "b 4f\n",
            ".p2align 3\n",
            "nop\n",
            "hint #34\n", // the landing pad
            "b 3b\n",
        )
    };
}

/// Whether the thread has a shadow stack now, a second stack of return addresses that no switch here keeps in step.
///
/// One instruction, a hint that processors without a guarded control stack (GCS) take for none.
#[inline(always)]
pub fn has_shadow_stack() -> bool {
    let mut features = 1_usize;
    // SAFETY: `chkfeat x16` clears the bits of those features asked about that are on; bit 0 is GCS.
    unsafe { asm!("hint #40", inout("x16") features, options(nomem, nostack, preserves_flags)) };
    features == 0
}

/// First code of a new context, see `asm/aarch64.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/aarch64.s"), options(raw))
}

/// # Safety
///
/// See [the module](super#the-assembly).
#[inline(always)]
pub unsafe fn resume(landing: usize, stack_pointer: usize, word: Word) -> (Word, *const Link, usize) {
    let (answer, link, pointer);
    // SAFETY: the asm leaves sp, x19 and x29 as it found them and declares the rest clobbered; the caller vouches for the
    // context.
    unsafe {
        switch!(
            "str x19, [sp, #-16]!",
            // To the resumed side, which finds its own stack pointer in x2, ours in sp, and the return address in lr. It
            // keeps x29 for us.
            "blr x9",
            "ldr x19, [sp], #16",
            inlateout("x9") landing => _,
            inlateout("x0") word => answer,
            lateout("x1") link,
            inlateout("x2") stack_pointer => pointer,
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
            "adr x9, 2f",
            "stp x19, x29, [sp, #-16]!",
            "str x9, [x1, #16]",
            "mov x2, sp",
            // To the resumer's `blr`, which expects a return.
            "ldp x29, lr, [x3]",
            "add sp, x3, #16",
            "ret",
            second_landing!(),
            landing!(),
            inlateout("x0") word => answer,
            inlateout("x1") link => _,
            lateout("x2") pointer,
            inlateout("x3") parent => resumer,
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
            "adr x10, 2f",
            "stp x19, x29, [sp, #-16]!",
            "mov x11, sp",
            "stp x11, x10, [x1, #8]",
            // The other side finds its own stack pointer in x2, the parent's in sp, its return address in lr and its frame
            // pointer in x29, as if it had called.
            "ldp x29, lr, [x3]",
            "add sp, x3, #16",
            // Through x16, from which a landing pad for calls can be reached with a jump as well.
            "br x16",
            landing!(),
            inlateout("x16") landing => _,
            inlateout("x0") word => answer,
            inlateout("x1") link => _,
            inlateout("x2") stack_pointer => _,
            inlateout("x3") parent => resumer,
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
        landing_pad!(),
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

/// The stack pointer of the caller, into which this is inlined.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) }
    pointer
}

/// FPCR and FPSR.
#[cfg(target_feature = "neon")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpEnvironment {
    fpcr: u64,
    fpsr: u64,
}

#[cfg(not(target_feature = "neon"))]
pub use super::no_fp::FpEnvironment;

#[cfg(target_feature = "neon")]
impl FpEnvironment {
    /// Reads the registers.
    #[inline(always)]
    pub fn current() -> Self {
        let (fpcr, fpsr): (u64, u64);
        // SAFETY: copies two registers.
        unsafe {
            asm!(
                "mrs {}, fpcr",
                "mrs {}, fpsr",
                out(reg) fpcr,
                out(reg) fpsr,
                options(nomem, nostack, preserves_flags),
            );
        }
        Self { fpcr, fpsr }
    }

    /// Loads `self` where `over` is current. A register in which they agree is not written: reading one and comparing is
    /// cheaper than writing it.
    ///
    /// # Safety
    ///
    /// No floating-point operation of Rust may come before the environment is the default one again.
    #[inline(always)]
    pub unsafe fn load(self, over: Self) {
        // SAFETY: the values were read from the same registers; the caller vouches for what runs under them.
        unsafe {
            if self.fpcr != over.fpcr {
                asm!("msr fpcr, {}", in(reg) self.fpcr, options(nostack));
            }
            if self.fpsr != over.fpsr {
                asm!("msr fpsr, {}", in(reg) self.fpsr, options(nostack));
            }
        }
    }
}
