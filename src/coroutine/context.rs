//! Contexts: the switch as a scheduler wants it, from one straight to another. Low-level and `unsafe`.
//!
//! A thread [enters](Context::enter) a context and is then its *root*. The context runs until it
//! [leaves](Running::leave) to the root or [switches](Running::switch_to) to another context, which then has the same
//! root: whoever leaves first returns from the root's `enter`. So a scheduler whose tasks park by switching to the next
//! ready one pays one switch for it, where suspending to a loop that resumes the next pays two.
//!
//! Nothing is caught and nothing is unwound here: [`Coroutine`](super::Coroutine) does that, on the same switch.
//!
//! ```
//! use std::ptr;
//! use switchback::context::{Context, Left, Running};
//! use switchback::stack::Mapped;
//!
//! struct Pair { first: Context, second: Context, log: Vec<&'static str> }
//!
//! unsafe extern "C" fn first(pair: *mut (), running: Running) -> *mut () {
//!     // SAFETY: `main` passes its pair, and only one of the two contexts runs at a time.
//!     unsafe {
//!         let pair = pair.cast::<Pair>();
//!         (*pair).log.push("first");
//!         running.switch_to((*pair).second, pair.cast());
//!         (*pair).log.push("first again");
//!     }
//!     ptr::null_mut()
//! }
//! unsafe extern "C" fn second(pair: *mut (), running: Running) -> *mut () {
//!     // SAFETY: as in `first`.
//!     unsafe {
//!         let pair = pair.cast::<Pair>();
//!         (*pair).log.push("second");
//!         running.switch_to((*pair).first, pair.cast());
//!     }
//!     ptr::null_mut()
//! }
//!
//! # fn main() -> Result<(), switchback::stack::Error> {
//! let stacks = [Mapped::new(65536)?, Mapped::new(65536)?];
//! // SAFETY: the stacks and the pair outlive the contexts, and all stay on this thread.
//! let log = unsafe {
//!     let [first, second] = [Context::new(&stacks[0], first)?, Context::new(&stacks[1], second)?];
//!     let mut pair = Pair { first, second, log: Vec::new() };
//!     let left = first.enter((&raw mut pair).cast());
//!     assert!(matches!(left, Left::Ended(_)));
//!     // The other one must end too before its stack may go.
//!     assert!(matches!(second.enter((&raw mut pair).cast()), Left::Ended(_)));
//!     pair.log
//! };
//! assert_eq!(log, ["first", "second", "first again"]);
//! # Ok(())
//! # }
//! ```

use core::fmt;
use core::ptr::NonNull;

use super::entry;
use crate::arch::{Link, Word};
use crate::stack::{Error, Stack};
use crate::switch;

/// A context: something that runs on a stack of its own, or is suspended there. The handle is the same from its creation
/// to its end, and one word.
///
/// It owns nothing: not the stack, and what lives there is not dropped with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Context(NonNull<Link>);

/// The function a context runs, with the first word it was entered with. What it returns goes to the root.
///
/// A panic that leaves it aborts, as it has the C ABI.
pub type Entry = unsafe extern "C" fn(word: *mut (), running: Running) -> *mut ();

/// How a context came back to its root.
#[derive(Debug)]
pub enum Left {
    /// One of the contexts that have this root left with this word; it can be continued.
    Suspended(Context, *mut ()),
    /// The function of one of them returned this word.
    Ended(*mut ()),
}

/// The running context, to itself: how it goes elsewhere. It stays on its thread.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Running(NonNull<Link>);

