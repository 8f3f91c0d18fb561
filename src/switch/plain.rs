//! No sanitizer: nobody is told anything.

use crate::arch::{self, Entry, Link};
use crate::stack::Stack;

#[cfg(feature = "std")]
pub use crate::arch::resume_to_unwind;
pub use crate::arch::{resume, suspend, transfer};

/// Lays out a new context on `stack`, from `top` down.
///
/// # Safety
///
/// As for [`arch::prepare`]. The entry function must call [`begin`] before anything else.
#[inline(always)]
pub unsafe fn prepare(_stack: &impl Stack, top: *mut u8, entry: Entry, data: *mut ()) -> *const Link {
    // SAFETY: the caller's promise.
    unsafe { arch::prepare(top, entry, data) }
}

/// Says that a context runs for the first time.
///
/// # Safety
///
/// To be called first by an entry function, once.
#[inline(always)]
pub unsafe fn begin() {}

/// Calls `function(data)` on `stack`, from `top` down, and returns when it does.
///
/// # Safety
///
/// As for [`arch::call_on`].
#[inline(always)]
pub unsafe fn call_on(_stack: &impl Stack, data: *mut (), function: unsafe extern "C" fn(*mut ()), top: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { arch::call_on(data, function, top) }
}
