//! A thread's own stacks of one size, last in, first out: the one handed out is the one whose pages are in the cache.

use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{Keep, Pool, SIZES};
use crate::stack::row;
use crate::stack::try_box::try_box;

/// How many stacks lie on a shelf at most.
pub(super) const CAPACITY: usize = 64;

/// How many move between a shelf and the depot at once.
pub(super) const AT_ONCE: usize = 16;

/// After so many stacks given back the clock is read, whether it is time to look the shelf over.
const ROUNDS: u32 = 1024;

/// Changed by its thread only; others read how many there are.
pub(super) struct Shelf {
    len: AtomicUsize,
    /// Stacks to be given back before the clock is read.
    rounds: Cell<u32>,
    looked_over: Cell<Instant>,
    stacks: [Cell<NonNull<u8>>; CAPACITY],
}

// SAFETY: other threads see a shelf in the list of its pool, and only read its `len` there.
unsafe impl Sync for Shelf {}

/// The shelves of a thread, by the numbers of their pools. Null where there is none.
type Shelves = [Cell<*mut Shelf>; SIZES];

thread_local! {
    /// Null before the first one, and when the thread is ending. Without a destructor, so that it is read by one
    /// instruction.
    static SHELVES: Cell<*mut Shelves> = const { Cell::new(ptr::null_mut()) };
    /// Clears the shelves when the thread ends.
    static OWNER: Owner = const { Owner };
}

/// The thread's shelf for a pool, if it has one.
#[inline(always)]
fn find(pool: usize) -> Option<&'static Shelf> {
    // SAFETY: what is not null is there until the thread's end; it is not kept beyond this call and its caller's.
    unsafe { SHELVES.get().as_ref()?[pool].get().as_ref() }
}

/// A stack, if there is one.
#[inline(always)]
pub(super) fn take(pool: usize) -> Option<NonNull<u8>> {
    let shelf = find(pool)?;
    let last = shelf.len().checked_sub(1)?;
    shelf.len.store(last, Ordering::Relaxed);
    Some(shelf.stacks[last % CAPACITY].get())
}

/// Puts a stack onto the shelf; false if there is something to do first: there is no shelf, it is full, or it is to be
/// looked over.
#[inline(always)]
pub(super) fn put(pool: usize, limit: NonNull<u8>) -> bool {
    let Some(shelf) = find(pool) else { return false };
    let (rounds, len) = (shelf.rounds.get(), shelf.len());
    if rounds == 0 || len >= CAPACITY {
        return false;
    }
    shelf.rounds.set(rounds - 1);
    shelf.stacks[len].set(limit);
    shelf.len.store(len + 1, Ordering::Relaxed);
    true
}

/// The thread's shelf for a pool; a new one if it had none. None if the thread is ending, if there is no memory for one, or
/// if stacks that are not in use are to be out of reach.
pub(super) fn of_this_thread(pool: Pool) -> Option<&'static Shelf> {
    let number = pool.0.number;
    if let Some(shelf) = find(number) {
        return Some(shelf);
    }
    if row::seals_retired() {
        return None;
    }
    // Registers the destructor; refused once it has run.
    OWNER.try_with(|_| ()).ok()?;
    if SHELVES.get().is_null() {
        SHELVES.set(lend([const { Cell::new(ptr::null_mut()) }; SIZES])?);
    }
    let mut shelves = pool.0.shelves();
    shelves.try_reserve(1).ok()?;
    let shelf = lend(Shelf {
        len: AtomicUsize::new(0),
        rounds: Cell::new(ROUNDS),
        looked_over: Cell::new(Instant::now()),
        stacks: [const { Cell::new(NonNull::dangling()) }; CAPACITY],
    })?;
    // SAFETY: both are there until the thread's end.
    unsafe {
        shelves.push(&*shelf);
        (&*SHELVES.get())[number].set(shelf);
        Some(&*shelf)
    }
}

/// Leaks a value, to be taken back by [`take_back`]; none if there is no memory for it.
fn lend<T>(value: T) -> Option<*mut T> {
    try_box(value).map(Box::into_raw)
}

/// # Safety
///
/// The value must come from [`lend`], and nobody else know it any more.
unsafe fn take_back<T>(value: *mut T) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(value) });
}

impl Shelf {
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == CAPACITY
    }

    /// There must be room.
    pub(super) fn put(&self, limit: NonNull<u8>) {
        let len = self.len();
        self.stacks[len].set(limit);
        self.len.store(len + 1, Ordering::Relaxed);
    }

    /// Moves the stacks that have lain there longest to the depot, all but so many.
    pub(super) fn shrink_to(&self, pool: Pool, keep: usize) {
        let len = self.len();
        let Some(leaving) = len.checked_sub(keep).filter(|&leaving| leaving > 0) else { return };
        let mut stacks = [NonNull::dangling(); CAPACITY];
        for (stack, place) in stacks.iter_mut().zip(&self.stacks[..leaving]) {
            *stack = place.get();
        }
        for (place, next) in self.stacks.iter().zip(&self.stacks[leaving..len]) {
            place.set(next.get());
        }
        self.len.store(keep, Ordering::Relaxed);
        pool.0.give_to_depot(&stacks[..leaving]);
    }

    /// If it is time: moves half of it to the depot, all but one in the end, and takes from the other half what was touched beyond what is kept.
    pub(super) fn look_over(&self, pool: Pool) {
        if self.rounds.get() > 0 {
            return;
        }
        self.rounds.set(ROUNDS);
        let now = Instant::now();
        let decay = Keep::current().decay;
        if now.saturating_duration_since(self.looked_over.get()) < decay {
            return;
        }
        self.looked_over.set(now);
        self.shrink_to(pool, self.len().div_ceil(2));
        let mut stacks = [NonNull::dangling(); CAPACITY];
        let len = self.len();
        for (stack, place) in stacks.iter_mut().zip(&self.stacks[..len]) {
            *stack = place.get();
        }
        super::depot::give_pages_back(&stacks[..len], pool.0.size);
        pool.0.depot().decay(now, decay);
    }
}

/// See [`OWNER`].
struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        let shelves = SHELVES.replace(ptr::null_mut());
        // SAFETY: what is not null was lent by this thread and is not taken back yet.
        let Some(own) = (unsafe { shelves.as_ref() }) else { return };
        for pool in Pool::all() {
            let shelf = own[pool.0.number].get();
            // SAFETY: as above.
            let Some(lent) = (unsafe { shelf.as_ref() }) else { continue };
            lent.shrink_to(pool, 0);
            pool.0.shelves().retain(|&other| !ptr::eq(other, lent));
            // SAFETY: only the pool's list knew it besides.
            unsafe { take_back(shelf) };
        }
        // SAFETY: only this thread knew them, and has forgotten them.
        unsafe { take_back(shelves) };
    }
}
