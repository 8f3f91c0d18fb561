//! Panics at the border of a coroutine, and the unwinding of one that is dropped unfinished.
//!
//! A panic never crosses a switch: it is caught on the coroutine's stack and raised again on the resumer's.

use crate::arch::Signal;

/// Signal: unwind instead of going on.
pub(super) const UNWIND: Signal = 1;
/// Signal: whoever resumes is panicking, so the coroutine's thread counts a panic that is not its own.
pub(super) const RESUMER_IS_PANICKING: Signal = 2;

pub(super) use imp::*;

#[cfg(feature = "std")]
mod imp {
    use std::any::Any;
    use std::panic::{self, AssertUnwindSafe};

    use super::{RESUMER_IS_PANICKING, UNWIND};
    use crate::arch::{self, StackPointer, Word};
    use crate::coroutine::{entry, value};

    /// What a panic carries.
    pub(in crate::coroutine) type Panic = Box<dyn Any + Send>;

    /// What the unwinding of a dropped coroutine carries.
    struct Unwinding;

    /// How often a coroutine may swallow its unwinding and suspend again before its stack is leaked.
    const ATTEMPTS: usize = 100;

    /// Whether this thread is panicking: one load of a global when no thread is.
    #[inline(always)]
    pub(in crate::coroutine) fn panicking() -> bool {
        std::thread::panicking()
    }

    /// Runs a coroutine's function and keeps its panic.
    #[inline(always)]
    pub(in crate::coroutine) fn catch<Return>(f: impl FnOnce() -> Return) -> Result<Return, Panic> {
        // The panic is raised again at the resumer, who sees the same broken invariants as after any call.
        panic::catch_unwind(AssertUnwindSafe(f))
    }

    /// Raises a coroutine's panic again.
    #[cold]
    pub(in crate::coroutine) fn resume_panic(panic: Panic) -> ! {
        panic::resume_unwind(panic)
    }

    /// Unwinds the running coroutine. Its panic hook is not run.
    #[cold]
    pub(in crate::coroutine) fn throw() -> ! {
        panic::resume_unwind(Box::new(Unwinding))
    }

    /// Runs the destructors of a suspended coroutine. Returns a panic that is not ours, if one is left.
    ///
    /// `context` is None afterwards if the coroutine's function is over. If it is not, also when this panics, the
    /// coroutine cannot be unwound and may still use whatever it borrows.
    ///
    /// # Safety
    ///
    /// The context must be suspended in a `suspend` of a coroutine with these types, on a mapped stack, on this thread.
    pub(in crate::coroutine) unsafe fn unwind<Yield, Return>(context: &mut Option<StackPointer>) -> Option<Panic> {
        if cfg!(panic = "abort") {
            return None;
        }
        for _ in 0..ATTEMPTS {
            let target = (*context)?;
            let signal = UNWIND | if panicking() { RESUMER_IS_PANICKING } else { 0 };
            // SAFETY: the caller's promise; with `UNWIND` the word is not looked at.
            let (word, next) = unsafe { arch::resume(target, Word::uninit(), signal) };
            *context = next;
            if next.is_none() {
                // SAFETY: it has just ended, its stack is still mapped.
                let result = unsafe { entry::take_result::<Return>(word) };
                return result.err().filter(|panic| !panic.is::<Unwinding>() && !panicking());
            }
            // Dropping it may panic.
            // SAFETY: `suspend` sends an encoded `Yield`, which stays in place while suspended.
            drop(unsafe { value::decode::<Yield>(word) });
        }
        None
    }
}

#[cfg(not(feature = "std"))]
mod imp {
    use crate::arch::StackPointer;

    /// No panic is ever caught.
    pub(in crate::coroutine) enum Panic {}

    /// Not known without `std`.
    #[inline(always)]
    pub(in crate::coroutine) fn panicking() -> bool {
        false
    }

    /// Runs a coroutine's function. A panic that unwinds meets the C frame of the entry function and aborts.
    #[inline(always)]
    pub(in crate::coroutine) fn catch<Return>(f: impl FnOnce() -> Return) -> Result<Return, Panic> {
        Ok(f())
    }

    /// Cannot be called.
    pub(in crate::coroutine) fn resume_panic(panic: Panic) -> ! {
        match panic {}
    }

    /// Not reached: nobody sends `UNWIND`.
    #[cold]
    pub(in crate::coroutine) fn throw() -> ! {
        panic!("a coroutine cannot be unwound without std")
    }

    /// There is no unwinding without `std`.
    ///
    /// # Safety
    ///
    /// None; the signature is that of the real one.
    #[expect(clippy::extra_unused_type_parameters, reason = "the real one drops values of these types")]
    pub(in crate::coroutine) unsafe fn unwind<Yield, Return>(_: &mut Option<StackPointer>) -> Option<Panic> {
        None
    }
}
