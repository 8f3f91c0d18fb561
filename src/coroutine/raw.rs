//! A coroutine and its stack, without what the types of its owners promise: that it does not outlive what it borrows.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::fp::{Policy, Shared};
use super::unwind::{self, Panic};
use super::{Resumed, Yielder, entry, value};
use crate::arch::Link;
use crate::stack::{Error, Stack};
use crate::switch;

/// See the module. Dropping one ends it; where that cannot be done, its stack is leaked.
pub(super) struct Raw<Input, Yield, Return, S: Stack, P: Policy = Shared> {
    /// On the stack, which is ours.
    link: *const Link,
    /// Its stack pointer while it is suspended. Here, not in the link, so that the processor can fetch link and stack at
    /// once.
    stack_pointer: usize,
    stack: ManuallyDrop<S>,
    /// Whose floating-point environment it runs in.
    policy: P,
    /// Takes inputs, gives yields and a return value.
    types: PhantomData<fn(Input) -> (Yield, Return)>,
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
        let link = entry::prepare::<Input, Yield, Return, F>(&stack, f)?;
        let stack = ManuallyDrop::new(stack);
        Ok(Self { link, stack_pointer: link.addr(), stack, policy: Shared, types: PhantomData })
    }
}

impl<Input, Yield, Return, S: Stack, P: Policy> Raw<Input, Yield, Return, S, P> {
    /// The same coroutine under another policy.
    #[inline]
    pub(super) fn with_policy<Q: Policy>(self, policy: Q) -> Raw<Input, Yield, Return, S, Q> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used again nor dropped.
        let stack = ManuallyDrop::new(unsafe { ManuallyDrop::take(&mut this.stack) });
        Raw { link: this.link, stack_pointer: this.stack_pointer, stack, policy, types: PhantomData }
    }

    /// A coroutine that runs is met here as well, though it is borrowed meanwhile: by the destructor of a thread-local,
    /// when the coroutine calls `process::exit`.
    #[inline]
    pub(super) fn resume(&mut self, input: Input) -> Resumed<Yield, Return> {
        if !self.link().is_suspended() {
            refuse(self.is_finished());
        }
        let input = ManuallyDrop::new(input);
        let (link, stack_pointer, word) = (self.link, self.stack_pointer, value::encode(&input));
        // SAFETY: the context is suspended, and ours alone; its stack is ours; it is on this thread since `Self` is not
        // `Send` (invariant 2). It expects an encoded `Input`, which stays in place until we are back.
        let back = unsafe { self.policy.around(|| switch::resume(link, stack_pointer, word)) };
        if !back.link.is_null() {
            self.stack_pointer = back.stack_pointer;
            // SAFETY: `suspend` sends an encoded `Yield`, which stays in place while suspended.
            return Resumed::Yielded(unsafe { value::decode(back.word) });
        }
        self.link().set_ended();
        // SAFETY: the entry function's last word tells where the result is; its stack is still ours.
        match unsafe { entry::take_result(back.word) } {
            Ok(value) => Resumed::Returned(value),
            Err(panic) => unwind::resume_panic(panic),
        }
    }

    #[inline]
    pub(super) fn is_finished(&self) -> bool {
        self.link().is_ended()
    }

    #[inline(always)]
    fn link(&self) -> &Link {
        // SAFETY: it lies still on our stack; what changes in it are cells.
        unsafe { &*self.link }
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
    /// If it is not finished afterwards, it runs or cannot be ended. Does not panic.
    #[inline]
    pub(super) fn end(&mut self) -> Option<Panic> {
        if !self.link().is_suspended() {
            return None;
        }
        // SAFETY: the context is suspended, on our stack, on this thread, with our types.
        unsafe { unwind::end::<Yield, Return>(self.link, self.stack_pointer, self.policy) }
    }
}

impl<Input, Yield, Return, S: Stack, P: Policy> Drop for Raw<Input, Yield, Return, S, P> {
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

impl<Input, Yield, Return, S: Stack, P: Policy> fmt::Debug for Raw<Input, Yield, Return, S, P> {
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