impl Context {
    /// A context that will run `entry` on `stack`. No allocation, no system call.
    ///
    /// # Errors
    ///
    /// If the stack is too small for anything, or the thread has a shadow stack.
    ///
    /// # Safety
    ///
    /// The stack must stay where it is and be used by nobody else until `entry` has returned. If it never does: until the
    /// context is suspended, is not continued any more, and nobody uses what lies on its stack or what the calls that have
    /// begun there have borrowed.
    pub unsafe fn new(stack: &impl Stack, entry: Entry) -> Result<Context, Error> {
        let top = entry::place(stack, 0, 1, 0)?;
        // SAFETY: `place` found room for the link, and by the caller's promise it is ours; its address is not null.
        unsafe {
            let link = switch::prepare(stack, top, start, entry as *mut ());
            Ok(Context(NonNull::new_unchecked(link.cast_mut())))
        }
    }

    /// Continues the context, with the caller as its root, until it or one it switches to leaves or ends.
    ///
    /// Costs one switch there and one back; no allocation, no system call.
    ///
    /// # Safety
    ///
    /// It must be suspended or never have run, not have ended; it must be continued on the thread on which it ran before,
    /// while its stack is mapped, and `word` must be what it expects. So must be whatever it switches to.
    #[inline(always)]
    pub unsafe fn enter(self, word: *mut ()) -> Left {
        debug_assert!(self.is_suspended(), "entered a context that is not suspended");
        // SAFETY: the caller's promise. Whoever comes back sends an initialised word: see `leave`, `start`.
        unsafe {
            let back = switch::resume(self.0.as_ptr(), self.0.as_ref().stack_pointer.get(), Word::new(word));
            let word = back.word.assume_init();
            match NonNull::new(back.link.cast_mut()) {
                Some(link) => {
                    link.as_ref().stack_pointer.set(back.stack_pointer);
                    Left::Suspended(Context(link), word)
                }
                None => Left::Ended(word),
            }
        }
    }

    fn is_suspended(self) -> bool {
        // SAFETY: whoever asks vouches for a context that has not ended: its link lies still on its stack.
        unsafe { self.0.as_ref() }.is_suspended()
    }
}

impl Running {
    /// The running context's own handle, for whoever is to continue it once it is suspended.
    #[inline(always)]
    pub fn context(self) -> Context {
        Context(self.0)
    }

    /// Suspends the running context and continues `next` with `word`, under the same root; returns when somebody
    /// continues this one, with their word.
    ///
    /// One switch; no allocation, no system call.
    ///
    /// # Safety
    ///
    /// `self` must be the running context's own. `next` must fulfil what [`Context::enter`] asks for. The thread must not be
    /// panicking, or whoever runs next is taken for panicking.
    #[inline(always)]
    pub unsafe fn switch_to(self, next: Context, word: *mut ()) -> *mut () {
        debug_assert!(next.is_suspended(), "switched to a context that is not suspended");
        // SAFETY: the caller's promise. Whoever continues a context sends an initialised word.
        unsafe { switch::transfer(next.0.as_ptr(), self.0.as_ptr(), Word::new(word)).assume_init() }
    }

    /// Suspends the running context: the root's [`enter`](Context::enter) returns with it and `word`. Returns when
    /// somebody continues this one, with their word. One switch; no allocation, no system call.
    ///
    /// # Safety
    ///
    /// `self` must be the running context's own. The thread must not be panicking, as for [`switch_to`](Self::switch_to).
    #[inline(always)]
    pub unsafe fn leave(self, word: *mut ()) -> *mut () {
        // SAFETY: as in `switch_to`. Nobody tells a context to unwind.
        unsafe { switch::suspend(self.0.as_ptr(), Word::new(word)).unwrap_unchecked().assume_init() }
    }
}

/// What the trampoline calls.
///
/// # Safety
///
/// Called once with the link that [`Context::new`] made.
unsafe extern "C" fn start(word: Word, link: *const Link) -> Word {
    // SAFETY: the link's word is the entry function, and the link lies still on the context's stack.
    unsafe {
        switch::begin();
        let entry = core::mem::transmute::<*mut (), Entry>((*link).data);
        Word::new(entry(word.assume_init(), Running(NonNull::new_unchecked(link.cast_mut()))))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.0).finish()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}
