//! The stacks of one worker's tasks: acquired at a task's first run, kept for the next one when it is over.

use switchback::stack::{self, Mapped};

/// Stacks kept for reuse, last in, first out, so that the one handed out is the one whose pages are in the cache.
///
/// A stack that is kept holds the pages its tasks have touched (8 KiB or so for most). 256 of them cost 2 MiB and two
/// mappings each, and cover the ups and downs of a server; a larger swing pays the system calls.
const KEPT: usize = 256;

#[derive(Default)]
pub(super) struct Stacks {
    /// All of the default reserve.
    kept: Vec<Mapped>,
    in_use: usize,
}

impl Stacks {
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    pub(super) fn cached(&self) -> usize {
        self.kept.len()
    }

    /// A stack with at least the given reserve in bytes: without a system call if one is kept.
    pub(super) fn take(&mut self, reserve: usize) -> Result<Mapped, stack::Error> {
        let kept = if reserve == stack::DEFAULT_RESERVE { self.kept.pop() } else { None };
        let stack = match kept {
            Some(stack) => stack,
            None => Mapped::new(reserve)?,
        };
        self.in_use += 1;
        Ok(stack)
    }

    /// Takes back the stack of a task that is over; `reserve` as in [`take`](Stacks::take).
    pub(super) fn give_back(&mut self, stack: Option<Mapped>, reserve: usize) {
        self.in_use -= 1;
        if let Some(stack) = stack
            && reserve == stack::DEFAULT_RESERVE
            && self.kept.len() < KEPT
        {
            self.kept.push(stack);
        }
    }

    /// Notes that a stack handed out has been unmapped.
    pub(super) fn gone(&mut self) {
        self.in_use -= 1;
    }
}
