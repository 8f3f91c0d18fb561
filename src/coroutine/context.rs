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
//! struct Pair { first: Option<Context>, second: Option<Context>, log: Vec<&'static str> }
//!
//! unsafe extern "C" fn first(pair: *mut (), running: &Running) -> *mut () {
//!     // SAFETY: `main` passes its pair, and only one of the two contexts runs at a time.
//!     unsafe {
//!         let pair = pair.cast::<Pair>();
//!         (*pair).log.push("first");
//!         let second = (*pair).second.take().unwrap();
//!         running.switch_to(second, &raw mut (*pair).first, pair.cast());
//!         (*pair).log.push("first again");
//!     }
//!     ptr::null_mut()
//! }
//! unsafe extern "C" fn second(pair: *mut (), running: &Running) -> *mut () {
//!     // SAFETY: as in `first`.
//!     unsafe {
//!         let pair = pair.cast::<Pair>();
//!         (*pair).log.push("second");
//!         let first = (*pair).first.take().unwrap();
//!         running.switch_to(first, &raw mut (*pair).second, pair.cast());
//!     }
//!     ptr::null_mut()
//! }
//!
//! # fn main() -> Result<(), switchback::stack::Error> {
//! let stacks = [Mapped::new(65536)?, Mapped::new(65536)?];
//! let mut pair = Pair { first: None, second: None, log: Vec::new() };
//! // SAFETY: the stacks and the pair outlive the contexts, and all stay on this thread.
//! unsafe {
//!     pair.second = Some(Context::new(&stacks[1], second)?);
//!     let left = Context::new(&stacks[0], first)?.enter((&raw mut pair).cast());
//!     assert!(matches!(left, Left::Ended(_)));
//! }
//! assert_eq!(pair.log, ["first", "second", "first again"]);
//! # Ok(())
//! # }
//! ```

use core::fmt;

use crate::arch::{self, Link, Signal, StackPointer, Word};
use crate::stack::{ALIGNMENT, Error, LEAST_FREE, Stack};

/// A suspended context: the right to continue it once.
///
/// Dropping one forgets it: what lives on its stack is not dropped. It does not own the stack.
#[repr(transparent)]
pub struct Context(StackPointer);

/// The function a context runs, with the first word it was entered with. What it returns goes to the root.
///
/// A panic that leaves it aborts, as it has the C ABI.
pub type Entry = unsafe extern "C" fn(word: *mut (), running: &Running) -> *mut ();

/// How a context came back to its root.
#[derive(Debug)]
pub enum Left {
    /// One of the contexts that have this root left with this word; it can be continued.
    Suspended(Context, *mut ()),
    /// The function of one of them returned this word.
    Ended(*mut ()),
}

/// The running context, to itself: how it goes elsewhere. It stays on its thread.
#[repr(transparent)]
pub struct Running(Link);

impl Context {
    /// A context that will run `entry` on `stack`. No allocation, no system call.
    ///
    /// # Errors
    ///
    /// If the stack is too small for anything.
    ///
    /// # Safety
    ///
    /// The stack must stay where it is and be used by nobody else until `entry` has returned, or for ever if it never
    /// does.
    pub unsafe fn new(stack: &impl Stack, entry: Entry) -> Result<Context, Error> {
        let size = stack.top().addr().get().saturating_sub(stack.limit().addr().get());
        let needed = 4 * size_of::<usize>() + LEAST_FREE;
        if size < needed {
            return Err(Error::too_small(size, needed));
        }
        const { assert!(ALIGNMENT.is_multiple_of(arch::STACK_ALIGNMENT)) }
        // SAFETY: by the contract of `Stack`, and the caller's promise, the words below the aligned top are ours.
        Ok(Context(unsafe { arch::prepare(stack.top().as_ptr(), start, entry as *mut ()) }))
    }

    /// Continues the context, with the caller as its root, until it or one it switches to leaves or ends.
    ///
    /// Costs one switch there and one back.
    ///
    /// # Safety
    ///
    /// It must be continued on the thread on which it ran before, while its stack is mapped, and `word` must be what it
    /// expects. So must be whatever it switches to.
    #[inline(always)]
    pub unsafe fn enter(self, word: *mut ()) -> Left {
        // SAFETY: a `Context` is suspended; the caller vouches for the rest.
        let (word, context) = unsafe { arch::resume(self.0, Word::new(word), 0) };
        // SAFETY: whoever comes back sends an initialised word: see `leave`, `start`.
        let word = unsafe { word.assume_init() };
        match context {
            Some(context) => Left::Suspended(Context(context), word),
            None => Left::Ended(word),
        }
    }
}

impl Running {
    /// Suspends the running context and continues `next` with `word`, under the same root; returns when somebody
    /// continues this one, with their word.
    ///
    /// `place` receives the suspended context before `next` runs. One switch; no allocation, no system call.
    ///
    /// # Safety
    ///
    /// `self` must be the running context's own. `next` must fulfil what [`Context::enter`] asks for. `place` must be
    /// valid for writes, and hold nothing that needs dropping.
    #[inline(always)]
    pub unsafe fn switch_to(&self, next: Context, place: *mut Option<Context>, word: *mut ()) -> *mut () {
        // SAFETY: our parent is the root, as noted by the trampoline and below. `Option<Context>` has the layout of its
        // only word, whose niche is zero.
        unsafe {
            let (word, _, root) = arch::transfer(next.0, self.0.parent.get(), place.cast(), Word::new(word));
            self.0.parent.set(root);
            // Whoever continues a context sends an initialised word.
            word.assume_init()
        }
    }

    /// Suspends the running context: the root's [`enter`](Context::enter) returns with it and `word`. Returns when
    /// somebody continues this one, with their word. One switch; no allocation, no system call.
    ///
    /// # Safety
    ///
    /// `self` must be the running context's own.
    #[inline(always)]
    pub unsafe fn leave(&self, word: *mut ()) -> *mut () {
        // SAFETY: as in `switch_to`.
        unsafe {
            let (word, _, root) = arch::suspend(self.0.parent.get(), Word::new(word));
            self.0.parent.set(root);
            word.assume_init()
        }
    }
}

const _: () = assert!(size_of::<Option<Context>>() == size_of::<usize>());

/// What the trampoline calls.
///
/// # Safety
///
/// Called once with the link that [`Context::new`] made.
unsafe extern "C" fn start(word: Word, _: Signal, _: usize, link: *const Link) -> Word {
    // SAFETY: the link's word is the entry function, and the link lies still on the context's stack.
    unsafe {
        let entry = core::mem::transmute::<*mut (), Entry>((*link).data);
        Word::new(entry(word.assume_init(), &*link.cast::<Running>()))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({:#x})", self.0.0)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}
