//! Panics at the border of a coroutine, and the unwinding of one that is dropped unfinished.
//!
//! A panic never crosses a switch: it is caught on the coroutine's stack and raised again on the resumer's.

use super::entry;
use super::fp::Policy;
use crate::arch::Link;

pub(super) use imp::*;

/// Ends a suspended coroutine: drops its function if it never ran, else runs the destructors of what is on its stack. A
/// panic that is not ours is returned, unless this thread is panicking already.
///
/// If it is not marked as ended afterwards, it cannot be unwound and may still use whatever it borrows; nobody may resume
/// it. Does not panic: whoever ends a coroutine must learn how that went.
///
/// # Safety
///
/// The context must be unstarted or suspended in a `suspend` of a coroutine with these types, on a mapped stack, on
/// this thread.
#[cold]
pub(super) unsafe fn end<Yield, Return>(link: *const Link, stack_pointer: usize, policy: impl Policy) -> Option<Panic> {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*link).is_unstarted() {
            return unwind::<Yield, Return>(link, stack_pointer, policy);
        }
        (*link).set_ended();
        catch(|| entry::drop_unstarted(link)).err().and_then(unless_panicking)
    }
}

#[cfg(feature = "std")]
mod imp {
    use std::any::Any;
    use std::panic::{self, AssertUnwindSafe};

    use crate::arch::Link;
    use crate::coroutine::fp::Policy;
    use crate::coroutine::{entry, value};
    use crate::switch;

    /// What a panic carries.
    pub(in crate::coroutine) type Panic = Box<dyn Any + Send>;

    /// What the unwinding of a dropped coroutine carries.
    struct Unwinding;

    /// How often a coroutine may swallow its unwinding and suspend again before its stack is leaked.
    const ATTEMPTS: usize = 100;

    /// Whether this thread is panicking: one load of a global when no thread is.
    #[inline(always)]
    pub(in crate::coroutine) fn panicking() -> bool {
        cfg_select! {
            any(miri, switchback_threads) => { crate::arch::native::panicking() }
            _ => { std::thread::panicking() }
        }
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
    pub(super) unsafe fn unwind<Yield, Return>(
        link: *const Link,
        stack_pointer: usize,
        policy: impl Policy,
    ) -> Option<Panic> {
        if cfg!(panic = "abort") {
            return None;
        }
        let (mut stack_pointer, mut policy) = (stack_pointer, policy);
        for _ in 0..ATTEMPTS {
            // SAFETY: the caller's promise.
            let back = unsafe { policy.around(|| switch::resume_to_unwind(link, stack_pointer)) };
            if back.link.is_null() {
                // SAFETY: it has just ended, its stack is still mapped.
                let result = unsafe {
                    (*link).set_ended();
                    entry::take_result::<Return>(back.word)
                };
                // A result that nobody wants is dropped, which may panic as well.
                let panic = result.and_then(|value| catch(|| drop(value))).err();
                return panic.filter(|panic| !panic.is::<Unwinding>()).and_then(unless_panicking);
            }
            stack_pointer = back.stack_pointer;
            // SAFETY: `suspend` sends an encoded `Yield`, which stays in place while suspended.
            let value = unsafe { value::decode::<Yield>(back.word) };
            if let Err(panic) = catch(|| drop(value)) {
                return unless_panicking(panic);
            }
        }
        None
    }

    /// Drops a panic that cannot be raised because one is under way.
    pub(super) fn unless_panicking(panic: Panic) -> Option<Panic> {
        if !panicking() {
            return Some(panic);
        }
        // What its destructor panics with may panic when dropped as well, and so on; nothing obliges us to try.
        if let Err(another) = catch(|| drop(panic)) {
            core::mem::forget(another);
        }
        None
    }
}

#[cfg(not(feature = "std"))]
mod imp {
    use crate::arch::Link;
    use crate::coroutine::fp::Policy;

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

    /// Not reached: nobody resumes to unwind.
    #[cold]
    pub(in crate::coroutine) fn throw() -> ! {
        panic!("a coroutine cannot be unwound without std")
    }

    /// There is no unwinding without `std`.
    #[allow(clippy::extra_unused_type_parameters, reason = "the real one drops values of these types")]
    pub(super) unsafe fn unwind<Yield, Return>(_: *const Link, _: usize, _: impl Policy) -> Option<Panic> {
        None
    }

    /// Cannot be called.
    pub(super) fn unless_panicking(panic: Panic) -> Option<Panic> {
        match panic {}
    }
}
