//! Stacks kept for reuse, for the whole process.
//!
//! ```text
//! Pool::take         shelf of this thread            depot, under a lock          the system
//!                    last in, first out      16 at   whose pages are kept  when   rows of stacks in one mapping,
//! Pooled, dropped    no lock, no call        once    or given back         empty  each twice as large as the last
//! ```
//!
//! There is one pool for each size of stack, as there is one for each size of block in an allocator, and they last as
//! long as the process. What a stack has touched stays its own while it lies on a shelf, so that the next coroutine finds
//! it in the cache; beyond [`Keep::resident`] it is given back when the stack leaves the shelf, or when the thread looks its
//! shelf over: about once in [`Keep::decay`], if it gives stacks back at all. What lies there too long goes to the depot,
//! and what lies in the depot too long goes back to the system, in the end with its address space.
//!
//! The kernel is not asked what was touched: to give back pages of which none is there costs less than the question
//! (600 ns against 1,000 for `PAGEMAP_SCAN` and 1,500 for `mincore`, for one stack of 64 KiB on Linux 6.18; 264 ns each for
//! 64 stacks in one call).
//!
//! With `SWITCHBACK_GUARD_RELEASED=1` in the environment nothing is kept, and what is not in use is guarded whole: whoever
//! still uses the stack of a coroutine that has ended faults there.

mod depot;
mod keep;
mod shelf;

use core::cell::Cell;
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::depot::Depot;
pub use self::keep::Keep;
use self::shelf::Shelf;
use super::try_box::try_box;
use super::{Error, Stack, StackSize, overflow, valgrind};

/// How many sizes of stacks are kept apart.
const SIZES: usize = 256;

/// Appended to under the lock of [`Pool::of`], never shortened.
static POOLS: [AtomicPtr<Shared>; SIZES] = [const { AtomicPtr::new(ptr::null_mut()) }; SIZES];

/// The pool of stacks of one size.
///
/// A handle to be copied; the pool itself lasts as long as the process. Whoever needs many stacks of a size asks for their
/// pool once; [`Pooled::new`] looks it up each time.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::stack::Pool;
/// use switchback::{Coroutine, Resumed, Yielder};
///
/// let pool = Pool::of(64 * 1024)?;
/// for n in 0..100 {
///     // From the second time on there is a stack: no system call, no lock.
///     let mut coroutine = Coroutine::with_stack(pool.take()?, move |_: &Yielder<(), ()>, ()| n + 1)?;
///     assert_eq!(coroutine.resume(()), Resumed::Returned(n + 1));
/// }
/// assert!(pool.stats().mapped > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Pool(&'static Shared);

/// What all threads share of a pool.
struct Shared {
    /// Its place in [`POOLS`].
    number: usize,
    /// In whole pages.
    size: StackSize,
    depot: Mutex<Depot>,
    /// The shelves that threads have for it. Lent by their owners until they take them away again.
    shelves: Mutex<Vec<&'static Shelf>>,
}

impl Pool {
    /// The pool of stacks of this size, or a little more: the reserve is rounded up to one of eight steps between two
    /// powers of two, so that sizes that differ little share a pool.
    ///
    /// Compares the size with those of the pools that exist; the first time for a size it allocates, but maps nothing yet.
    ///
    /// # Errors
    ///
    /// If the size makes no sense, if pools of 256 other sizes exist, or if there is no memory.
    pub fn of(size: impl Into<StackSize>) -> Result<Self, Error> {
        let size = step(size.into()).in_pages()?;
        match Self::all().find(|pool| pool.0.size == size) {
            Some(pool) => Ok(pool),
            None => Self::make(size),
        }
    }

    #[cold]
    fn make(size: StackSize) -> Result<Self, Error> {
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        if let Some(pool) = Self::all().find(|pool| pool.0.size == size) {
            return Ok(pool);
        }
        let number = Self::all().count();
        let place = POOLS.get(number).ok_or(Error::too_many_sizes(SIZES))?;
        let (depot, shelves) = (Mutex::new(Depot::new(size)), Mutex::new(Vec::new()));
        let shared = try_box(Shared { number, size, depot, shelves }).ok_or(Error::no_memory(size.reserve))?;
        let shared: &'static Shared = Box::leak(shared);
        // Pairs with the load in `all`.
        place.store(ptr::from_ref(shared).cast_mut(), Ordering::Release);
        Ok(Self(shared))
    }

