//! Coroutines that borrow, lent to a closure so that nobody can forget them.

use core::fmt;
use core::marker::PhantomData;

use super::fp::{Policy, Shared};
use super::raw::Raw;
use super::{Resumed, Yielder, unwind};
use crate::stack::{Error, Stack};

/// Runs `lend` with a coroutine that will run `body` on `stack` and, unlike [`Coroutine`](super::Coroutine), may borrow.
///
/// When `lend` returns or panics, the coroutine is ended as a dropped one is, before anything it borrows can be: it is
/// unwound if it is suspended. That is why it is lent to a closure and never owned: a value can be forgotten, the call
/// of a function cannot.
///
/// Costs what [`Coroutine::with_stack`](super::Coroutine::with_stack) costs.
///
/// # Errors
///
/// If the captures of `body` and the first frames do not fit on the stack, or the thread has a shadow stack; `lend` is not
/// called.
///
/// # Panics
///
/// With a panic of `lend`, or one that leaves the coroutine while it is unwound.
///
/// # Aborts
///
/// If the coroutine is suspended at the end and cannot be unwound: because panics abort (`panic = "abort"`, or without
/// the `std` feature), or because it swallows its unwinding and suspends a hundred times over, or then yields a value
/// whose drop panics. To return would leave it with borrows that dangle.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::{Resumed, Yielder, scoped, stack::Mapped};
///
/// let words = ["to", "and", "fro"].map(String::from);
/// let mut seen = 0;
/// let lengths = scoped(
///     Mapped::new(64 * 1024)?,
///     |yielder: &Yielder<(), usize>, ()| {
///         for word in &words {
///             seen += 1;
///             yielder.suspend(word.len());
///         }
///     },
///     |mut coroutine| {
///         let mut lengths = Vec::new();
///         while let Resumed::Yielded(length) = coroutine.resume(()) {
///             lengths.push(length);
///         }
///         lengths
///     },
/// )?;
/// assert_eq!((lengths, seen), (vec![2, 3, 3], 3));
/// # Ok(())
/// # }
/// ```
pub fn scoped<Input, Yield, Return, S, F, T>(
    stack: S,
    body: F,
    lend: impl for<'scope> FnOnce(Scoped<'scope, Input, Yield, Return, S>) -> T,
) -> Result<T, Error>
where
    S: Stack,
    F: FnOnce(&Yielder<Input, Yield>, Input) -> Return,
{
    // SAFETY: what `body` borrows outlives this call, and `lend` does not return before the coroutine has finished.
    unsafe { Ok(self::lend(Raw::with_stack(stack, body)?, lend)) }
}

/// Lends a coroutine; it has finished when this is left. If that is never, because this is on the stack of a coroutine
/// that never goes on, its borrows last as long.
pub(super) fn lend<Input, Yield, Return, S: Stack, P: Policy, T>(
    raw: Raw<Input, Yield, Return, S, P>,
    lend: impl for<'scope> FnOnce(Scoped<'scope, Input, Yield, Return, S, P>) -> T,
) -> T {
    /// Ends the coroutine, or the process.
    struct End<Input, Yield, Return, S: Stack, P: Policy>(Raw<Input, Yield, Return, S, P>);
    impl<Input, Yield, Return, S: Stack, P: Policy> Drop for End<Input, Yield, Return, S, P> {
        fn drop(&mut self) {
            let panic = self.0.end();
            if !self.0.is_finished() {
                suspended_at_the_end();
            }
            if let Some(panic) = panic {
                unwind::resume_panic(panic);
            }
        }
    }

    let mut coroutine = End(raw);
    lend(Scoped { raw: &mut coroutine.0, scope: PhantomData })
}

/// A coroutine lent by [`scoped`]. It stays on its thread (it is neither `Send` nor `Sync`).
pub struct Scoped<'scope, Input, Yield, Return, S: Stack, P: Policy = Shared> {
    raw: &'scope mut Raw<Input, Yield, Return, S, P>,
    /// Invariant, so that the scopes of two coroutines never agree and none can be swapped out of its own.
    scope: PhantomData<fn(&'scope ()) -> &'scope ()>,
}

impl<Input, Yield, Return, S: Stack, P: Policy> Scoped<'_, Input, Yield, Return, S, P> {
    /// Runs the coroutine until it suspends or returns; see [`Coroutine::resume`](super::Coroutine::resume).
    ///
    /// # Panics
    ///
    /// If the coroutine has finished, or with its own panic.
    #[inline]
    pub fn resume(&mut self, input: Input) -> Resumed<Yield, Return> {
        self.raw.resume(input)
    }

    /// Whether the function has returned or panicked.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }
}

impl<Yield, S: Stack, P: Policy> Iterator for Scoped<'_, (), Yield, (), S, P> {
    type Item = Yield;

    #[inline]
    fn next(&mut self) -> Option<Yield> {
        super::next(self.raw)
    }
}

impl<Yield, S: Stack, P: Policy> core::iter::FusedIterator for Scoped<'_, (), Yield, (), S, P> {}

impl<Input, Yield, Return, S: Stack, P: Policy> fmt::Debug for Scoped<'_, Input, Yield, Return, S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

/// Ends the process: a panic does not leave a function with the C ABI.
#[cold]
extern "C" fn suspended_at_the_end() -> ! {
    panic!("a scoped coroutine is still suspended at the end of its scope and cannot be unwound")
}
