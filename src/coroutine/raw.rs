//! A coroutine and its stack, without what the types of its owners promise: that it does not outlive what it borrows.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::unwind::{self, RESUMER_IS_PANICKING, panicking};
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
    pub(super) fn into_stack(self) -> Option<S> {
        let mut this = ManuallyDrop::new(self);
        let guard = GiveBack(&mut this);
        guard.0.end();
        core::mem::forget(guard);
        // SAFETY: `this` is not dropped, so the stack is not used again; and nobody is on it any more.
        this.is_finished().then(|| unsafe { ManuallyDrop::take(&mut this.stack) })
    }

    /// Drops the function if it never ran, unwinds it if it is suspended. It may be suspended afterwards, also when
    /// this panics: see [`unwind::unwind`].
    pub(super) fn end(&mut self) {
        let Some(context) = self.context else { return };
        // SAFETY: the context is suspended, on our stack, on this thread.
        unsafe {
            if arch::is_unstarted(context) {
                // Whatever the drop does, it is not to be done again.
                self.context = None;
                entry::drop_unstarted(context);
            } else if let Some(panic) = unwind::unwind::<Yield, Return>(&mut self.context) {
                unwind::resume_panic(panic);
            }
        }
    }
}

impl<Input, Yield, Return, S: Stack> Drop for Raw<Input, Yield, Return, S> {
    #[inline]
    fn drop(&mut self) {
        GiveBack(self).0.end();
    }
}

/// Gives the stack back when dropped, if nobody is on it any more (invariant 1); also when the ending panicked.
struct GiveBack<'a, Input, Yield, Return, S: Stack>(&'a mut Raw<Input, Yield, Return, S>);

impl<Input, Yield, Return, S: Stack> Drop for GiveBack<'_, Input, Yield, Return, S> {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_finished() {
            // SAFETY: this guard is made once for a coroutine, which is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.0.stack) }
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
