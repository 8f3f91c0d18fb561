//! A coroutine and its stack, without what the types of its owners promise: that it does not outlive what it borrows.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::num::NonZeroUsize;

use super::unwind::{self, Panic};
use super::{Resumed, Yielder, entry, value};
use crate::arch::{self, StackPointer};
use crate::stack::{Error, Stack};

/// See the module. Dropping one ends it; where that cannot be done, its stack is leaked.
pub(super) struct Raw<Input, Yield, Return, S: Stack> {
    /// [`FINISHED`], [`OUT_OF_REACH`], or the stack pointer of a suspended context.
    context: usize,
    stack: ManuallyDrop<S>,
    /// Neither Send nor Sync; takes inputs, gives yields and a return value.
    #[expect(clippy::type_complexity, reason = "it is read by the compiler only")]
    types: PhantomData<(*mut (), fn(Input) -> (Yield, Return))>,
}

/// Its function is over.
const FINISHED: usize = 0;
/// It is running, or it could not be ended: its stack is in use, and nobody may continue it.
///
/// A destructor can come across a coroutine that runs: a thread-local's, when the coroutine calls `process::exit`.
const OUT_OF_REACH: usize = 1;

impl<Input, Yield, Return, S: Stack> Raw<Input, Yield, Return, S> {
    /// # Safety
    ///
    /// What `f` borrows must live until the coroutine has finished, or for ever if it never does.
    #[inline]
    pub(super) unsafe fn with_stack<F>(stack: S, f: F) -> Result<Self, Error>
    where
        F: FnOnce(&Yielder<Input, Yield>, Input) -> Return,
    {
        let context = entry::prepare::<Input, Yield, Return, F>(&stack, f)?;
        Ok(Self { context: context.0.get(), stack: ManuallyDrop::new(stack), types: PhantomData })
    }

    #[inline]
    pub(super) fn resume(&mut self, input: Input) -> Resumed<Yield, Return> {
        let Some(context) = self.take_suspended() else { refuse(self.is_finished()) };
        let input = ManuallyDrop::new(input);
        // SAFETY: the context is suspended, and ours alone; its stack is ours; it is on this thread since `Self` is not
        // `Send` (invariant 2). It expects an encoded `Input`, which stays in place until we are back.
        let (word, context) = unsafe { arch::resume(context, value::encode(&input), 0) };
        self.context = context.map_or(FINISHED, |context| context.0.get());
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

    #[inline]
    pub(super) fn is_finished(&self) -> bool {
        self.context == FINISHED
    }

    /// The context, to be continued; it is out of reach until the caller says what became of it.
    #[inline(always)]
    fn take_suspended(&mut self) -> Option<StackPointer> {
        if self.context <= OUT_OF_REACH {
            return None;
        }
        let context = self.context;
        // Volatile, or the optimiser would drop it: it knows that nobody looks while we are borrowed. A thread-local's
        // destructor does, when the coroutine ends the process.
        // SAFETY: a place of ours.
        unsafe { (&raw mut self.context).write_volatile(OUT_OF_REACH) };
        NonZeroUsize::new(context).map(StackPointer)
    }

    /// Ends it and returns its stack; None if it cannot be ended, the stack is leaked then.
    #[inline]
    pub(super) fn into_stack(self) -> Option<S> {
        let mut this = ManuallyDrop::new(self);
        let panic = this.end();
        // SAFETY: `this` is not dropped, so the stack is not used again; and nobody is on it any more (invariant 1).
        let stack = this.is_finished().then(|| unsafe { ManuallyDrop::take(&mut this.stack) });
        if let Some(panic) = panic {
            drop(stack);
            unwind::resume_panic(panic);
        }
        stack
    }

    /// Drops the function if it never ran, unwinds it if it is suspended; the panic that comes out of that is returned.
    /// If it is not finished afterwards, it cannot be ended. Does not panic.
    #[inline]
    pub(super) fn end(&mut self) -> Option<Panic> {
        let context = self.take_suspended()?;
        // By value, so that a coroutine that has ended can live in registers.
        // SAFETY: the context is suspended, on our stack, on this thread, with our types.
        let (over, panic) = unsafe { unwind::end::<Yield, Return>(context) };
        if over {
            self.context = FINISHED;
        }
        panic
    }
}

impl<Input, Yield, Return, S: Stack> Drop for Raw<Input, Yield, Return, S> {
    #[inline]
    fn drop(&mut self) {
        let panic = self.end();
        if self.is_finished() {
            // SAFETY: it is not used again, and nobody is on it any more (invariant 1).
            unsafe { ManuallyDrop::drop(&mut self.stack) }
        }
        if let Some(panic) = panic {
            unwind::resume_panic(panic);
        }
    }
}

impl<Input, Yield, Return, S: Stack> fmt::Debug for Raw<Input, Yield, Return, S> {
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
fn refuse(finished: bool) -> ! {
    match finished {
        true => panic!("resumed a coroutine that has finished"),
        false => panic!("resumed a coroutine that is running, or that could not be ended"),
    }
}
