//! What other threads have made ready, and whether the worker sleeps: one word, and no lock.
//!
//! | word | meaning |
//! |---|---|
//! | null | nothing has come, and the worker is awake |
//! | a header | has come; those that came before it are chained to it |
//! | `ASLEEP` | nothing has come, and the worker sleeps |
//! | `CLOSED` | the worker has ended |
//!
//! The worker declares itself asleep by an exchange that succeeds only if nothing has come. So whoever puts a task in either
//! comes before (and the worker stays up) or replaces `ASLEEP` (and has to wake it). Only one can replace it: a sleeping
//! worker costs its wakers one system call in all, and one that is awake none.
//!
//! # Ordering
//!
//! The exchange that puts a task in is a release, the swap with which the worker takes all of them an acquire: so the
//! worker sees the links, of all of them because each exchange continues the release sequence of the one before. What the
//! tasks are to see is the business of their own words.
//!
//! A chain is only ever taken whole, so that the same header comes back (a task that was queued, ran, parked and is woken
//! again) is no danger: an exchange that finds it in the word links to what is there now.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::task::{Header, Mine, Queue};

const ASLEEP: *mut Header = ptr::without_provenance_mut(1);
const CLOSED: *mut Header = ptr::without_provenance_mut(2);

pub(super) struct Inbox {
    word: AtomicPtr<Header>,
}

impl Inbox {
    /// One that is closed.
    pub(super) const fn new() -> Inbox {
        Inbox { word: AtomicPtr::new(CLOSED) }
    }

    /// From now on tasks are accepted.
    pub(super) fn open(&self) {
        self.word.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Puts in a task of this worker whose word has just gone from parked to notified. `true`: the caller has to wake the
    /// worker.
    pub(super) fn push(&self, task: &Header) -> bool {
        let new = ptr::from_ref(task).cast_mut();
        let mut found = self.word.load(Ordering::Relaxed);
        loop {
            let before = match found {
                CLOSED => return false,
                ASLEEP => ptr::null_mut(),
                chain => chain,
            };
            // SAFETY: we are the one that queues it.
            unsafe { task.next() }.set(before);
            match self.word.compare_exchange_weak(found, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return found == ASLEEP,
                Err(now) => found = now,
            }
        }
    }

    /// Moves everything to the run queue, in the order in which it came. For the worker, awake.
    pub(super) fn drain(&self, queue: &Queue) {
        if self.word.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut chain: *const Header = self.word.swap(ptr::null_mut(), Ordering::Acquire);
        let mut reversed = ptr::null();
        while let Some(task) = NonNull::new(chain.cast_mut()) {
            // SAFETY: a task in the inbox is alive, and we have got its link.
            let link = unsafe { task.as_ref().next() };
            chain = link.replace(reversed);
            reversed = task.as_ptr();
        }
        while let Some(task) = NonNull::new(reversed.cast_mut()) {
            // SAFETY: as above, and it is this worker's.
            let task = unsafe { Mine::new(task) };
            reversed = task.own().next.get();
            queue.push(task);
        }
    }

    /// Declares the worker asleep, unless something is there to be done. To be followed by [`wake_up`](Inbox::wake_up).
    pub(super) fn fall_asleep(&self) -> bool {
        self.word.compare_exchange(ptr::null_mut(), ASLEEP, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Declares the worker awake.
    pub(super) fn wake_up(&self) {
        // If it fails, somebody has done it already.
        let _ = self.word.compare_exchange(ASLEEP, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// From now on nothing is accepted: the worker has ended, and with it all that could be in here.
    pub(super) fn close(&self) {
        self.word.store(CLOSED, Ordering::Relaxed);
    }
}
