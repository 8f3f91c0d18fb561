//! x86_64, System V ABI.
//!
//! Saved by hand: rbx and rbp, which LLVM keeps for itself. Every other register is a clobber.
//!
//! ```text
//!            suspended context                parent, while the context runs
//!            +--------------------+           +--------------------+
//!   sp +  8  | rbp                |  sp + 16  | rbx                |
//!   sp ----> | rbx                |  sp +  8  | return address     |  <- pushed by the call in `resume`
//!            +--------------------+  sp ----> | rbp                |  <- pushed by the resumed side
//!                                             +--------------------+
//! ```
//!
//! MXCSR and the x87 control word are not touched: a change made on one side of a switch is seen on the other.

use core::arch::{asm, naked_asm};

use super::{Link, Word};

/// The ABI's alignment at a call.
pub const STACK_ALIGNMENT: usize = 16;
/// The System V ABI lets a leaf function use 128 bytes below the stack pointer.
pub const RED_ZONE: usize = 128;
/// rustc's target specification has inline stack probes, which rustc leaves out under the sanitizers.
pub const STACK_PROBES: bool = cfg!(not(switchback_sanitizer));
/// Bytes from the jump that `second_landing!` places to the landing that follows.
pub const SECOND_LANDING: usize = 8;

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

/// Where a suspended context goes on: completes the resumer's frame, keeps its stack pointer and moves to its own stack.
macro_rules! landing {
    () => {
        concat!(
            ".p2align 3, 0xcc\n",
            ".fill 4, 1, 0xcc\n",
            "2:\n",
            "push rbp\n",
            "mov rcx, rsp\n",
            "mov rsp, rdx\n",
            "pop rbx\n",
            "pop rbp\n",
            "4:\n",
        )
    };
}

/// The same for a context that is to unwind, and the jump there before the first landing.
macro_rules! second_landing {
    () => {
        concat!(
            "3:\n",
            "push rbp\n",
            "mov rcx, rsp\n",
            "mov rsp, rdx\n",
            "pop rbx\n",
            "pop rbp\n",
            "xor edx, edx\n",
            "jmp 4f\n",
            ".p2align 3, 0xcc\n",
            ".fill 4, 1, 0xcc\n",
            "jmp 3b\n",
        )
    };
}

