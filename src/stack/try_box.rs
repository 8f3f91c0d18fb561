//! A box whose making can fail: where memory has run out, `Box::new` ends the process.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc};

/// Puts a value into a box; nothing if there is no memory for one.
pub(super) fn try_box<T>(value: T) -> Option<Box<T>> {
    const { assert!(size_of::<T>() > 0, "nothing is allocated for it") };
    // SAFETY: not of size zero.
    let place = NonNull::new(unsafe { alloc(Layout::new::<T>()) })?.cast::<T>();
    // SAFETY: it was allocated for a value of this type, as a box would have done it.
    unsafe {
        place.write(value);
        Some(Box::from_raw(place.as_ptr()))
    }
}
