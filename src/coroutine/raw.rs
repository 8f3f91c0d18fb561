//! A coroutine and its stack, without what the types of its owners promise: that it does not outlive what it borrows.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::unwind::{self, Panic, RESUMER_IS_PANICKING, panicking};
use super::{Resumed, Yielder, entry, value};
use crate::arch::{self, StackPointer};
use crate::stack::{Error, Stack};

/// See the module. Dropping one ends it; where that cannot be done, its stack is leaked.
pub(super) struct Raw<Input, Yield, Return, S: Stack> {
    /// None once it has finished.
    context: Option<StackPointer>,
    stack: ManuallyDrop<S>,
    /// Neither Send nor Sync; takes inputs, gives yields and a return value.
    #[expect(clippy::type_complexity, reason = "it is read by the compiler only")]
    types: PhantomData<(*mut (), fn(Input) -> (Yield, Return))>,
}

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
        Ok(Self { context: Some(context), stack: ManuallyDrop::new(stack), types: PhantomData })
    }

    #[inline]
    pub(super) fn resume(&mut self, input: Input) -> Resumed<Yield, Return> {
        let Some(context) = self.context else { resumed_after_end() };
        let input = ManuallyDrop::new(input);
        let signal = if panicking() { RESUMER_IS_PANICKING } else { 0 };
        // SAFETY: the context is suspended since it is ours and we are not inside (`&mut self`); its stack is ours; it
        // is on this thread since `Self` is not `Send` (invariant 2). It expects an encoded `Input`, which stays in
        // place until we are back.
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

    #[inline]
    pub(super) fn is_finished(&self) -> bool {
        self.context.is_none()
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
    /// If it is not finished afterwards, it cannot be ended.
    #[inline]
    pub(super) fn end(&mut self) -> Option<Panic> {
        let context = self.context?;
        // By value, so that a coroutine that has ended can live in registers.
        // SAFETY: the context is suspended, on our stack, on this thread, with our types.
        let (context, panic) = unsafe { unwind::end::<Yield, Return>(context) };
        self.context = context;
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
fn resumed_after_end() -> ! {
    panic!("resumed a coroutine that has finished")
}
