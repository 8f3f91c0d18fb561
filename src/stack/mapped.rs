//! A mapping of its own as a stack.

use core::ptr::NonNull;

use super::row::Row;
use super::{Error, Stack, StackSize, overflow};

/// A stack in a mapping of its own, with a guard below that faults when touched.
///
/// Pages cost memory from their first touch on. The reserve, rounded up to whole pages, is usable to its last byte; the
/// guard comes on top. With [guard regions](super::GuardKind::Region) neighbours share a kernel mapping; without, each stack
/// takes two, and an untuned Linux, which allows 65,530, ends at 30,717 stacks.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::{Coroutine, Resumed, Yielder, stack::Mapped};
///
/// let stack = Mapped::new(1024 * 1024)?;
/// let mut deep = Coroutine::with_stack(stack, |_: &Yielder<(), ()>, ()| [1u8; 500_000].len())?;
/// assert_eq!(deep.resume(()), Resumed::Returned(500_000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mapped {
    // Two words, which the compiler moves in registers; the table of stacks knows the guard.
    pub(super) limit: NonNull<u8>,
    reserve: usize,
}

// SAFETY: it owns its mapping, which any thread may use and unmap.
unsafe impl Send for Mapped {}
// SAFETY: a shared reference gives addresses and sizes only.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a stack of at least that size: a [`StackSize`], or its reserve in bytes.
    ///
    /// Two or three system calls (`mmap`, `madvise` or `mprotect`, and a name for the mapping); no page is touched unless
    /// the size says so. The table of stacks grows by an allocation now and then.
    ///
    /// # Errors
    ///
    /// If the reserve is zero or exceeds the address space, or if the system refuses; the error names the limit that was
    /// met. Nothing is left behind.
    pub fn new(size: impl Into<StackSize>) -> Result<Self, Error> {
        overflow::on_this_thread();
        let mut row = Row::map(size.into(), 1)?;
        row.prepare(1)?;
        let reserve = row.size().reserve;
        Ok(Self { limit: row.into_limit(), reserve })
    }

    /// Usable bytes.
    pub fn reserve(&self) -> usize {
        self.reserve
    }
}

impl Drop for Mapped {
    /// One system call (`munmap`).
    fn drop(&mut self) {
        // SAFETY: it comes from there, and this happens once.
        drop(unsafe { Row::from_limit(self.limit) });
    }
}

// SAFETY: the mapping lies still until drop, both ends are multiples of the page size, it is private to this value, and
// the guard below is as large as the target demands.
unsafe impl Stack for Mapped {
    #[inline]
    fn top(&self) -> NonNull<u8> {
        // SAFETY: one past the end of the mapping.
        unsafe { self.limit.add(self.reserve) }
    }

    #[inline]
    fn limit(&self) -> NonNull<u8> {
        self.limit
    }
}