    /// Every pool that exists.
    fn all() -> impl Iterator<Item = Self> {
        // Pairs with the store in `make`.
        let pools = POOLS.iter().map(|pool| pool.load(Ordering::Acquire));
        // SAFETY: what is not null is a leaked value.
        pools.take_while(|pool| !pool.is_null()).map(|pool| Self(unsafe { &*pool }))
    }

    /// A stack.
    ///
    /// If this thread has given one back: a handful of instructions. If another one has: a lock, and a few stacks are taken
    /// at once. Else it is cut from a mapping, which costs a share of a system call for its guard.
    ///
    /// # Errors
    ///
    /// If the system refuses; the error names the limit that was met. Nothing is left behind.
    #[inline]
    pub fn take(self) -> Result<Pooled, Error> {
        let limit = match shelf::take(self.0.number) {
            Some(limit) => limit,
            None => self.take_from_depot()?,
        };
        valgrind::hand_out(limit, &self.0.size);
        Ok(Pooled { limit, pool: self.0 })
    }

    #[cold]
    #[inline(never)]
    fn take_from_depot(self) -> Result<NonNull<u8>, Error> {
        overflow::on_this_thread();
        let shelf = shelf::of_this_thread(self);
        let mut taken = [NonNull::dangling(); shelf::AT_ONCE];
        // A thread that is ending has no shelf and takes one only.
        let wanted = if shelf.is_some() { shelf::AT_ONCE } else { 1 };
        let count = self.0.depot().take(&mut taken[..wanted])?;
        // The last one is for the caller; there is at least one.
        if let Some(shelf) = shelf {
            taken[..count - 1].iter().for_each(|&limit| shelf.put(limit));
        }
        Ok(taken[count - 1])
    }

    #[cold]
    #[inline(never)]
    fn give_back(self, limit: NonNull<u8>) {
        let Some(shelf) = shelf::of_this_thread(self) else {
            self.0.give_to_depot(&[limit]);
            return;
        };
        if shelf.is_full() {
            shelf.shrink_to(self, shelf::CAPACITY - shelf::AT_ONCE);
        }
        shelf.put(limit);
        shelf.look_over(self);
    }

    /// Gives back to the system all it can: the shelf of this thread, and what lies in the depot.
    ///
    /// What lies on the shelves of other threads stays there.
    pub fn trim(self) {
        if let Some(shelf) = shelf::of_this_thread(self) {
            shelf.shrink_to(self, 0);
        }
        self.0.depot().trim();
    }

    /// What there is now. Locks the depot, and reads what other threads are changing: a moment's picture of each.
    pub fn stats(self) -> PoolStats {
        let depot = self.0.depot();
        let shelves = self.0.shelves();
        let on_shelves: usize = shelves.iter().map(|shelf| shelf.len()).sum();
        let figures = depot.figures();
        PoolStats {
            size: self.0.size,
            // A stack on its way from a shelf to the depot or back is counted as in use.
            in_use: figures.out.saturating_sub(on_shelves),
            cached: on_shelves + figures.warm,
            mapped: figures.mapped,
            peak: figures.peak,
        }
    }

    /// Bytes of memory that the pool's stacks hold now, in use or not, to the page; `None` if the system does not say.
    ///
    /// No counter knows what coroutines touch, so the system's page tables are asked: what was swapped out does not count,
    /// what was only read does. For figures that are looked at now and then: the depot is locked meanwhile. On Linux three
    /// system calls for each mapping that the pool has and one for each 32 runs of pages that hold memory
    /// (`PAGEMAP_SCAN`), or one for each megabyte of address space (`mincore`) before Linux 6.7. Allocates nothing.
    pub fn resident(self) -> Option<usize> {
        self.0.depot().resident()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.0.size).finish()
    }
}

