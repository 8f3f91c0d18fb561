//! The living tasks of one worker, in the order in which they were spawned, chained through their headers. Each stands for
//! one count of its header.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::task::{Header, Mine, Reference};

pub(super) struct Alive {
    first: Cell<*const Header>,
    last: Cell<*const Header>,
}

impl Default for Alive {
    fn default() -> Alive {
        Alive { first: Cell::new(ptr::null()), last: Cell::new(ptr::null()) }
    }
}

impl Alive {
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
        // SAFETY: the count that was taken over.
        unsafe { Reference::from_raw(task.as_ptr()) }
    }
}

/// What a link leads to.
fn at(link: *const Header) -> Option<Mine> {
    // SAFETY: links lead to living tasks of this worker alone.
    NonNull::new(link.cast_mut()).map(|task| unsafe { Mine::new(task) })
}

#[cfg(test)]
mod tests {
    use super::super::nobody::tasks;
    use super::*;

    #[test]
    fn tasks_come_in_and_go_out_in_any_order() {
        // Every order in which three can go, with one more that comes after each.
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let alive = Alive::default();
            let mut inside: Vec<Mine> = tasks(3).into_iter().map(|task| alive.insert(task)).collect();
            let first_three = inside.clone();
            for place in order {
                drop(alive.remove(first_three[place]));
                inside.retain(|task| *task != first_three[place]);
                inside.extend(tasks(1).into_iter().map(|task| alive.insert(task)));
                assert!(chain(&alive) == inside, "after {order:?}, up to {place}");
            }
            for left in inside {
                assert!(alive.first() == Some(left), "the oldest of those that are left");
                drop(alive.remove(left));
            }
            assert!(alive.first().is_none() && alive.last.get().is_null());
        }
    }

    fn chain(alive: &Alive) -> Vec<Mine> {
        std::iter::successors(alive.first(), |task| at(task.own().after.get())).collect()
    }
}
