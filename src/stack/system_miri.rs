//! The border to the operating system under Miri, which knows no protection of pages: memory comes from the allocator.
//! Nothing enforces a guard, and nothing runs on a stack there (see `arch::threads`). The same items as in `system.rs`.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};

use super::Error;

/// Bytes of a page, as Miri says.
pub(super) fn page_size() -> usize {
    4096
}

/// More than this is refused: Miri ends where memory runs out.
const LARGEST: usize = 1 << 30;

/// Allocates what is address space elsewhere: all of it costs memory of the interpreter's.
pub(super) fn reserve(size: usize) -> Result<NonNull<u8>, Error> {
    let refused = Error::refused("Miri", libc::ENOMEM, size);
    let layout = layout(size).filter(|layout| layout.size() <= LARGEST).ok_or(refused)?;
    // SAFETY: a stack and its guard are not empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(refused)
}

/// It is all usable, and zero like new pages.
pub(super) fn commit(_: NonNull<u8>, _: usize) -> Result<(), Error> {
    Ok(())
}

/// Gives a reservation back.
///
/// # Safety
///
/// It must come from [`reserve`] with the same size, and nobody may use it any more.
pub(super) unsafe fn release(base: NonNull<u8>, size: usize) {
    if let Some(layout) = layout(size) {
        // SAFETY: the caller's promise.
        unsafe { dealloc(base.as_ptr(), layout) };
    }
}

/// Miri does not say.
pub(super) fn thread_stack() -> Option<core::ops::Range<usize>> {
    None
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, page_size()).ok()
}
