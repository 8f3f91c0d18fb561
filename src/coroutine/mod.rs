//! Floor 3: the switch made safe.
//!
//! What a new coroutine's stack holds, from the top down:
//!
//! ```text
//!   top    +--------------------------------+
//!          | (stagger)                      |
//!          +--------------------------------+
//!          | slot: the function to run      |  later its result
//!          +--------------------------------+
//!          | link: landing or parent, and   |  what a `Yielder` points at
//!          |       how to drop the function |
//!   sp --> +--------------------------------+
//!          | free                           |
//!   limit  +--------------------------------+
//! ```
//!
//! No allocation is made for a coroutine besides its stack.

pub mod context;
#[cfg(feature = "std")]
mod ensure_stack;
mod entry;
pub mod fp;
#[cfg(doctest)]
mod must_not_compile;
mod on_stack;
mod raw;
mod scoped;
mod unwind;
mod value;
mod yielder;

use core::fmt;
use core::iter::FusedIterator;

#[cfg(feature = "std")]
pub use ensure_stack::ensure_stack;
pub use on_stack::on_stack;
pub use scoped::{Scoped, scoped};
pub use yielder::Yielder;

#[cfg(feature = "std")]
use crate::stack::{DEFAULT_RESERVE, Pooled};
use crate::stack::{Error, Stack};
use raw::Raw;

/// What [`Coroutine::resume`] came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resumed<Yield, Return> {
    /// The coroutine suspended with this value; it can be resumed again.
    Yielded(Yield),
    /// The coroutine's function returned this value; it is finished.
    Returned(Return),
}

#[cfg(feature = "std")]
type DefaultStack = Pooled;
#[cfg(not(feature = "std"))]
type DefaultStack = crate::stack::Borrowed;

/// A function that can be suspended and resumed, with the stack it runs on.
///
/// `Input` is what each [`resume`](Self::resume) brings in: the first as the function's second argument, the later ones
/// as what [`Yielder::suspend`] returns. `Yield` is what comes out when it suspends, `Return` when it returns.
///
/// It stays on the thread that created it (it is neither `Send` nor `Sync`) and owns what it uses.
///
/// # Dropping
///
/// A coroutine that never ran drops its function; one that finished has nothing left to drop; its stack is dropped
/// after. One that is suspended is *unwound*: it is resumed with a panic of its own kind, which does not run the panic
/// hook, so that the destructors of everything on its stack run, innermost first. A `catch_unwind` inside sees that
/// panic; it should pass it on. If it does not and the coroutine suspends again, it is unwound again, a hundred times at
/// the most, and no more if dropping a yielded value panics; then the stack is leaked, because nobody can tell who still
/// points into it. So it is if the coroutine is running when it is dropped, as a thread-local's is by `process::exit`. A coroutine that panics with
/// something else while it is unwound passes that panic to whoever drops it, or loses it if that one is panicking.
///
/// Where panics abort (`panic = "abort"`, or without the `std` feature) there is no unwinding: the stack of a suspended
/// coroutine is leaked, with everything on it.
pub struct Coroutine<
    Input: 'static,
    Yield: 'static,
    Return: 'static,
    S: Stack = DefaultStack,
    P: fp::Policy = fp::Shared,
> {
    raw: Raw<Input, Yield, Return, S, P>,
}

