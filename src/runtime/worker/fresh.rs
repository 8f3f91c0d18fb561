//! Tasks that have not begun and belong to no worker yet: each is a closure that may go anywhere (invariant 2).
//!
//! They are chained through their headers, first come, first served, under a lock that is held for a few instructions: who
//! takes several moves them at once. Beside the lock stands how many there are, so that to find nothing costs one load.
//!
//! A task in here has never run, so its word is not `PARKED`: nobody but who takes it out touches its link.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::task::{Header, Reference};

/// Tasks in a row, each with one count of its header.
pub(super) struct Chain {
    first: *const Header,
    last: *const Header,
    len: usize,
}

// SAFETY: its tasks have not begun, and are reached through it alone.
unsafe impl Send for Chain {}

impl Chain {
    const EMPTY: Chain = Chain { first: ptr::null(), last: ptr::null(), len: 0 };

    fn push(&mut self, task: Reference) {
        let task = task.into_raw();
        // SAFETY: it is in no queue, so the link is ours; the last one is in this chain.
        unsafe {
            task.as_ref().next().set(ptr::null());
            match self.last.as_ref() {
                Some(last) => last.next().set(task.as_ptr()),
                None => self.first = task.as_ptr(),
            }
        }
        self.last = task.as_ptr();
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<Reference> {
        let task = NonNull::new(self.first.cast_mut())?;
        // SAFETY: it is in this chain.
        self.first = unsafe { task.as_ref().next() }.get();
        if self.first.is_null() {
            self.last = ptr::null();
        }
        self.len -= 1;
        // SAFETY: the count that came with it.
        Some(unsafe { Reference::from_raw(task) })
    }

    fn append(&mut self, mut other: Chain) {
        // At most as many as one steal takes.
        while let Some(task) = other.pop() {
            self.push(task);
        }
    }

    /// Takes so many off the front.
    fn split(&mut self, count: usize) -> Chain {
        let mut taken = Chain::EMPTY;
        while taken.len < count {
            let Some(task) = self.pop() else { break };
            taken.push(task);
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

struct List {
    chain: Chain,
    /// Takes nothing any more: the runtime is ending.
    closed: bool,
}

pub(super) struct Fresh {
    list: Mutex<List>,
    /// Of the chain. Written under the lock.
    len: AtomicUsize,
}

impl Default for Fresh {
    fn default() -> Fresh {
        Fresh { list: Mutex::new(List { chain: Chain::EMPTY, closed: false }), len: AtomicUsize::new(0) }
    }
}

/// The most that are taken from another worker at once: the lock is not to be held for long, and a task that is moved twice
/// has been moved once too often.
const MOST_AT_ONCE: usize = 64;

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, List> {
        // No foreign code runs under this lock, so poison means nothing.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`is_empty`](Fresh::is_empty) reads. Relaxed: the lock publishes the tasks, and who must not miss one has a fence
    /// of its own (see [`idle`](super::idle)).
    fn publish(&self, list: &List) {
        self.len.store(list.chain.len, Ordering::Relaxed);
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts one at the end.
    ///
    /// # Errors
    ///
    /// If the runtime is ending: it is given back.
    pub(super) fn push(&self, task: Reference) -> Result<(), Reference> {
        let mut list = self.lock();
        if list.closed {
            return Err(task);
        }
        list.chain.push(task);
        self.publish(&list);
        Ok(())
    }

    /// As [`push`](Fresh::push), for several.
    pub(super) fn append(&self, tasks: Chain) -> Result<(), Chain> {
        let mut list = self.lock();
        if list.closed {
            return Err(tasks);
        }
        list.chain.append(tasks);
        self.publish(&list);
        Ok(())
    }

    /// Takes the first.
    pub(super) fn pop(&self) -> Option<Reference> {
        if self.is_empty() {
            return None;
        }
        let mut list = self.lock();
        let task = list.chain.pop();
        self.publish(&list);
        task
    }

    /// Takes the older half, rounded up, for another worker.
    pub(super) fn take_half(&self) -> Chain {
        if self.is_empty() {
            return Chain::EMPTY;
        }
        let mut list = self.lock();
        let count = list.chain.len.div_ceil(2).min(MOST_AT_ONCE);
        let taken = list.chain.split(count);
        self.publish(&list);
        taken
    }

    /// Takes all.
    pub(super) fn take_all(&self) -> Chain {
        let mut list = self.lock();
        let taken = std::mem::replace(&mut list.chain, Chain::EMPTY);
        self.publish(&list);
        taken
    }

    /// Takes all, and lets no more in.
    pub(super) fn close(&self) -> Chain {
        self.lock().closed = true;
        self.take_all()
    }
}

#[cfg(test)]
mod tests {
    use super::super::nobody::tasks;
    use super::*;

    fn places(mut chain: Chain, tasks: &[*const Header]) -> Vec<usize> {
        let len = chain.len();
        let places: Vec<_> = std::iter::from_fn(|| chain.pop())
            .map(|task| tasks.iter().position(|other| ptr::eq(*other, task.as_ptr().as_ptr())).unwrap())
            .collect();
        assert_eq!(places.len(), len);
        places
    }

    fn with(count: usize) -> (Fresh, Vec<*const Header>) {
        let (fresh, tasks) = (Fresh::default(), tasks(count));
        let headers = tasks.iter().map(|task| task.as_ptr().as_ptr().cast_const()).collect();
        tasks.into_iter().for_each(|task| assert!(fresh.push(task).is_ok()));
        (fresh, headers)
    }

    #[test]
    fn first_come_first_served() {
        let (fresh, tasks) = with(3);
        assert_eq!(fresh.len(), 3);
        let first = fresh.pop().unwrap();
        assert!(ptr::eq(first.as_ptr().as_ptr(), tasks[0]));
        assert_eq!(places(fresh.take_all(), &tasks), [1, 2]);
        assert!(fresh.is_empty() && fresh.pop().is_none());
    }

    #[test]
    fn a_thief_takes_the_older_half_and_at_least_one_but_never_too_many() {
        let (fresh, tasks) = with(5);
        assert_eq!(places(fresh.take_half(), &tasks), [0, 1, 2]);
        assert_eq!(places(fresh.take_half(), &tasks), [3]);
        assert_eq!(places(fresh.take_half(), &tasks), [4]);
        assert_eq!(fresh.take_half().len(), 0);
        let (fresh, tasks) = with(300);
        assert_eq!(places(fresh.take_half(), &tasks).len(), MOST_AT_ONCE);
        assert_eq!(places(fresh.take_all(), &tasks), (MOST_AT_ONCE..300).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_taken_comes_behind_what_is_there() {
        let (mine, first) = with(1);
        let (theirs, tasks) = with(3);
        assert!(mine.append(theirs.take_half()).is_ok());
        assert!(ptr::eq(mine.pop().unwrap().as_ptr().as_ptr(), first[0]));
        assert_eq!(places(mine.take_all(), &tasks), [0, 1]);
        assert_eq!(places(theirs.take_all(), &tasks), [2]);
    }

    #[test]
    fn what_is_closed_gives_back_what_it_gets() {
        let (fresh, headers) = with(2);
        assert_eq!(places(fresh.close(), &headers), [0, 1]);
        let back = fresh.push(tasks(1).remove(0)).unwrap_err();
        let (other, one) = with(1);
        assert!(fresh.append(other.take_all()).is_err_and(|chain| places(chain, &one) == [0]));
        assert!(fresh.is_empty() && fresh.pop().is_none());
        drop(back);
    }
}
