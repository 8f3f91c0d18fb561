//! Floor 3: the switch made safe.
//!
//! What a new coroutine's stack holds, from the top down (`entry::Start` and `arch`'s initial frame):
//!
//! ```text
//!   top    +------------------------------+
//!          | Start: the function to run;  |  later its result
//!          |        how to drop it        |
//!          +------------------------------+
//!          | Link: parent, data = &Start  |  what a `Yielder` points at
//!          +------------------------------+
//!          | entry, trampoline            |  overwritten once it runs
//!   sp --> +------------------------------+
//!          | free                         |
//!   limit  +------------------------------+
//! ```
//!
//! No allocation is made for a coroutine besides its stack.

mod entry;
mod on_stack;
mod unwind;
mod value;
mod yielder;

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

pub use on_stack::on_stack;
pub use yielder::Yielder;

use crate::arch::{self, StackPointer};
#[cfg(feature = "std")]
use crate::stack::{DEFAULT_RESERVE, Mapped};
use crate::stack::{Error, Stack};
use unwind::{RESUMER_IS_PANICKING, panicking};

/// What [`Coroutine::resume`] came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resumed<Yield, Return> {
    /// The coroutine suspended with this value; it can be resumed again.
    Yielded(Yield),
    /// The coroutine's function returned this value; it is finished.
    Returned(Return),
}

#[cfg(feature = "std")]
type DefaultStack = Mapped;
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
/// the most; then the stack is leaked, because nobody can tell who still points into it. A coroutine that panics with
/// something else while it is unwound passes that panic to whoever drops it, or loses it if that one is panicking.
///
/// Where panics abort (`panic = "abort"`, or without the `std` feature) there is no unwinding: the stack of a suspended
/// coroutine is leaked, with everything on it.
pub struct Coroutine<Input: 'static, Yield: 'static, Return: 'static, S: Stack = DefaultStack> {
    /// None once it has finished.
    context: Option<StackPointer>,
    stack: ManuallyDrop<S>,
    /// Neither Send nor Sync; takes inputs, gives yields and a return value.
    #[expect(clippy::type_complexity, reason = "it is read by the compiler only")]
    types: PhantomData<(*mut (), fn(Input) -> (Yield, Return))>,
}

#[cfg(feature = "std")]
impl<Input: 'static, Yield: 'static, Return: 'static> Coroutine<Input, Yield, Return> {
    /// A coroutine that will run `f` on a stack of [`DEFAULT_RESERVE`] bytes.
    ///
    /// The function is moved to the new stack; nothing runs yet. Costs what [`Mapped::new`] costs.
    ///
    /// # Errors
    ///
    /// If no stack can be had, or the function's captures do not fit on it.
    pub fn new<F>(f: F) -> Result<Self, Error>
    where
        F: FnOnce(&Yielder<Input, Yield>, Input) -> Return + 'static,
    {
        Self::with_stack(Mapped::new(DEFAULT_RESERVE)?, f)
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static, S: Stack> Coroutine<Input, Yield, Return, S> {
    /// A coroutine that will run `f` on the given stack.
    ///
    /// The function is moved to the stack; nothing runs yet. No allocation, no system call.
    ///
    /// # Errors
    ///
    /// If the function's captures and the first frames do not fit; function and stack are dropped.
    pub fn with_stack<F>(stack: S, f: F) -> Result<Self, Error>
    where
        F: FnOnce(&Yielder<Input, Yield>, Input) -> Return + 'static,
    {
        let context = entry::prepare::<Input, Yield, Return, F>(&stack, f)?;
        Ok(Self { context: Some(context), stack: ManuallyDrop::new(stack), types: PhantomData })
    }

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
        let Some(context) = self.context else { resumed_after_end() };
        let input = ManuallyDrop::new(input);
        let signal = if panicking() { RESUMER_IS_PANICKING } else { 0 };
        // SAFETY: the context is suspended since it is ours and we are not inside (`&mut self`); its stack is ours; it
        // is on this thread since `Self` is not `Send`. It expects an encoded `Input`, which stays in place until we
        // are back.
        let (word, context) = unsafe { arch::resume(context, value::encode(&input), signal) };
        self.context = context;
        if context.is_some() {
            // SAFETY: `suspend` sends an encoded `Yield`, which stays in place while suspended.
            Resumed::Yielded(unsafe { value::decode(word) })
        } else {
            // SAFETY: the entry function's last word tells where the result is; its stack is still ours.
            match unsafe { entry::take_result(word) } {
                Ok(value) => Resumed::Returned(value),
                Err(panic) => unwind::resume_panic(panic),
            }
        }
    }

    /// Whether the function has returned or panicked.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.context.is_none()
    }

    /// Takes the stack back, for another coroutine.
    ///
    /// None if the coroutine is suspended: its stack is in use, so it is dropped with the coroutine, which is unwound.
    pub fn into_stack(mut self) -> Option<S> {
        if let Some(context) = self.context {
            // SAFETY: the context is suspended.
            if !unsafe { arch::is_unstarted(context) } {
                return None;
            }
            self.context = None;
            // SAFETY: it never ran and will not, as its context is gone.
            unsafe { entry::drop_unstarted(context) }
        }
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the stack is not used again.
        Some(unsafe { ManuallyDrop::take(&mut this.stack) })
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static, S: Stack> Drop for Coroutine<Input, Yield, Return, S> {
    fn drop(&mut self) {
        /// Gives the stack back also when a destructor panics.
        struct GiveBack<'a, S>(&'a mut ManuallyDrop<S>);
        impl<S> Drop for GiveBack<'_, S> {
            fn drop(&mut self) {
                // SAFETY: made once, in the owner's drop.
                unsafe { ManuallyDrop::drop(self.0) }
            }
        }

        let Some(context) = self.context.take() else {
            drop(GiveBack(&mut self.stack));
            return;
        };
        // SAFETY: the context is suspended, on our stack, on this thread, and not used again.
        unsafe {
            if arch::is_unstarted(context) {
                let _stack = GiveBack(&mut self.stack);
                entry::drop_unstarted(context);
                return;
            }
            // Invariant 1: only a stack that is known to be over is given back, so not if this panics.
            match unwind::unwind::<Yield, Return>(context) {
                unwind::End::Finished => drop(GiveBack(&mut self.stack)),
                unwind::End::Panicked(panic) => {
                    drop(GiveBack(&mut self.stack));
                    unwind::resume_panic(panic)
                }
                unwind::End::StillSuspended => {}
            }
        }
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static, S: Stack> fmt::Debug for Coroutine<Input, Yield, Return, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coroutine")
            .field("finished", &self.is_finished())
            .field("stack_limit", &self.stack.limit())
            .field("stack_top", &self.stack.top())
            .finish()
    }
}

#[cold]
#[inline(never)]
fn resumed_after_end() -> ! {
    panic!("resumed a coroutine that has finished")
}