#[cfg(feature = "std")]
impl<Input: 'static, Yield: 'static, Return: 'static> Coroutine<Input, Yield, Return> {
    /// A coroutine that will run `f` on a stack of [`DEFAULT_RESERVE`] bytes from the [pool](crate::stack::Pool).
    ///
    /// The function is moved to the stack; nothing runs yet. Costs what [`Pooled::new`] costs: no system call if a stack has
    /// been given back before.
    ///
    /// # Errors
    ///
    /// If no stack can be had, the function's captures do not fit on it, or the thread has a shadow stack.
    pub fn new<F>(f: F) -> Result<Self, Error>
    where
        F: FnOnce(&Yielder<Input, Yield>, Input) -> Return + 'static,
    {
        Self::with_stack(Pooled::new(DEFAULT_RESERVE)?, f)
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static, S: Stack> Coroutine<Input, Yield, Return, S> {
    /// A coroutine that will run `f` on the given stack.
    ///
    /// The function is moved to the stack; nothing runs yet. No allocation, no system call.
    ///
    /// # Errors
    ///
    /// If the function's captures and the first frames do not fit, or the thread has a shadow stack; function and stack
    /// are dropped.
    #[inline]
    pub fn with_stack<F>(stack: S, f: F) -> Result<Self, Error>
    where
        F: FnOnce(&Yielder<Input, Yield>, Input) -> Return + 'static,
    {
        // SAFETY: `f` borrows for ever.
        Ok(Self { raw: unsafe { Raw::with_stack(stack, f)? } })
    }

    /// The same coroutine with a floating-point environment of its own: rounding mode, exception masks and flags that
    /// code inside sets are kept while it is suspended, and those of its resumer while it runs. For foreign code that
    /// changes them and calls back; see [`fp`].
    ///
    /// The environments are exchanged where this coroutine is resumed and where it suspends. Code inside that suspends a
    /// coroutine *around* this one takes this one's environment along to whoever resumed that: let the outer one have its
    /// own too.
    ///
    /// It begins as the environment in which this is called, whether the coroutine has started or not. Also the
    /// destructors that run when it is dropped unfinished run in it; values it yields are dropped in the dropper's.
    ///
    /// A resume then costs a call that is not inlined and, each way, the reading of the registers; they are written only
    /// if they differ. Nothing else changes, and coroutines that do not ask pay nothing.
    ///
    /// ```
    /// # fn main() -> Result<(), switchback::stack::Error> {
    /// use switchback::{Coroutine, Yielder};
    ///
    /// # fn a_c_function_that_sets_the_rounding_mode_and_calls_back(callback: impl Fn(f64)) { callback(1.5) }
    /// let mut bounds = Coroutine::new(|yielder: &Yielder<(), f64>, ()| {
    ///     a_c_function_that_sets_the_rounding_mode_and_calls_back(|bound| yielder.suspend(bound));
    /// })?
    /// .with_own_fp_environment();
    /// // What the C function set is set inside only.
    /// assert_eq!(bounds.next(), Some(1.5));
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn with_own_fp_environment(self) -> Coroutine<Input, Yield, Return, S, fp::Own> {
        Coroutine { raw: self.raw.with_policy(fp::Own::current()) }
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static, S: Stack, P: fp::Policy> Coroutine<Input, Yield, Return, S, P> {
    /// Runs the coroutine until it suspends or returns.
    ///
    /// Costs two switches and nothing else: no allocation, no lock, no system call. A value of at most one word travels
    /// in a register, a larger one by one copy.
    ///
    /// # Panics
    ///
    /// If the coroutine has finished. If the coroutine panics, with its panic: it ran the hook inside, unwound the
    /// coroutine, and goes on here; the coroutine is then finished.
    #[inline]
    pub fn resume(&mut self, input: Input) -> Resumed<Yield, Return> {
        self.raw.resume(input)
    }

    /// Whether the function has returned or panicked.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.raw.is_finished()
    }

    /// Takes the stack back, for another coroutine.
    ///
    /// If the coroutine is suspended it is unwound first, as when it is dropped; a function that never ran is dropped.
    /// None if it cannot be unwound: the stack is leaked.
    ///
    /// # Panics
    ///
    /// With a panic of a destructor, or one that leaves the coroutine while it is unwound; the stack is dropped or
    /// leaked then.
    #[inline]
    pub fn into_stack(self) -> Option<S> {
        self.raw.into_stack()
    }
}

/// What it yields; a coroutine that needs no input and returns nothing.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::{Coroutine, Yielder};
///
/// let countdown = Coroutine::new(|yielder: &Yielder<(), u32>, ()| {
///     for n in (1..=3).rev() {
///         yielder.suspend(n);
///     }
/// })?;
/// assert_eq!(countdown.collect::<Vec<_>>(), [3, 2, 1]);
/// # Ok(())
/// # }
/// ```
impl<Yield, S: Stack, P: fp::Policy> Iterator for Coroutine<(), Yield, (), S, P> {
    type Item = Yield;

    #[inline]
    fn next(&mut self) -> Option<Yield> {
        next(&mut self.raw)
    }
}

impl<Yield, S: Stack, P: fp::Policy> FusedIterator for Coroutine<(), Yield, (), S, P> {}

#[inline]
fn next<Yield, S: Stack, P: fp::Policy>(raw: &mut Raw<(), Yield, (), S, P>) -> Option<Yield> {
    if raw.is_finished() {
        return None;
    }
    match raw.resume(()) {
        Resumed::Yielded(value) => Some(value),
        Resumed::Returned(()) => None,
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static, S: Stack, P: fp::Policy> fmt::Debug
    for Coroutine<Input, Yield, Return, S, P>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}
