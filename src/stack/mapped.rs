//! A mapping of its own as a stack.

use core::ptr::NonNull;

use super::{Error, Stack, system, table, valgrind};
use crate::arch;

/// A stack in a mapping of its own, with a guard below that faults when touched.
///
/// Pages cost memory from their first touch on. The reserve, rounded up to whole pages, is usable to its last byte; the
/// guard comes on top. Two kernel mappings a stack, so an untuned Linux (65,530 mappings a process) ends near 32,700.
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
    // Two words, which the compiler moves in registers; the guard has the same size for all.
    limit: NonNull<u8>,
    reserve: usize,
}

// SAFETY: it owns its mapping, which any thread may use and unmap.
unsafe impl Send for Mapped {}
// SAFETY: a shared reference gives addresses and sizes only.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a stack of at least `reserve` usable bytes.
    ///
    /// Two system calls (`mmap`, `mprotect`); no page is touched. The table of stacks grows by an allocation now and then.
    ///
    /// # Errors
    ///
    /// If `reserve` is zero or exceeds the address space, or if the system refuses; the error names the limit that was
    /// met. Nothing is left behind.
    pub fn new(reserve: usize) -> Result<Self, Error> {
        if reserve == 0 {
            return Err(Error::too_small(0, super::LEAST_FREE));
        }
        let page = system::page_size();
        let guard = guard_size();
        // No object may exceed isize::MAX bytes.
        let size = reserve
            .checked_next_multiple_of(page)
            .and_then(|rounded| rounded.checked_add(guard))
            .filter(|&size| isize::try_from(size).is_ok())
            .ok_or(Error::too_large(reserve))?;
        let base = system::reserve(size)?;
        if table::insert(base.addr().get()..base.addr().get() + size).is_err() {
            // SAFETY: it was just reserved, and nobody knows of it.
            unsafe { system::release(base, size) };
            return Err(Error::refused("the allocator", libc::ENOMEM, reserve));
        }
        // SAFETY: inside the mapping, which is larger than its guard.
        let stack = Self { limit: unsafe { base.add(guard) }, reserve: size - guard };
        // On failure `stack` is dropped and with it the reservation.
        valgrind::register(stack.limit, stack.top());
        system::commit(stack.limit, stack.reserve)?;
        Ok(stack)
    }

    /// Usable bytes.
    pub fn reserve(&self) -> usize {
        self.reserve
    }
}

impl Drop for Mapped {
    /// One system call (`munmap`).
    fn drop(&mut self) {
        valgrind::deregister(self.limit);
        // SAFETY: the mapping begins with its guard.
        let (base, size) = unsafe { (self.limit.sub(guard_size()), guard_size() + self.reserve) };
        table::remove(base.addr().get()..base.addr().get() + size);
        // SAFETY: it is ours and nobody runs on it: who did, held this value.
        unsafe { system::release(base, size) }
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

/// Bytes of guard below a [`Mapped`] stack.
///
/// One page where the compiler probes the pages of a large frame one by one; at least 64 KiB where it does not (arm,
/// riscv64, loongarch64), because a frame could jump over less.
///
/// A single frame that is larger than the guard, and whose near end is not touched first, can still pass it there, and in
/// code of other compilers that does not probe. Whoever runs such code gives it a stack that the frame fits on.
pub fn guard_size() -> usize {
    let page = system::page_size();
    if arch::STACK_PROBES { page } else { page.max(64 * 1024) }
}
