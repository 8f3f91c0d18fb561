//! ThreadSanitizer: it keeps a call stack and a clock for each context, which it calls a fiber.
//!
//! A switch orders what was done before it before what is done after it, so contexts of one thread may share data. The
//! functions here must be inlined into the one that switches: the entry and exit of a function are booked on whichever
//! fiber is current.

use core::ffi::c_void;

use crate::arch::native;

// From `sanitizer/tsan_interface.h`, and the calls that the compiler adds to each function.
unsafe extern "C" {
    fn __tsan_get_current_fiber() -> *mut c_void;
    fn __tsan_create_fiber(flags: u32) -> *mut c_void;
    fn __tsan_destroy_fiber(fiber: *mut c_void);
    fn __tsan_switch_to_fiber(fiber: *mut c_void, flags: u32);
    fn __tsan_func_entry(caller: *const c_void);
    fn __tsan_func_exit();
}

/// The flags that order the contexts.
const SYNCHRONIZE: u32 = 0;

/// The running fiber, which is about to be left.
pub(super) struct Here {
    fiber: *mut c_void,
}

impl Here {
    /// Takes note of the running fiber.
    ///
    /// # Safety
    ///
    /// To be called right before a switch after which [`back`](Self::back) is called.
    #[inline(always)]
    pub(super) unsafe fn leave(_next: *const [u8]) -> Self {
        // SAFETY: no preconditions.
        Self { fiber: unsafe { __tsan_get_current_fiber() } }
    }

    /// Announces that this fiber runs again; `ended` says whether the context that ran before is over.
    ///
    /// # Safety
    ///
    /// To be called right after the switch.
    #[inline(always)]
    pub(super) unsafe fn back(self, ended: bool) {
        // SAFETY: our fiber lives as long as our context. One that has ended is not current any more, and nobody's.
        unsafe {
            let before = __tsan_get_current_fiber();
            __tsan_switch_to_fiber(self.fiber, SYNCHRONIZE);
            // A call on another stack has no fiber of its own.
            if ended && before != self.fiber {
                __tsan_destroy_fiber(before);
            }
        }
    }
}

/// Makes a fiber for a context that runs for the first time.
///
/// # Safety
///
/// To be called first on a new stack.
#[inline(always)]
pub unsafe fn begin() {
    // SAFETY: it is destroyed when the context has ended. The function that calls this has been booked on the fiber that
    // resumed it, and will be taken off the new one.
    unsafe {
        __tsan_func_exit();
        __tsan_switch_to_fiber(__tsan_create_fiber(0), SYNCHRONIZE);
        __tsan_func_entry((native::trampoline as *const c_void).wrapping_byte_add(1));
    }
}

/// Says that a call has come to another stack: it is a call like any other.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(super) unsafe fn begin_call() {}
