//! The living tasks of one worker, in the order in which they were spawned, chained through their headers. Each stands for
//! one count of its header.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::task::{Header, Mine, Reference};

pub(super) struct Alive {
    first: Cell<*const Header>,
    last: Cell<*const Header>,
    len: Cell<usize>,
}

impl Default for Alive {
    fn default() -> Alive {
        Alive { first: Cell::new(ptr::null()), last: Cell::new(ptr::null()), len: Cell::new(0) }
    }
}

impl Alive {
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// Takes over a count of a new task of this worker.
    pub(super) fn insert(&self, task: Reference) -> Mine {
        // SAFETY: it is alive from now on, and this worker's.
        let task = unsafe { Mine::new(task.into_raw()) };
        let this: *const Header = task.as_ptr().as_ptr();
        let last = self.last.replace(this);
        task.own().before.set(last);
        match at(last) {
            Some(last) => last.own().after.set(this),
            None => self.first.set(this),
        }
        self.len.set(self.len.get() + 1);
        task
    }

    pub(super) fn first(&self) -> Option<Mine> {
        at(self.first.get())
    }

    /// Takes a task out, with its count.
    pub(super) fn remove(&self, task: Mine) -> Reference {
        let (before, after) = (task.own().before.get(), task.own().after.get());
        match at(before) {
            Some(before) => before.own().after.set(after),
            None => self.first.set(after),
        }
        match at(after) {
            Some(after) => after.own().before.set(before),
            None => self.last.set(before),
        }
        self.len.set(self.len.get() - 1);
        // SAFETY: the count that was taken over.
        unsafe { Reference::from_raw(task.as_ptr()) }
    }
}

/// What a link leads to.
fn at(link: *const Header) -> Option<Mine> {
    // SAFETY: links lead to living tasks of this worker alone.
    NonNull::new(link.cast_mut()).map(|task| unsafe { Mine::new(task) })
}
