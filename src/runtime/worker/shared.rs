//! What other threads may touch of a worker.
//!
//! Whoever has woken a task may still be on the way to wake its worker when the task, and the runtime with it, is over. So
//! this is never freed: it is kept for the next worker, and who comes late wakes that one for nothing. A process has as
//! many of them as it has had workers at the same time.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use super::inbox::Inbox;
use crate::driver::Waker;
use crate::task::Home;

pub(super) struct Shared {
    pub(super) inbox: Inbox,
    /// What its tasks know it by: it leads here.
    home: OnceLock<Home>,
    /// The worker's thread, and how to wake it; `None` between two workers.
    worker: Mutex<Option<(Thread, Waker)>>,
}

/// Those that no worker has.
static FREE: Mutex<Vec<&'static Shared>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No foreign code runs under these locks, so poison means nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// One for a worker on this thread.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub(super) fn take(waker: Waker) -> io::Result<&'static Shared> {
        let free = lock(&FREE).pop();
        let shared = match free {
            Some(shared) => shared,
            None => {
                let mut place = Vec::new();
                place.try_reserve_exact(1)?;
                place.push(Shared { inbox: Inbox::new(), home: OnceLock::new(), worker: Mutex::new(None) });
                &place.leak()[0]
            }
        };
        *lock(&shared.worker) = Some((std::thread::current(), waker));
        shared.inbox.open();
        Ok(shared)
    }

    pub(super) fn home(&'static self) -> &'static Home {
        self.home.get_or_init(|| Home(self))
    }

    /// The worker has ended. None of its tasks may be left, nor anybody who is about to put one into the inbox.
    pub(super) fn give_back(&'static self) {
        self.inbox.close();
        *lock(&self.worker) = None;
        let mut free = lock(&FREE);
        // Without memory it is lost.
        if free.try_reserve(1).is_ok() {
            free.push(self);
        }
    }

    /// Ends a sleep of the worker: this one or, if it does not sleep, the next.
    pub(super) fn wake(&self) {
        if let Some((_, waker)) = &*lock(&self.worker) {
            waker.wake();
        }
    }

    /// Ends a block of the worker's thread.
    pub(super) fn unpark_thread(&self) {
        if let Some((thread, _)) = &*lock(&self.worker) {
            thread.unpark();
        }
    }
}
