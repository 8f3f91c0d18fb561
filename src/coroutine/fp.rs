//! The floating-point environment: rounding mode, exception masks, exception flags, and what else a processor keeps
//! beside its floating-point registers.
//!
//! It belongs to the thread, as C has it, and a switch does not touch it: what a coroutine changes is changed for its
//! resumer, and the other way round. That costs nothing and is right for nearly every program, because Rust itself knows
//! only the default environment.
//!
//! A coroutine [with an environment of its own](crate::Coroutine::with_own_fp_environment) is for foreign code: a C library that changes the
//! rounding mode or unmasks exceptions and calls back, where the callback suspends. Without it the resumer would go on
//! under the library's rounding mode.
//!
//! | | kept for a coroutine of its own |
//! |---|---|
//! | x86_64 | MXCSR; x87 control word (rounding, precision, masks) and the exception flags of the x87 status word |
//! | aarch64 | FPCR, FPSR |
//! | arm | FPSCR but the condition flags; nothing where the target's ABI passes no floats in registers (`eabi`) |
//! | riscv64 | fcsr |
//! | loongarch64 | fcsr0 but the field `Cause` |
//!
//! Nothing on targets without floating-point registers.
//!
//! # What Rust assumes
//!
//! The documentation of [`_mm_setcsr`](https://doc.rust-lang.org/core/arch/x86_64/fn._mm_setcsr.html) says it for
//! x86_64: that masks, rounding mode and the treatment of denormals are the default ones is assumed whenever Rust code
//! runs, whether it computes or not, since the compiler may move a computation. So a callback that foreign code calls
//! under another environment stands outside of what the language promises, as it does without any coroutine. In practice
//! it may do what does not compute with floats, such as suspending. That is why no safe function here changes the
//! environment in which its caller goes on.

use super::raw::Raw;
use super::scoped::lend;
use super::{Scoped, Yielder};
use crate::arch::FpEnvironment;
use crate::stack::{Error, Stack};

/// What the registers of the floating-point environment held at some time.
///
/// ```
/// use switchback::fp::Environment;
///
/// let before = Environment::current();
/// // Here a C function changes the rounding mode ...
/// // SAFETY: it is the environment that Rust assumes, as it was a moment ago.
/// unsafe { before.restore() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment(FpEnvironment);

impl Environment {
    /// The environment of the running code.
    ///
    /// Reads one to three registers. The exception flags of Rust's own operations are not reliable: the compiler may move
    /// an operation to the other side of this call, or compute it beforehand.
    #[inline]
    pub fn current() -> Self {
        Self(FpEnvironment::current())
    }

    /// Makes it the environment of the running code. Registers that hold the right value already are not written.
    ///
    /// For schedulers on [`context`](crate::context), which switch from foreign code to foreign code.
    ///
    /// # Safety
    ///
    /// If it is not the default environment of Rust, then nothing but foreign code may compute with floats until that
    /// is restored; and the compiler may move what Rust code computes to either side of this call, so none of it may be
    /// within reach: keep such computations in functions that are not inlined.
    #[inline]
    pub unsafe fn restore(self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.load(FpEnvironment::current()) }
    }
}

/// Whose floating-point environment a coroutine computes in: [`Shared`] or [`Own`].
pub trait Policy: policy::Policy {}

/// The coroutine computes in its resumer's environment. The default; costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Shared;

/// The coroutine has an environment of its own, which is kept while it is suspended.
#[derive(Clone, Copy, Debug)]
pub struct Own(FpEnvironment);

impl Policy for Shared {}
impl Policy for Own {}

mod policy {
    /// What to do around each switch to the coroutine.
    pub trait Policy: Copy {
        /// # Safety
        ///
        /// `switch` must do nothing but that: it must not compute with floats.
        unsafe fn around<T>(&mut self, switch: impl FnOnce() -> T) -> T;
    }
}

impl policy::Policy for Shared {
    #[inline(always)]
    unsafe fn around<T>(&mut self, switch: impl FnOnce() -> T) -> T {
        switch()
    }
}

impl policy::Policy for Own {
    /// Never inlined, so that no floating-point operation of the resumer's can be moved to where the environment is the
    /// coroutine's: to the compiler it depends on nothing there.
    ///
    /// A panic does not cross a switch: there is one way out.
    #[inline(never)]
    unsafe fn around<T>(&mut self, switch: impl FnOnce() -> T) -> T {
        // SAFETY: nothing computes between the two loads but the coroutine, in its own environment.
        unsafe {
            let threads = FpEnvironment::current();
            self.0.load(threads);
            let back = switch();
            self.0 = FpEnvironment::current();
            threads.load(self.0);
            back
        }
    }
}

impl Own {
    /// Begins as the environment of the running code.
    #[inline]
    pub(super) fn current() -> Self {
        Self(FpEnvironment::current())
    }
}

/// As [`scoped`](crate::scoped()), for a coroutine with a floating-point environment of its own.
///
/// It begins as the environment in which this function is called, and is the coroutine's also while it is unwound at the
/// end of its scope. A resume costs what
/// [`with_own_fp_environment`](crate::Coroutine::with_own_fp_environment) says.
///
/// # Errors
///
/// # Panics
///
/// # Aborts
///
/// As [`scoped`](crate::scoped()).
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::{Yielder, fp, stack::Mapped};
///
/// let halves = [1.0, 3.0];
/// let stack = Mapped::new(64 * 1024)?;
/// let body = |yielder: &Yielder<(), f64>, ()| {
///     for half in &halves {
///         // Here a C library may set a rounding mode and call back.
///         yielder.suspend(half / 2.0);
///     }
/// };
/// let sum: f64 = fp::scoped(stack, body, |coroutine| coroutine.sum())?;
/// assert_eq!(sum, 2.0);
/// # Ok(())
/// # }
/// ```
pub fn scoped<Input, Yield, Return, S, F, T>(
    stack: S,
    body: F,
    lend_to: impl for<'scope> FnOnce(Scoped<'scope, Input, Yield, Return, S, Own>) -> T,
) -> Result<T, Error>
where
    S: Stack,
    F: FnOnce(&Yielder<Input, Yield>, Input) -> Return,
{
    // SAFETY: what `body` borrows outlives this call, and `lend` does not return before the coroutine has finished.
    unsafe {
        let raw = Raw::with_stack(stack, body)?;
        Ok(lend(raw.with_policy(Own::current()), lend_to))
    }
}
