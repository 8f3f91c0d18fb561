//! The stacks of one worker's tasks: taken from their pool at a task's first run, given back when it is over.

use switchback::stack::{self, Pool, Pooled};

#[derive(Default)]
pub(super) struct Stacks {
    /// The pool that was used last, and the size that was asked of it.
    last: Option<(usize, Pool)>,
}

impl Stacks {
    /// A stack with at least the given reserve in bytes: without a system call if one is kept.
    pub(super) fn take(&mut self, reserve: usize) -> Result<Pooled, stack::Error> {
        let pool = match self.last {
            Some((size, pool)) if size == reserve => pool,
            _ => Pool::of(reserve)?,
        };
        self.last = Some((reserve, pool));
        pool.take()
    }
}
