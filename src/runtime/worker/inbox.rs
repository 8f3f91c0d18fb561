//! What other threads have made ready, and whether the worker sleeps.
//!
//! One short lock guards both, and that is the whole protocol: the worker declares itself asleep only in the same
//! critical section in which it sees that nothing has come, so whoever puts something in either comes before (and the
//! worker stays up) or sees a sleeper (and wakes it). The first to see the sleeper takes the flag down, so a sleeping
//! worker costs its wakers one system call in all, and one that is awake none.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::task::Key;

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Vec<Key>,
    asleep: bool,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under this lock, so poison means nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in a task that is ready. `true`: the caller has to wake the worker.
    pub(super) fn push(&self, key: Key) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.ready.push(key);
        std::mem::take(&mut state.asleep)
    }

    /// Moves everything to the run queue.
    pub(super) fn drain(&self, queue: &mut VecDeque<Key>) {
        queue.extend(self.lock().ready.drain(..));
    }

    /// Declares the worker asleep, unless something is there to be done. To be followed by [`wake_up`](Inbox::wake_up).
    pub(super) fn fall_asleep(&self) -> bool {
        let mut state = self.lock();
        state.asleep = state.ready.is_empty();
        state.asleep
    }

    /// Declares the worker awake.
    pub(super) fn wake_up(&self) {
        self.lock().asleep = false;
    }

    /// From now on nothing is accepted: the worker has ended.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.ready = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_to_find_the_worker_asleep_wakes_it() {
        let inbox = Inbox::default();
        assert!(!inbox.push(Key(1)), "it is awake");
        inbox.drain(&mut VecDeque::new());
        assert!(inbox.fall_asleep());
        assert!(inbox.push(Key(2)));
        assert!(!inbox.push(Key(3)));
        inbox.wake_up();
        assert!(!inbox.push(Key(4)));
        let mut queue = VecDeque::new();
        inbox.drain(&mut queue);
        assert_eq!(queue, [Key(2), Key(3), Key(4)]);
    }

    #[test]
    fn a_worker_does_not_fall_asleep_over_what_has_come_since_it_looked() {
        let inbox = Inbox::default();
        inbox.drain(&mut VecDeque::new());
        inbox.push(Key(1));
        assert!(!inbox.fall_asleep());
        assert!(!inbox.push(Key(2)), "it stays awake");
    }

    #[test]
    fn a_closed_inbox_takes_nothing_and_wakes_nobody() {
        let inbox = Inbox::default();
        inbox.push(Key(1));
        inbox.fall_asleep();
        inbox.close();
        assert!(!inbox.push(Key(2)));
        let mut queue = VecDeque::new();
        inbox.drain(&mut queue);
        assert_eq!(queue, []);
    }
}