impl Shared {
    fn depot(&self) -> MutexGuard<'_, Depot> {
        self.depot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<&'static Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from stacks what they have touched beyond what is kept, and puts them into the depot.
    fn give_to_depot(&self, stacks: &[NonNull<u8>]) {
        // Before the lock: it takes most of the time.
        depot::give_pages_back(stacks, self.size);
        self.depot().give(stacks);
    }
}

/// What a pool has, see [`Pool::stats`]. Numbers of stacks; how much memory they hold says [`Pool::resident`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Of each, as it was rounded.
    pub size: StackSize,
    /// Handed out.
    pub in_use: usize,
    /// Kept with some of their pages.
    pub cached: usize,
    /// Room in the mappings; most of it may be address space only.
    pub mapped: usize,
    /// The most that were handed out or on a shelf at a time.
    pub peak: usize,
}

/// What every pool has, one after the other.
///
/// ```
/// for pool in switchback::stack::pools() {
///     println!("{} in use, {} cached", pool.stats().in_use, pool.stats().cached);
/// }
/// ```
pub fn pools() -> impl Iterator<Item = Pool> {
    Pool::all()
}

/// A stack from a [`Pool`], which gets it back when it is dropped.
///
/// It may be dropped on another thread than it was taken on. What a coroutine wrote there is not wiped.
pub struct Pooled {
    limit: NonNull<u8>,
    pool: &'static Shared,
}

// SAFETY: it owns its stack, which any thread may use and put onto its own shelf.
unsafe impl Send for Pooled {}
// SAFETY: a shared reference gives addresses and sizes only.
unsafe impl Sync for Pooled {}

impl Pooled {
    /// A stack of at least this size, from its pool: as [`Pool::of`] and then [`Pool::take`].
    ///
    /// # Errors
    ///
    /// As for those two.
    #[inline]
    pub fn new(size: impl Into<StackSize>) -> Result<Self, Error> {
        thread_local! {
            /// What was asked for last, and its pool.
            static LAST: Cell<Option<(StackSize, Pool)>> = const { Cell::new(None) };
        }
        let size = size.into();
        if let Some((last, pool)) = LAST.get()
            && last == size
        {
            return pool.take();
        }
        let pool = Pool::of(size)?;
        LAST.set(Some((size, pool)));
        pool.take()
    }

    /// Usable bytes.
    pub fn reserve(&self) -> usize {
        self.pool.size.reserve
    }
}

impl Drop for Pooled {
    /// A handful of instructions; if the thread's shelf is full a lock, and half of the shelf goes to the depot.
    #[inline]
    fn drop(&mut self) {
        if !shelf::put(self.pool.number, self.limit) {
            Pool(self.pool).give_back(self.limit);
        }
    }
}

// SAFETY: the row in which it lies is not unmapped while one of its stacks is out of the depot; each is handed out once,
// and guarded as large as the target demands. A pooled stack that is forgotten is out for ever.
unsafe impl Stack for Pooled {
    #[inline]
    fn top(&self) -> NonNull<u8> {
        // SAFETY: one past the end of the stack.
        unsafe { self.limit.add(self.pool.size.reserve) }
    }

    #[inline]
    fn limit(&self) -> NonNull<u8> {
        self.limit
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").field("limit", &self.limit).field("reserve", &self.reserve()).finish()
    }
}

/// Rounds the reserve up to one of eight steps between two powers of two.
fn step(size: StackSize) -> StackSize {
    let step = (size.reserve.max(1).ilog2()).saturating_sub(3);
    let reserve = size.reserve.checked_next_multiple_of(1 << step).unwrap_or(size.reserve);
    StackSize { reserve, ..size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_rounded_up_by_less_than_an_eighth() {
        for reserve in (1..70_000).chain([usize::MAX, usize::MAX / 2 + 1]) {
            let stepped = step(reserve.into()).reserve;
            assert!(stepped >= reserve && stepped - reserve <= reserve / 8, "{reserve} becomes {stepped}");
            assert_eq!(step(stepped.into()).reserve, stepped, "twice is once");
        }
        let steps = (4096..8192).map(|reserve| step(reserve.into()).reserve);
        assert_eq!(steps.collect::<std::collections::BTreeSet<_>>().len(), 9, "eight steps, and the next power of two");
    }
}
