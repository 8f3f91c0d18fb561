//! Floor 1: the switch.
//!
//! One file per ABI, each with the same items under the same names:
//!
//! | item | what it is |
//! |---|---|
//! | `STACK_ALIGNMENT` | bytes the stack pointer must be a multiple of at a call |
//! | `RED_ZONE` | bytes below the stack pointer that a leaf function may use and a signal handler keeps |
//! | `STACK_PROBES` | whether the compiler touches every page of a large frame in order, so that one guard page suffices |
//! | `trampoline` | first code of a new coroutine; never called, only its address is used |
//! | `resume` | leaves the running context for a suspended one, which can find the way back |
//! | `suspend` | leaves the running context for the one that resumed it |
//! | `transfer` | leaves the running context for another suspended one, which the same parent will hear of |
//! | `call_on` | calls a function on another stack |
//!
//! # How a switch works
//!
//! A suspended context is one address, a [`StackPointer`]. Its first word is the address at which the context goes on;
//! what lies above that word is private to the code at that address.
//!
//! `resume` *calls* that address with the stack pointer still on the resumer's side, so the processor's return
//! predictor sees a call. The code called notes the resumer's stack pointer (the *parent*), moves to its own stack and
//! goes on. `suspend` moves back to the parent's stack and *returns*, which the predictor expects. Four registers
//! carry everything, the first four argument registers of the C ABI:
//!
//! | register | to the coroutine | to the resumer |
//! |---|---|---|
//! | 0 | a word of the caller's | a word of the coroutine's |
//! | 1 | a [signal](Signal) | |
//! | 2 | the coroutine's own stack pointer | the same, or 0 when it has returned |
//! | 3 | | |
//!
//! Both are inline assembly that declares every other register clobbered: the compiler spills just the values that are
//! live, which in a loop around a switch is often none. Saved by hand are only the registers that LLVM reserves for
//! itself and refuses as clobbers. Nothing is stored below the stack pointer, because a signal handler may run there.

use core::mem::MaybeUninit;
use core::num::NonZeroUsize;

cfg_select! {
    target_arch = "x86_64" => { mod x86_64; pub use x86_64::*; }
    target_arch = "aarch64" => { mod aarch64; pub use aarch64::*; }
    target_arch = "arm" => { mod arm; pub use arm::*; }
    target_arch = "riscv64" => { mod riscv64; pub use riscv64::*; }
    target_arch = "loongarch64" => { mod loongarch64; pub use loongarch64::*; }
    _ => { compile_error!("switchback has no context switch for this architecture"); }
}

/// What travels in a register across a switch: a pointer, or the bytes of a value that is no larger.
///
/// A pointer rather than an integer, so that provenance travels with it.
pub type Word = MaybeUninit<*mut ()>;

/// Where a suspended context lies: the address of its saved frame, whose first word is the address to go on at.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct StackPointer(pub NonZeroUsize);

impl StackPointer {
    /// The pointer that assembly left in a register; zero means none.
    #[inline(always)]
    fn from_raw(raw: usize) -> Option<Self> {
        NonZeroUsize::new(raw).map(Self)
    }

    /// The same where zero cannot be.
    ///
    /// # Safety
    ///
    /// `raw` must not be zero.
    #[inline(always)]
    unsafe fn from_raw_unchecked(raw: usize) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { NonZeroUsize::new_unchecked(raw) })
    }
}

/// Said by the resumer to the resumed, beside the word. Zero when there is nothing to say.
pub type Signal = usize;

/// What lies at the top of a coroutine's stack, below what its creator stored there.
///
/// The trampoline is entered with the address of this frame and calls `entry` with the address of `link`.
#[repr(C)]
struct InitialFrame {
    resume: usize,
    entry: Entry,
    link: Link,
}

/// The coroutine's way back, at a fixed place of its stack: where the assembly's unwind tables look for the resumer.
#[repr(C)]
pub struct Link {
    /// Stack pointer of the context that resumed this one last. Stale while the coroutine is suspended.
    pub parent: core::cell::Cell<StackPointer>,
    /// A word of the creator's.
    pub data: *mut (),
}

/// The first Rust function of a coroutine: word and signal of the first resume, own stack pointer, link.
///
/// What it returns is the word the last `resume` returns. It must not unwind.
pub type Entry = unsafe extern "C" fn(Word, Signal, usize, *const Link) -> Word;

/// Lays out a new context on a stack whose free part ends at `top`.
///
/// Returns what the first `resume` takes. Writes `size_of::<InitialFrame>()` bytes (four words).
///
/// # Safety
///
/// `top` must be a multiple of [`STACK_ALIGNMENT`] and the four words below it must be writable and not in use.
#[inline]
pub unsafe fn prepare(top: *mut u8, entry: Entry, data: *mut ()) -> StackPointer {
    debug_assert!(top.addr().is_multiple_of(STACK_ALIGNMENT));
    // SAFETY: the caller vouches for the four words below `top`; none of them lies at address zero.
    unsafe {
        let frame = top.cast::<InitialFrame>().sub(1);
        let pointer = StackPointer(NonZeroUsize::new_unchecked(frame.expose_provenance()));
        frame.write(InitialFrame {
            resume: trampoline_address(),
            entry,
            // The trampoline overwrites the parent before anyone reads it.
            link: Link { parent: core::cell::Cell::new(pointer), data },
        });
        pointer
    }
}

/// Whether this context has never been resumed.
///
/// # Safety
///
/// `context` must be suspended and its stack still mapped.
#[inline]
pub unsafe fn is_unstarted(context: StackPointer) -> bool {
    // SAFETY: the first word of a suspended context is the address it goes on at, by definition of `StackPointer`.
    unsafe { *core::ptr::with_exposed_provenance::<usize>(context.0.get()) == trampoline_address() }
}

/// The link of a context that was never resumed.
///
/// # Safety
///
/// `context` must come from [`prepare`] and never have been resumed.
pub unsafe fn link_of_unstarted(context: StackPointer) -> *const Link {
    // SAFETY: an unstarted context points at its `InitialFrame`.
    unsafe { &raw const (*core::ptr::with_exposed_provenance::<InitialFrame>(context.0.get())).link }
}

#[inline]
fn trampoline_address() -> usize {
    trampoline as *const () as usize
}
