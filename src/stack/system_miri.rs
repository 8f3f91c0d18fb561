//! The border to the operating system under Miri, which knows no protection of pages: memory comes from the allocator.
//! Nothing enforces a guard, and nothing runs on a stack there (see `arch::threads`). The same items as in `system.rs`.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};

use super::Error;
use super::error::Asked;

/// Bytes of a page, as Miri says.
pub(super) fn page_size() -> usize {
    4096
}

/// More than this is refused: Miri ends where memory runs out.
const LARGEST: usize = 1 << 30;

/// What may be done with reserved address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    Free,
    /// Nothing here is.
    #[expect(dead_code, reason = "the system counts nothing")]
    Counted,
}

/// What was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal;

impl Refusal {
    /// As an error for what was asked.
    pub(super) fn explain(self, asked: impl Into<Asked>) -> Error {
        Error::refused("Miri", libc::ENOMEM, asked)
    }
}

/// Allocates what is address space elsewhere: all of it costs memory of the interpreter's.
pub(super) fn reserve(size: usize) -> Result<(NonNull<u8>, Access), Refusal> {
    let layout = layout(size).filter(|layout| layout.size() <= LARGEST).ok_or(Refusal)?;
    // SAFETY: a stack and its guard are not empty.
    let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Refusal)?;
    Ok((base, Access::Free))
}

/// Gives a reservation back.
///
/// # Safety
///
/// It must come from [`reserve`] with the same size, and nobody may use it any more.
pub(super) unsafe fn release(base: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    layout(size).map(|layout| unsafe { dealloc(base.as_ptr(), layout) }).ok_or(Refusal)
}

/// Writes an error number. Miri has the system's words for few.
pub(super) fn write_reason(f: &mut core::fmt::Formatter<'_>, errno: i32) -> core::fmt::Result {
    write!(f, "os error {errno}")
}

/// As many places as one call takes.
pub(super) const PLACES: usize = 64;

/// Pages.
pub(super) type Place = (NonNull<u8>, usize);

/// Describes pages.
pub(super) fn place(start: NonNull<u8>, size: usize) -> Place {
    (start, size)
}

/// What was in the pages is lost, as elsewhere.
///
/// # Safety
///
/// They must be ours, and nobody may use them.
pub(super) unsafe fn decommit(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { start.write_bytes(0, size) };
    Ok(())
}

/// # Safety
///
/// As for [`decommit`].
pub(super) unsafe fn decommit_all(places: &[Place]) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    places.iter().try_for_each(|&(start, size)| unsafe { decommit(start, size) })
}

/// Nothing is out of reach.
pub(super) fn guards_hold() -> bool {
    false
}

/// What a page is to have in order to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    /// Anything.
    Contents,
    /// Memory.
    Memory,
}

/// Miri does not say.
pub(super) fn pages(_: With, _: core::ops::Range<usize>, _: impl FnMut(core::ops::Range<usize>)) -> Option<()> {
    None
}

/// Miri has no limit of mappings.
pub(super) fn max_map_count() -> Option<usize> {
    None
}

/// Miri does not say.
pub(super) fn thread_stack() -> Option<core::ops::Range<usize>> {
    None
}

/// Miri shows nobody.
pub(super) fn name(_: NonNull<u8>, _: usize, _: &core::ffi::CStr) {}

/// What changes nothing here.
macro_rules! nothing {
    ($($name:ident)*) => {
        $(
            /// Everything is in reach, always.
            ///
            /// # Safety
            ///
            /// None.
            pub(super) unsafe fn $name(_: NonNull<u8>, _: usize) -> Result<(), Refusal> {
                Ok(())
            }
        )*
    };
}

nothing!(commit uncommit protect populate guard unguard);

/// The same.
///
/// # Safety
///
/// None.
pub(super) unsafe fn guard_all(_: &[Place]) -> Result<(), Refusal> {
    Ok(())
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, page_size()).ok()
}