/// Whether the thread has a shadow stack now, a second stack of return addresses that no switch here keeps in step.
///
/// One instruction, which does nothing where there is none (SHSTK, part of CET).
#[inline(always)]
pub fn has_shadow_stack() -> bool {
    let mut pointer = 0_usize;
    // SAFETY: reads a register, or does nothing.
    unsafe { asm!("rdsspq {}", inout(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer != 0
}

/// First code of a new context, see `asm/x86_64.s`.
#[unsafe(naked)]
pub unsafe extern "C" fn trampoline() {
    naked_asm!(include_str!("../../asm/x86_64.s"), options(raw))
}

/// # Safety
///
/// See [the module](super#the-assembly).
#[inline(always)]
pub unsafe fn resume(landing: usize, stack_pointer: usize, word: Word) -> (Word, *const Link, usize) {
    let (answer, link, pointer);
    // SAFETY: the asm leaves rsp, rbx and rbp as it found them and declares the rest clobbered; the caller vouches for the
    // context. Without `nostack` the compiler keeps nothing in the red zone here.
    unsafe {
        switch!(
            "push rbx",
            // To the resumed side, which finds its own stack pointer in rdx and ours, with the return address, in rsp. It
            // keeps rbp for us.
            "call rax",
            "pop rbx",
            inlateout("rax") landing => _,
            inlateout("rdi") word => answer,
            lateout("rsi") link,
            inlateout("rdx") stack_pointer => pointer,
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
            "push rbp",
            "push rbx",
            "lea rax, [rip + 2f]",
            "mov [rsi + 16], rax",
            "mov rdx, rsp",
            // To the resumer's `call`, which expects a return.
            "mov rsp, rcx",
            "pop rbp",
            "ret",
            second_landing!(),
            landing!(),
            inlateout("rdi") word => answer,
            inlateout("rsi") link => _,
            lateout("rdx") pointer,
            inlateout("rcx") parent => resumer,
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
            "push rbp",
            "push rbx",
            "lea r8, [rip + 2f]",
            "mov [rsi + 16], r8",
            "mov [rsi + 8], rsp",
            // The other side finds its own stack pointer in rdx, and the parent's in rcx: what a landing begins with, four
            // bytes that put it there, is done.
            "add rax, 4",
            "jmp rax",
            landing!(),
            inlateout("rax") landing => _,
            inlateout("rdi") word => answer,
            inlateout("rsi") link => _,
            inlateout("rdx") stack_pointer => _,
            inlateout("rcx") parent => resumer,
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

/// The stack pointer of the caller, into which this is inlined.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) }
    pointer
}

/// MXCSR, and of the x87 unit the control word and the exception flags of the status word.
#[cfg(target_feature = "sse")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpEnvironment {
    mxcsr: u32,
    x87_control: u16,
    x87_flags: u16,
}

#[cfg(not(target_feature = "sse"))]
pub use super::no_fp::FpEnvironment;

#[cfg(target_feature = "sse")]
impl FpEnvironment {
    /// The six exceptions and the stack fault.
    const X87_FLAGS: u16 = 0x7f;

    /// Reads the registers.
    #[inline(always)]
    pub fn current() -> Self {
        let mut mxcsr = 0_u32;
        let mut x87_control = 0_u16;
        let x87_status: u16;
        // SAFETY: writes the two variables.
        unsafe {
            asm!(
                "stmxcsr [{}]",
                "fnstcw [{}]",
                "fnstsw ax",
                in(reg) &raw mut mxcsr,
                in(reg) &raw mut x87_control,
                out("ax") x87_status,
                options(nostack, preserves_flags),
            );
        }
        Self { mxcsr, x87_control, x87_flags: x87_status & Self::X87_FLAGS }
    }

    /// Loads `self` where `over` is current. A register in which they agree is not written: reading one and comparing is
    /// cheaper than writing it.
    ///
    /// # Safety
    ///
    /// No floating-point operation of Rust may come before the environment is the default one again.
    #[inline(always)]
    pub unsafe fn load(self, over: Self) {
        // SAFETY: the values were read from the same registers, so no reserved bit is set in them; the caller vouches
        // for what runs under them.
        unsafe {
            if self.mxcsr != over.mxcsr {
                asm!("ldmxcsr [{}]", in(reg) &raw const self.mxcsr, options(nostack, readonly));
            }
            if self.x87_flags != over.x87_flags {
                self.load_x87();
            } else if self.x87_control != over.x87_control {
                asm!("fldcw [{}]", in(reg) &raw const self.x87_control, options(nostack, readonly));
            }
        }
    }

    /// The flags can be set only together with everything that the unit says of itself but its data registers. The
    /// control word goes with them, so that a flag is never seen under masks that it does not belong to, which would
    /// make the next x87 instruction trap.
    ///
    /// # Safety
    ///
    /// As for [`load`](Self::load).
    #[cold]
    unsafe fn load_x87(self) {
        // As `fnstenv` stores it in 64-bit mode: control, status and tag word, last instruction and operand.
        let mut environment = [0_u32; 7];
        // SAFETY: writes and reads the variable; the data registers and their stack stay as they are.
        unsafe {
            asm!("fnstenv [{}]", in(reg) &raw mut environment, options(nostack));
            environment[0] = environment[0] & 0xffff_0000 | u32::from(self.x87_control);
            // The summary bits, 7 and 15, follow from the others.
            environment[1] = environment[1] & !0x80ff | u32::from(self.x87_flags);
            asm!("fldenv [{}]", in(reg) &raw const environment, options(nostack, readonly));
        }
    }
}
