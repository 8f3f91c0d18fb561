//! A fixed number of stacks in one mapping, which whoever made it has for himself.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::row::{self, Row};
use super::try_box::try_box;
use super::{Error, Stack, StackSize, overflow, system, valgrind};

/// Stacks of one size, cut from one mapping, made all at once and handed out one by one.
///
/// What can be refused is refused when the slab is made: from then on a stack is there unless all are in use. So a slab
/// is a limit that its owner sets, of coroutines alive at once and of what they can take from the rest of the program, and
/// no other part of the program can use it up. For stacks in any number, and for many threads at once, there is the
/// [`Pool`](super::Pool).
///
/// Threads share it by reference or in an [`Arc`](std::sync::Arc). A stack keeps its slab: the mapping lasts until the
/// slab and the last of its stacks are gone.
///
/// # What a stack keeps
///
/// A stack given back keeps the pages it has touched, and the one given back last is handed out first. Nothing is given
/// to the system unless [`trim`](Slab::trim) asks for it.
///
/// # Cost
///
/// To take a stack and to give it back is a lock each, held for a few instructions, which all threads that share the slab
/// contend for: no system call, no allocation.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::stack::Slab;
/// use switchback::{Coroutine, Resumed, Yielder};
///
/// let slab = Slab::new(64 * 1024, 2)?;
/// let echo = || Coroutine::with_stack(slab.take()?, |_: &Yielder<u32, ()>, n| n);
/// let (mut first, second) = (echo()?, echo()?);
/// assert_eq!(slab.in_use(), 2);
/// // A server would turn the third guest away.
/// assert!(echo().is_err_and(|error| error.to_string().starts_with("all stacks of the slab are in use")));
///
/// assert_eq!(first.resume(7), Resumed::Returned(7));
/// drop(first);
/// let third = echo()?;
/// # drop((second, third));
/// # Ok(())
/// # }
/// ```
pub struct Slab(NonNull<Shared>);

/// A stack from a [`Slab`], which gets it back when it is dropped.
///
/// It may be dropped on another thread than it was taken on. What a coroutine wrote there is not wiped. One that is
/// forgotten is in use for ever.
pub struct SlabStack {
    limit: NonNull<u8>,
    slab: NonNull<Shared>,
}

/// What a slab and its stacks own together. An `Arc` would be it, if its making could fail.
struct Shared {
    /// The slab and the stacks that are in use: no more than there are stacks, and one.
    owners: AtomicUsize,
    row: Row,
    count: usize,
    /// Limits of the stacks that are not in use, the one to be handed out next at the end. There is capacity for all.
    free: Mutex<Vec<NonNull<u8>>>,
}

// SAFETY: the limits are of stacks that it owns, which any thread may use.
unsafe impl Send for Shared {}
// SAFETY: shared, the row is only read, and changes pages of a stack only for whoever has taken that stack from `free` or
// holds the lock on it.
unsafe impl Sync for Shared {}

// SAFETY: it owns a share of what any thread may use and drop.
unsafe impl Send for Slab {}
// SAFETY: the same.
unsafe impl Sync for Slab {}
// SAFETY: it owns its stack besides, which any thread may use and give back.
unsafe impl Send for SlabStack {}
// SAFETY: a shared reference gives addresses and sizes only.
unsafe impl Sync for SlabStack {}

impl Slab {
    /// Makes so many stacks of at least that size: a [`StackSize`], or the reserve in bytes.
    ///
    /// Two system calls for the mapping and one for the guards of 64 stacks (`process_madvise`, Linux 6.15), else one for
    /// the guard of each. What the size commits is resident from now on, for all of them; where the system [counts memory
    /// before it is used](super#where-memory-is-counted-before-it-is-used), the whole of them counts. For the account
    /// eight bytes a stack are allocated.
    ///
    /// # Errors
    ///
    /// If no stack is asked for, if the reserve is zero, if all together exceed the address space, or if the system refuses;
    /// the error names the limit that was met. Nothing is left behind.
    pub fn new(size: impl Into<StackSize>, stacks: usize) -> Result<Self, Error> {
        overflow::on_this_thread();
        if stacks == 0 {
            return Err(Error::no_stacks());
        }
        let mut row = Row::map(size.into(), stacks)?;
        let no_memory = row.no_memory();
        let mut free = Vec::new();
        free.try_reserve_exact(stacks).map_err(|_| no_memory)?;
        row.prepare(stacks)?;
        // The lowest is handed out first.
        free.extend((0..stacks).rev().map(|index| row.limit(index)));
        let shared = Shared { owners: AtomicUsize::new(1), row, count: stacks, free: Mutex::new(free) };
        let shared = try_box(shared).ok_or(no_memory)?;
        Ok(Self(NonNull::from(Box::leak(shared))))
    }

