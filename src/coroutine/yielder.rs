//! The coroutine's side: how it suspends.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::unwind::{self, RESUMER_IS_PANICKING, UNWIND, panicking};
use super::value;
use crate::arch::{self, Link};

/// Handed to a coroutine's function by reference: suspends it.
///
/// It stays on the coroutine's thread (it is neither `Send` nor `Sync`).
#[repr(transparent)]
pub struct Yielder<Input, Yield> {
    link: Link,
    types: PhantomData<fn(Yield) -> Input>,
}

impl<Input, Yield> Yielder<Input, Yield> {
    /// Sees the link of a running coroutine as its yielder.
    ///
    /// # Safety
    ///
    /// The link must be the one the trampoline passed to the entry function of a coroutine with these types.
    #[inline(always)]
    pub(super) unsafe fn from_link<'a>(link: *const Link) -> &'a Self {
        // SAFETY: the same layout, and the link lies still as long as the coroutine runs (invariant 1).
        unsafe { &*link.cast() }
    }

    /// Suspends the coroutine: its [`resume`](super::Coroutine::resume) returns `value`, and the next one's input comes
    /// back from here.
    ///
    /// Costs one switch to the resumer; no allocation, no lock, no system call.
    ///
    /// # Panics
    ///
    /// With a panic of its own kind when the coroutine is dropped instead of resumed, so that its stack is unwound: do
    /// not keep a `catch_unwind` around it from passing that on.
    ///
    /// If the coroutine is panicking or being unwound, that is, when a destructor calls it during unwinding: what runs
    /// next on this thread would be taken for panicking too. Such a panic in a destructor aborts the process, as Rust
    /// has it.
    #[inline]
    pub fn suspend(&self, value: Yield) -> Input {
        if panicking() {
            self.allow_if_the_resumer_is_panicking_too();
        }
        let value = ManuallyDrop::new(value);
        // SAFETY: the parent is the last resumer, as set below and by the trampoline. It expects an encoded `Yield`,
        // which stays in place while we are suspended.
        let (word, signal, parent) = unsafe { arch::suspend(self.link.parent.get(), value::encode(&value)) };
        self.link.parent.set(parent);
        if signal != 0 {
            self.heed(signal);
        }
        // SAFETY: a resume without `UNWIND` brings an encoded `Input`, which stays in place while we run.
        unsafe { value::decode(word) }
    }

    /// Called by the entry function before anything else.
    #[inline(always)]
    pub(super) fn start(&self, signal: arch::Signal) {
        self.set_resumer_is_panicking(signal & RESUMER_IS_PANICKING != 0);
    }

    /// Takes what the resumer signalled.
    #[cold]
    fn heed(&self, signal: arch::Signal) {
        if signal & UNWIND != 0 {
            unwind::throw();
        }
        self.set_resumer_is_panicking(signal & RESUMER_IS_PANICKING != 0);
    }

    /// Suspending goes back to the code that resumed us: if that code was panicking already, all is as it was.
    #[cold]
    fn allow_if_the_resumer_is_panicking_too(&self) {
        if self.link.data.get().is_null() {
            panic!("suspended a coroutine while it is panicking");
        }
        self.set_resumer_is_panicking(false);
    }

    /// While the coroutine runs, this is what the link's word says.
    #[inline(always)]
    fn set_resumer_is_panicking(&self, panicking: bool) {
        self.link.data.set(core::ptr::without_provenance_mut(usize::from(panicking)));
    }
}

impl<Input, Yield> fmt::Debug for Yielder<Input, Yield> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Yielder")
    }
}
