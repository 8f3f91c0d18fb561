//! The switch, announced to a sanitizer.
//!
//! A switch is announced by the context that comes back, not by the one that goes: it knows who it is, whereas a suspended
//! context is but an address to others. So no table of contexts is kept, and one that is forgotten leaves nothing behind.
//! In between, while the sanitizer takes one stack for the other, nothing runs but the few instructions of the switch.

use core::ptr;

use super::sanitizer::{self, Here};
use crate::arch::{self, Back, Entry, Link, Word};
use crate::stack::Stack;

pub use sanitizer::begin;

/// As [`arch::resume`].
///
/// # Safety
///
/// The same.
#[inline(always)]
pub unsafe fn resume(target: *const Link, stack_pointer: usize, word: Word) -> Back {
    // SAFETY: the caller's promise; we are back after the switch.
    unsafe {
        let here = Here::leave(stack_of(target));
        let back = arch::resume(target, stack_pointer, word);
        here.back(back.link.is_null());
        back
    }
}

/// As [`arch::resume_to_unwind`].
///
/// # Safety
///
/// The same.
#[cfg(feature = "std")]
#[inline(always)]
pub unsafe fn resume_to_unwind(target: *const Link, stack_pointer: usize) -> Back {
    // SAFETY: as in `resume`; it has begun.
    unsafe {
        let here = Here::leave(UNKNOWN);
        let back = arch::resume_to_unwind(target, stack_pointer);
        here.back(back.link.is_null());
        back
    }
}

/// As [`arch::suspend`].
///
/// # Safety
///
/// The same.
#[inline(always)]
pub unsafe fn suspend(link: *const Link, word: Word) -> Option<Word> {
    // SAFETY: as in `resume`.
    unsafe {
        let here = Here::leave(UNKNOWN);
        let answer = arch::suspend(link, word);
        here.back(false);
        answer
    }
}

/// As [`arch::transfer`].
///
/// # Safety
///
/// The same.
#[inline(always)]
pub unsafe fn transfer(target: *const Link, link: *const Link, word: Word) -> Word {
    // SAFETY: as in `resume`.
    unsafe {
        let here = Here::leave(stack_of(target));
        let answer = arch::transfer(target, link, word);
        here.back(false);
        answer
    }
}

/// Lays out a new context on `stack`, from `top` down.
///
/// # Safety
///
/// As for [`arch::prepare`], with two words more. The entry function must call [`begin`] before anything else.
pub unsafe fn prepare(stack: &impl Stack, top: *mut u8, entry: Entry, data: *mut ()) -> *const Link {
    // SAFETY: the caller's promise.
    unsafe {
        let link = arch::prepare(top, entry, data);
        note_below(link).write(memory(stack));
        link
    }
}

/// Calls `function(data)` on `stack`, from `top` down, and returns when it does.
///
/// # Safety
///
/// As for [`arch::call_on`].
pub unsafe fn call_on(stack: &impl Stack, data: *mut (), function: unsafe extern "C" fn(*mut ()), top: *mut u8) {
    struct Call {
        data: *mut (),
        function: unsafe extern "C" fn(*mut ()),
    }
    unsafe extern "C" fn run(call: *mut ()) {
        // SAFETY: it is the call below, and this is the first code on the stack.
        unsafe {
            sanitizer::begin_call();
            let Call { data, function } = call.cast::<Call>().read();
            function(data);
        }
    }

    let mut call = Call { data, function };
    // SAFETY: as in `resume`; `run` adds nothing that unwinds.
    unsafe {
        let here = Here::leave(memory(stack));
        arch::call_on((&raw mut call).cast(), run, top);
        here.back(true);
    }
}

/// Stands for the stack of a context that has begun, which will say itself where it is.
const UNKNOWN: *const [u8] = ptr::slice_from_raw_parts(ptr::null(), 0);

fn memory(stack: &impl Stack) -> *const [u8] {
    let (limit, top) = (stack.limit(), stack.top());
    ptr::slice_from_raw_parts(limit.as_ptr(), top.addr().get() - limit.addr().get())
}

/// The stack of a suspended context, if it has not begun.
///
/// # Safety
///
/// The context must be suspended, and come from [`prepare`].
#[inline(always)]
unsafe fn stack_of(context: *const Link) -> *const [u8] {
    // SAFETY: the caller's promise; the stack below an unstarted context is unused but for the note.
    unsafe { if (*context).is_unstarted() { note_below(context).read() } else { UNKNOWN } }
}

/// Where [`prepare`] notes which stack a context has: it lasts until the context begins.
fn note_below(context: *const Link) -> *mut *const [u8] {
    ptr::with_exposed_provenance_mut::<*const [u8]>(context.addr()).wrapping_sub(1)
}
