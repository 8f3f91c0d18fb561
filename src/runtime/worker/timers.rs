//! The deadlines of one worker's parked tasks.
//!
//! A balanced tree: setting, cancelling and expiring cost its logarithm, and what is cancelled is gone at once, so the
//! deadline that every read of a server sets and hardly any reaches leaves nothing behind. Timers of the same instant
//! expire in the order in which they were set.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::task::Timer;

/// With what each of them is for.
pub(super) struct Timers<T> {
    set: BTreeMap<Timer, T>,
    serial: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers { set: BTreeMap::new(), serial: 0 }
    }
}

impl<T> Timers<T> {
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    pub(super) fn set(&mut self, deadline: Instant, what: T) -> Timer {
        self.serial += 1;
        let timer = Timer { deadline, serial: self.serial };
        self.set.insert(timer, what);
        timer
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        self.set.remove(&timer);
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(timer, _)| timer.deadline)
    }

    /// Takes out one timer whose deadline has come.
    pub(super) fn expired(&mut self, now: Instant) -> Option<T> {
        let first = self.set.first_entry()?;
        (first.key().deadline <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn expire_in_order_of_deadline_then_of_setting_and_never_early() {
        let mut timers = Timers::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        timers.set(at(2), 0);
        timers.set(at(1), 1);
        timers.set(at(1), 2);
        timers.set(at(3), 3);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.expired(at(0)), None);
        let mut due = Vec::new();
        while let Some(key) = timers.expired(at(2)) {
            due.push(key);
        }
        assert_eq!(due, [1, 2, 0]);
        assert_eq!(timers.next(), Some(at(3)));
    }

    #[test]
    fn a_cancelled_timer_never_expires() {
        let mut timers = Timers::default();
        let now = Instant::now();
        let first = timers.set(now, 0);
        timers.set(now, 1);
        timers.cancel(first);
        assert_eq!(timers.expired(now), Some(1));
        assert_eq!(timers.expired(now), None);
        timers.cancel(first);
        assert_eq!(timers.next(), None);
    }
}