    /// A stack.
    ///
    /// A lock; no system call, no allocation. But if [overflows are reported](super::report_overflows), the first on a
    /// thread without an alternate stack gives it one.
    ///
    /// # Errors
    ///
    /// If all are in use, and for no other reason. (In a program that runs with `SWITCHBACK_GUARD_RELEASED=1`, which guards
    /// stacks that are not in use, the system can refuse as well.)
    pub fn take(&self) -> Result<SlabStack, Error> {
        overflow::on_this_thread();
        let shared = self.shared();
        let limit = shared.free().pop().ok_or(Error::all_in_use(shared.count))?;
        // The slab itself is one owner, so it is there meanwhile.
        shared.owners.fetch_add(1, Ordering::Relaxed);
        let stack = SlabStack { limit, slab: self.0 };
        if row::seals_retired() {
            // SAFETY: one that was never retired is restored without harm.
            unsafe { shared.row.restore(limit)? };
        }
        valgrind::hand_out(limit, &shared.row.size());
        Ok(stack)
    }

    /// How many stacks there are.
    pub fn capacity(&self) -> usize {
        self.shared().count
    }

    /// How many of them are in use. A moment's picture, under the lock.
    pub fn in_use(&self) -> usize {
        let shared = self.shared();
        shared.count - shared.free().len()
    }

    /// Of each stack, as it was rounded up to whole pages.
    pub fn size(&self) -> StackSize {
        self.shared().row.size()
    }

    /// Bytes of memory that the stacks hold now, in use or not, to the page; `None` if the system does not say.
    ///
    /// What it takes to find out is what [`Pool::resident`](super::Pool::resident) takes for one mapping. Without the lock.
    pub fn resident(&self) -> Option<usize> {
        self.shared().row.resident()
    }

    /// Gives back to the system the memory of the stacks that are not in use, all but what their size commits.
    ///
    /// One system call for 64 of them (Linux 6.15), else one for each. Other threads can take stacks and give them back
    /// between one 64 and the next.
    pub fn trim(&self) {
        let shared = self.shared();
        let size = shared.row.size();
        let beyond = size.reserve - size.commit;
        if beyond == 0 {
            return;
        }
        // From the one that is handed out last: what others take or give back meanwhile is at the other end.
        for first in (0..).step_by(system::PLACES) {
            let free = shared.free();
            let stacks = free.get(first..).unwrap_or_default();
            let mut places = [system::place(NonNull::dangling(), 0); system::PLACES];
            let count = stacks.len().min(system::PLACES);
            places.iter_mut().zip(stacks).for_each(|(place, &limit)| *place = system::place(limit, beyond));
            // SAFETY: nobody has these stacks, or gets one before the lock is given up. If the system refuses, they keep
            // what they have.
            let _ = unsafe { system::decommit_all(&places[..count]) };
            if count < system::PLACES {
                break;
            }
        }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: this slab is an owner of it.
        unsafe { self.0.as_ref() }
    }
}

impl SlabStack {
    /// Usable bytes.
    pub fn reserve(&self) -> usize {
        self.shared().row.size().reserve
    }

    fn shared(&self) -> &Shared {
        // SAFETY: this stack is an owner of it.
        unsafe { self.slab.as_ref() }
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Vec<NonNull<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up one share; the last one takes the mapping along.
    ///
    /// # Safety
    ///
    /// The share must be the caller's, who does not use it again.
    unsafe fn disown(this: NonNull<Self>) {
        // SAFETY: the caller is still an owner. What the others did before they gave up theirs is done before it is dropped.
        if unsafe { this.as_ref() }.owners.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: it comes from a box, and there is no owner any more.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }
}

impl Drop for Slab {
    /// One system call (`munmap`), unless stacks are in use.
    fn drop(&mut self) {
        // SAFETY: it is dropped once.
        unsafe { Shared::disown(self.0) };
    }
}

impl Drop for SlabStack {
    /// A lock. The last stack of a slab that is gone unmaps it, by one system call.
    fn drop(&mut self) {
        let shared = self.shared();
        if row::seals_retired() {
            // SAFETY: nobody uses it any more; whoever takes it restores it.
            unsafe { shared.row.retire(self.limit) };
        }
        shared.free().push(self.limit);
        // SAFETY: it is dropped once.
        unsafe { Shared::disown(self.slab) };
    }
}

// SAFETY: the mapping lies still until its last owner is gone, which this stack is, for ever if it is forgotten; each stack
// of it is handed out once, and guarded as large as the target demands.
unsafe impl Stack for SlabStack {
    #[inline]
    fn top(&self) -> NonNull<u8> {
        // SAFETY: one past the end of the stack.
        unsafe { self.limit.add(self.reserve()) }
    }

    #[inline]
    fn limit(&self) -> NonNull<u8> {
        self.limit
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_use, capacity) = (self.in_use(), self.capacity());
        f.debug_struct("Slab")
            .field("size", &self.size())
            .field("in_use", &in_use)
            .field("capacity", &capacity)
            .finish()
    }
}

impl fmt::Debug for SlabStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlabStack").field("limit", &self.limit).field("reserve", &self.reserve()).finish()
    }
}
