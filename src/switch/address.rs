//! AddressSanitizer: it must know where the running stack lies, to clear its marks there when a panic abandons frames, and
//! which *fake stack* (where it puts the variables of functions, to find uses after their return) belongs to it. Its search
//! for leaks at exit knows of no stacks but those that run, so all others are registered as places where pointers may be.

use core::ffi::c_void;
use core::ptr;

// From `sanitizer/common_interface_defs.h` and `sanitizer/lsan_interface.h`.
unsafe extern "C" {
    /// Stores the fake stack of the stack that is left, or destroys it if there is no place for it.
    fn __sanitizer_start_switch_fiber(fake_stack: *mut *mut c_void, bottom: *const u8, size: usize);
    /// Takes the fake stack of the stack announced before, and answers where the one that was left lies.
    fn __sanitizer_finish_switch_fiber(fake_stack: *mut c_void, bottom: *mut *const u8, size: *mut usize);
    fn __lsan_register_root_region(start: *const u8, size: usize);
    fn __lsan_unregister_root_region(start: *const u8, size: usize);
}

/// The running stack, which is about to be left.
pub(super) struct Here {
    fake_stack: *mut c_void,
    bottom: *const u8,
    size: usize,
}

impl Here {
    /// Takes note of the running stack and announces `next`.
    ///
    /// # Safety
    ///
    /// To be called right before a switch after which [`back`](Self::back) is called.
    #[inline(always)]
    pub(super) unsafe fn leave(next: *const [u8]) -> Self {
        let mut here = Self { fake_stack: ptr::null_mut(), bottom: ptr::null(), size: 0 };
        // SAFETY: each start has its finish, with the fake stack it stored; the places live.
        unsafe {
            // Only the end of a switch tells which stack is left, so a switch to nowhere asks.
            __sanitizer_start_switch_fiber(&raw mut here.fake_stack, ptr::null(), 0);
            __sanitizer_finish_switch_fiber(here.fake_stack, &raw mut here.bottom, &raw mut here.size);
            __lsan_register_root_region(here.bottom, here.size);
            __sanitizer_start_switch_fiber(&raw mut here.fake_stack, next.cast(), next.len());
        }
        here
    }

    /// Announces that this stack runs again; `ended` says whether the context that ran before is over.
    ///
    /// # Safety
    ///
    /// To be called right after the switch.
    #[inline(always)]
    pub(super) unsafe fn back(mut self, ended: bool) {
        // SAFETY: whoever suspends has started a switch, in `leave`; whoever ends has not. The fake stack is ours.
        unsafe {
            if ended {
                __sanitizer_start_switch_fiber(ptr::null_mut(), self.bottom, self.size);
                __sanitizer_finish_switch_fiber(self.fake_stack, ptr::null_mut(), ptr::null_mut());
            } else {
                // Who left did not know where we lie: a second switch says it.
                __sanitizer_finish_switch_fiber(self.fake_stack, ptr::null_mut(), ptr::null_mut());
                __sanitizer_start_switch_fiber(&raw mut self.fake_stack, self.bottom, self.size);
                __sanitizer_finish_switch_fiber(self.fake_stack, ptr::null_mut(), ptr::null_mut());
            }
            __lsan_unregister_root_region(self.bottom, self.size);
        }
    }
}

/// Says that a context runs for the first time, on the stack that `leave` announced.
///
/// # Safety
///
/// To be called first on a new stack.
#[inline(always)]
pub unsafe fn begin() {
    // SAFETY: `leave` has started the switch; there is no fake stack yet.
    unsafe { __sanitizer_finish_switch_fiber(ptr::null_mut(), ptr::null_mut(), ptr::null_mut()) }
}

/// Says that a call has come to the stack that `leave` announced.
pub(super) use begin as begin_call;
