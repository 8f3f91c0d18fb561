//! loongarch64, any of the LP64 ABIs.
//!
//! Saved by hand: fp ($r22) and s8 ($r31), which LLVM keeps for itself, and the return address. Every other register is
//! a clobber, fs0-fs7 ($f24-$f31) among them. tp ($r2) and the reserved $r21 are never touched.
//!
//! ```text
//!            suspended context                parent, while the context runs
//!            +--------------------+           +--------------------+
//!   sp +  8  | s8                 |  sp -  8  | return address     |  <- stored by the resumed side
//!   sp ----> | fp                 |  sp - 16  | fp                 |
//!            +--------------------+  sp - 24  | (padding)          |
//!                                    sp - 32  | s8                 |
//!                                             +--------------------+
//! ```
//!
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
            lateout("$ra") _,
            lateout("$s0") _, lateout("$s1") _, lateout("$s2") _, lateout("$s3") _,
            lateout("$s4") _, lateout("$s5") _, lateout("$s6") _, lateout("$s7") _,
            lateout("$fs0") _, lateout("$fs1") _, lateout("$fs2") _, lateout("$fs3") _,
            lateout("$fs4") _, lateout("$fs5") _, lateout("$fs6") _, lateout("$fs7") _,
            clobber_abi("C"),
        )
    };
}

/// Where a suspended context goes on: completes the resumer's frame, keeps its stack pointer and moves to its own stack.
macro_rules! landing {
    () => {
        concat!(
            ".p2align 3\n",
            "nop\n",
            "2:\n",
            "st.d $ra, $sp, 24\n",
            "addi.d $a3, $sp, 32\n",
            "ld.d $fp, $a2, 0\n",
            "ld.d $s8, $a2, 8\n",
            "addi.d $sp, $a2, 16\n",
            "4:\n",
        )
    };
}

/// The same for a context that is to unwind, and the jump there before the first landing.
macro_rules! second_landing {
    () => {
        concat!(
            "3:\n",
            "st.d $ra, $sp, 24\n",
            "addi.d $a3, $sp, 32\n",
            "ld.d $fp, $a2, 0\n",
            "ld.d $s8, $a2, 8\n",
            "addi.d $sp, $a2, 16\n",
            "move $a2, $zero\n",
            "b 4f\n",
            ".p2align 3\n",
            "nop\n",
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

/// First code of a new context, see `asm/loongarch64.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/loongarch64.s"), options(raw))
}

/// # Safety
///
/// See [the module](super#the-assembly).
#[inline(always)]
pub unsafe fn resume(landing: usize, stack_pointer: usize, word: Word) -> (Word, *const Link, usize) {
    let (answer, link, pointer);
    // SAFETY: the asm leaves sp, fp and s8 as it found them and declares the rest clobbered; the caller vouches for the
    // context.
    unsafe {
        switch!(
            "addi.d $sp, $sp, -32",
            "st.d $fp, $sp, 16",
            "st.d $s8, $sp, 0",
            // To the resumed side, which finds its own stack pointer in a2, ours in sp, and the return address in ra.
            "jirl $ra, $t0, 0",
            "ld.d $fp, $sp, 16",
            "ld.d $s8, $sp, 0",
            "addi.d $sp, $sp, 32",
            inlateout("$t0") landing => _,
            inlateout("$a0") word => answer,
            lateout("$a1") link,
            inlateout("$a2") stack_pointer => pointer,
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
            "la.local $t0, 2f",
            "addi.d $sp, $sp, -16",
            "st.d $fp, $sp, 0",
            "st.d $s8, $sp, 8",
            "st.d $t0, $a1, 16",
            "move $a2, $sp",
            // To the resumer's `jirl`, which expects a return.
            "ld.d $ra, $a3, -8",
            "addi.d $sp, $a3, -32",
            "ret",
            second_landing!(),
            landing!(),
            inlateout("$a0") word => answer,
            inlateout("$a1") link => _,
            lateout("$a2") pointer,
            inlateout("$a3") parent => resumer,
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
            "la.local $t1, 2f",
            "addi.d $sp, $sp, -16",
            "st.d $fp, $sp, 0",
            "st.d $s8, $sp, 8",
            "st.d $t1, $a1, 16",
            "st.d $sp, $a1, 8",
            // The other side finds its own stack pointer in a2, and the parent's in a3: what a landing begins with, two
            // instructions that put it there, is done.
            "jirl $zero, $t0, 8",
            landing!(),
            inlateout("$t0") landing => _,
            inlateout("$a0") word => answer,
            inlateout("$a1") link => _,
            inlateout("$a2") stack_pointer => _,
            inlateout("$a3") parent => resumer,
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

/// The stack pointer of the caller, into which this is inlined.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe { asm!("move {}, $sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) }
    pointer
}

/// fcsr0 without the causes of the last operation.
#[cfg(target_feature = "f")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpEnvironment {
    fcsr: u32,
}

#[cfg(not(target_feature = "f"))]
pub use super::no_fp::FpEnvironment;

#[cfg(target_feature = "f")]
impl FpEnvironment {
    /// All but the field `Cause`, which every operation overwrites.
    const KEPT: u32 = !0x1f00_0000;

    /// Reads the register.
    #[inline(always)]
    pub fn current() -> Self {
        let fcsr: u32;
        // SAFETY: copies a register.
        unsafe { asm!("movfcsr2gr {}, $fcsr0", out(reg) fcsr, options(nomem, nostack, preserves_flags)) }
        Self { fcsr: fcsr & Self::KEPT }
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
            unsafe { asm!("movgr2fcsr $fcsr0, {}", in(reg) self.fcsr, options(nostack)) }
        }
    }
}
