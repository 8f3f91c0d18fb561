//! How a value crosses a switch: in the word if it fits, else by a pointer to where it lies on the sender's stack.

use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr;

use crate::arch::Word;

/// Whether a value travels in the word itself.
const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<Word>()
}

/// The word that stands for a value. The value must stay where it is until the other side has decoded the word.
#[inline(always)]
pub(super) fn encode<T>(value: &ManuallyDrop<T>) -> Word {
    let source = ptr::from_ref(value).cast::<T>();
    if fits::<T>() {
        let mut word = Word::uninit();
        // SAFETY: the word is at least as large as the value, and both are bytes to this copy.
        unsafe { ptr::copy_nonoverlapping(source.cast::<MaybeUninit<u8>>(), word.as_mut_ptr().cast(), size_of::<T>()) };
        word
    } else {
        Word::new(source.cast_mut().cast())
    }
}

/// Takes the value a word stands for.
///
/// # Safety
///
/// The word must come from [`encode`] for the same type, be decoded once, and the value must still be in place.
#[inline(always)]
pub(super) unsafe fn decode<T>(word: Word) -> T {
    // SAFETY: the caller's promise; a value in the word is read without regard to alignment.
    unsafe {
        if fits::<T>() { word.as_ptr().cast::<T>().read_unaligned() } else { word.assume_init().cast::<T>().read() }
    }
}
