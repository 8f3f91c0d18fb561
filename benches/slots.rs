//! Stacks in one mapping, the same for every peer that accepts a user's stack: a hundred thousand mappings with a guard
//! each would exceed what the kernel allows a process.

use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

/// Usable bytes of a stack.
pub const SIZE: usize = 64 * 1024;

const PAGE: usize = 4096;

/// A stack that is never given back. It has no guard: what runs in the benchmarks needs little.
#[derive(Clone, Copy)]
pub struct Slot {
    /// The address just above the highest byte.
    pub top: NonNull<u8>,
    /// The address of the lowest byte.
    pub limit: NonNull<u8>,
}

/// Stacks that follow one another with a page between them, where a guard would be.
pub fn slots(count: usize) -> impl Iterator<Item = Slot> {
    cut(count, SIZE, SIZE + PAGE, |_| 0)
}

/// Stacks that follow one another with nothing between them, at distances of a power of two.
pub fn adjacent(count: usize) -> impl Iterator<Item = Slot> {
    cut(count, SIZE, SIZE, |_| 0)
}

/// Stacks so small that we do not stagger them, whose tops are all at the same offset in their page, so that they share
/// the sets of the caches.
pub fn aligned(count: usize) -> impl Iterator<Item = Slot> {
    cut(count, SIZE / 4, SIZE / 4, |_| 0)
}

/// The same, each a pair of cache lines lower in its page than its neighbour.
pub fn staggered(count: usize) -> impl Iterator<Item = Slot> {
    cut(count, SIZE / 4, SIZE / 4, |index| index % 16 * 128)
}

/// Maps `count` stacks of `size` bytes whose tops are `stride` bytes apart, each lowered by what `lower` says for it.
fn cut(count: usize, size: usize, stride: usize, lower: fn(usize) -> usize) -> impl Iterator<Item = Slot> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new private mapping disturbs no other.
    let base = unsafe { libc::mmap(ptr::null_mut(), count * stride, protection, flags, -1, 0) };
    assert_ne!(base, libc::MAP_FAILED, "{count} stacks: {}", std::io::Error::last_os_error());
    // A huge page would make hundreds of stacks resident at once. Refused by kernels that have none.
    // SAFETY: advice on our own mapping.
    unsafe { libc::madvise(base, count * stride, libc::MADV_NOHUGEPAGE) };
    let base = NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at zero unasked");
    (0..count).map(move |index| {
        // SAFETY: all within the mapping.
        unsafe {
            let top = base.add((index + 1) * stride);
            Slot { top: top.sub(lower(index)), limit: top.sub(size) }
        }
    })
}

// SAFETY: the mapping is never given back, each slot is used by one coroutine at a time, and none needs what it holds.
unsafe impl switchback::stack::Stack for Slot {
    #[inline]
    fn top(&self) -> NonNull<u8> {
        self.top
    }

    #[inline]
    fn limit(&self) -> NonNull<u8> {
        self.limit
    }
}

// SAFETY: as above.
unsafe impl corosensei::stack::Stack for Slot {
    #[inline]
    fn base(&self) -> NonZeroUsize {
        self.top.addr()
    }

    #[inline]
    fn limit(&self) -> NonZeroUsize {
        self.limit.addr()
    }
}
