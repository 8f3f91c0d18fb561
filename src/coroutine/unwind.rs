//! Panics at the border of a coroutine, and the unwinding of one that is dropped unfinished.
//!
//! A panic never crosses a switch: it is caught on the coroutine's stack and raised again on the resumer's.

use super::entry;
use crate::arch::{self, Signal, StackPointer};

/// Signal: unwind instead of going on.
pub(super) const UNWIND: Signal = 1;
/// Signal: whoever resumes is panicking, so the coroutine's thread counts a panic that is not its own.
pub(super) const RESUMER_IS_PANICKING: Signal = 2;

pub(super) use imp::*;

/// Ends a coroutine that has not finished: drops its function if it never ran, else runs the destructors of what is on
/// its stack. A panic that is not ours is returned, unless this thread is panicking already.
///
/// What is returned of the context is None if the coroutine is over. If it is not, it cannot be unwound and may still
/// use whatever it borrows.
///
/// # Safety
///
/// The context must be unstarted or suspended in a `suspend` of a coroutine with these types, on a mapped stack, on
/// this thread. It must not be used again.
#[cold]
pub(super) unsafe fn end<Yield, Return>(context: StackPointer) -> (Option<StackPointer>, Option<Panic>) {
    // SAFETY: the caller's promise.
    unsafe {
        if arch::is_unstarted(context) {
            return (None, catch(|| entry::drop_unstarted(context)).err());
        }
        unwind::<Yield, Return>(context)
    }
}

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

    /// Runs the destructors of a suspended coroutine.
    pub(super) unsafe fn unwind<Yield, Return>(context: StackPointer) -> (Option<StackPointer>, Option<Panic>) {
        if cfg!(panic = "abort") {
            return (Some(context), None);
        }
        let mut context = context;
        for _ in 0..ATTEMPTS {
            let signal = UNWIND | if panicking() { RESUMER_IS_PANICKING } else { 0 };
            // SAFETY: the caller's promise; with `UNWIND` the word is not looked at.
            let (word, next) = unsafe { arch::resume(context, Word::uninit(), signal) };
            let Some(next) = next else {
                // SAFETY: it has just ended, its stack is still mapped.
                let result = unsafe { entry::take_result::<Return>(word) };
                // A result that nobody wants is dropped, which may panic as well.
                let panic = result.and_then(|value| catch(|| drop(value))).err();
                return (None, panic.filter(|panic| !panic.is::<Unwinding>() && !panicking()));
            };
            context = next;
            // SAFETY: `suspend` sends an encoded `Yield`, which stays in place while suspended.
            let value = unsafe { value::decode::<Yield>(word) };
            if let Err(panic) = catch(|| drop(value)) {
                return (Some(context), Some(panic).filter(|_| !panicking()));
            }
        }
        (Some(context), None)
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
    #[allow(clippy::extra_unused_type_parameters, reason = "the real one drops values of these types")]
    pub(super) unsafe fn unwind<Yield, Return>(context: StackPointer) -> (Option<StackPointer>, Option<Panic>) {
        (Some(context), None)
    }
}
