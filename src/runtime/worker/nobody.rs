//! For tests: tasks that no worker runs.

use std::time::Instant;

use crate::task::{self, Header, Home, Mine, Reference, Scheduler, Timer};

struct Nobody;

impl Scheduler for Nobody {
    fn ready(&self, _: &Header) {}

    fn unblock(&self) {}

    fn set_timer(&self, _: Mine, deadline: Instant) -> Timer {
        Timer { deadline, serial: 0 }
    }

    fn cancel_timer(&self, _: Timer) {}
}

static HOME: Home = Home(&Nobody);

pub(super) fn tasks(count: usize) -> Vec<Reference> {
    let new = || {
        let [task, _] = task::new(Some(&HOME), None, 0, || ()).map_err(|_| "no memory").unwrap();
        task
    };
    (0..count).map(|_| new()).collect()
}
