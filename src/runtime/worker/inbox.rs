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

    /// For who has something else for the worker than a task of its own, and has a fence between writing that and this.
    /// `true`: the worker has declared itself asleep before, and the caller has to wake it.
    pub(super) fn rouse(&self) -> bool {
        self.word.compare_exchange(ASLEEP, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// From now on nothing is accepted: the worker has ended, and with it all that could be in here.
    pub(super) fn close(&self) {
        self.word.store(CLOSED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::nobody::tasks;
    use super::*;
    use crate::task::Reference;

    /// Takes out all tasks, as their places in `tasks`.
    fn drained(inbox: &Inbox, tasks: &[Reference]) -> Vec<usize> {
        let queue = Queue::default();
        inbox.drain(&queue);
        std::iter::from_fn(|| queue.pop())
            .map(|task| tasks.iter().position(|other| other.as_ptr() == task.as_ptr()).unwrap())
            .collect()
    }

    fn open() -> Inbox {
        let inbox = Inbox::new();
        inbox.open();
        inbox
    }

    #[test]
    fn only_the_first_to_find_the_worker_asleep_wakes_it() {
        let (inbox, tasks) = (open(), tasks(4));
        assert!(!inbox.push(&tasks[0]), "it is awake");
        assert_eq!(drained(&inbox, &tasks), [0]);
        assert!(inbox.fall_asleep());
        assert!(inbox.push(&tasks[1]));
        assert!(!inbox.push(&tasks[2]));
        inbox.wake_up();
        assert!(!inbox.push(&tasks[3]));
        assert_eq!(drained(&inbox, &tasks), [1, 2, 3]);
    }

    #[test]
    fn a_worker_does_not_fall_asleep_over_what_has_come_since_it_looked() {
        let (inbox, tasks) = (open(), tasks(2));
        assert_eq!(drained(&inbox, &tasks), []);
        inbox.push(&tasks[0]);
        assert!(!inbox.fall_asleep());
        assert!(!inbox.push(&tasks[1]), "it stays awake");
    }

    #[test]
    fn a_worker_that_was_woken_by_nobody_is_awake() {
        let (inbox, tasks) = (open(), tasks(1));
        assert!(inbox.fall_asleep());
        inbox.wake_up();
        assert!(!inbox.push(&tasks[0]));
    }

    #[test]
    fn a_closed_inbox_takes_nothing_and_wakes_nobody() {
        let (inbox, tasks) = (open(), tasks(2));
        inbox.push(&tasks[0]);
        inbox.close();
        assert!(!inbox.push(&tasks[1]));
        inbox.open();
        assert_eq!(drained(&inbox, &tasks), []);
    }

    #[test]
    fn nothing_is_lost_or_doubled_among_many_threads() {
        let (inbox, tasks) = (open(), tasks(4000));
        let mut found = Vec::new();
        thread::scope(|scope| {
            for part in tasks.chunks(1000) {
                let inbox = &inbox;
                scope.spawn(move || part.iter().for_each(|task| assert!(!inbox.push(task))));
            }
            while found.len() < tasks.len() {
                found.extend(drained(&inbox, &tasks));
                thread::yield_now();
            }
        });
        // Those of one thread come in order.
        for part in 0..4 {
            let of_part: Vec<_> = found.iter().copied().filter(|place| place / 1000 == part).collect();
            assert_eq!(of_part, (part * 1000..(part + 1) * 1000).collect::<Vec<_>>());
        }
    }
}
