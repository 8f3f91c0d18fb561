//! The coroutine's side: how it suspends.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::unwind::{self, panicking};
use super::value;
use crate::arch::Link;
use crate::switch;

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
    /// If the thread is panicking (asked with the `std` feature only): when a destructor calls it during unwinding, or when a destructor resumed the
    /// coroutine then. What runs next on this thread would be taken for panicking too, or a panic of this coroutine
    /// would be counted for ever (invariant 5). A panic that leaves a destructor during unwinding aborts the process, as
    /// Rust has it.
    #[inline]
    pub fn suspend(&self, value: Yield) -> Input {
        if panicking() {
            suspended_while_panicking();
        }
        let value = ManuallyDrop::new(value);
        // SAFETY: it is the link of a coroutine that runs, perhaps beneath others that it resumed: a yielder is not `Send`, and
        // lives no longer than its coroutine's function. The resumer expects an encoded `Yield`, which stays in place while we are suspended.
        match unsafe { switch::suspend(&self.link, value::encode(&value)) } {
            // SAFETY: a resume brings an encoded `Input`, which stays in place while we run.
            Some(word) => unsafe { value::decode(word) },
            None => unwind::throw(),
        }
    }
}

#[cold]
#[inline(never)]
fn suspended_while_panicking() -> ! {
    panic!("suspended a coroutine while its thread is panicking")
}

impl<Input, Yield> fmt::Debug for Yielder<Input, Yield> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Yielder")
    }
}
