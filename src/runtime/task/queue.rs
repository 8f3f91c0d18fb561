//! The run queue: the tasks of one worker that may go on, first come, first served. They are chained through their
//! headers, so to queue one takes no memory.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::header::{Header, Mine};

pub(crate) struct Queue {
    first: Cell<*const Header>,
    last: Cell<*const Header>,
    /// Takes nothing any more: the runtime is ending.
    closed: Cell<bool>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { first: Cell::new(ptr::null()), last: Cell::new(ptr::null()), closed: Cell::new(false) }
    }
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.get().is_null()
    }

    /// Puts a task at the end, which must be in no queue.
    #[inline(always)]
    pub(crate) fn push(&self, task: Mine) {
        let own = task.own();
        debug_assert!(!own.is_queued.get(), "a task is queued twice");
        own.is_queued.set(true);
        if self.closed.get() {
            return;
        }
        own.next.set(ptr::null());
        let task: *const Header = task.as_ptr().as_ptr();
        match NonNull::new(self.last.replace(task).cast_mut()) {
            // SAFETY: it is in the queue, so it is alive and this worker's.
            Some(last) => unsafe { Mine::new(last) }.own().next.set(task),
            None => self.first.set(task),
        }
    }

    /// The first task, which stays.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Option<Mine> {
        // SAFETY: it is in the queue, so it is alive and this worker's.
        NonNull::new(self.first.get().cast_mut()).map(|first| unsafe { Mine::new(first) })
    }

    /// Takes the first task out.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Mine> {
        let first = self.peek()?;
        let next = first.own().next.get();
        self.first.set(next);
        if next.is_null() {
            self.last.set(next);
        }
        first.own().is_queued.set(false);
        Some(first)
    }

    /// Lets go of all tasks, and takes none any more. They still count as queued.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.first.set(ptr::null());
        self.last.set(ptr::null());
    }
}
