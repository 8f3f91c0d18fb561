//! Drivers: how a worker asks the kernel for I/O, and sleeps until it answers.
//!
//! This room knows task headers (through [`Unparker`](crate::task::Unparker)) and nothing else of the runtime.
//!
//! What can be asked for now is readiness, with these operations, and [`epoll`] answers them:
//!
//! - *wait*: park until a descriptor can be read or written, or a deadline has come ([`Source::wait`]);
//! - *forget*: before a descriptor is closed or leaves the runtime ([`Source::forget`]);
//! - *poll*: collect what has become ready, sleeping if there is nothing else to do ([`Driver::poll`]);
//! - *wake*: end such a sleep from another thread ([`Waker::wake`]).
//!
//! There is no trait over drivers yet: the one that is to come speaks of whole operations (accept, recv, send ...), so
//! that a completion-based kernel interface can answer it; a trait over readiness would be in its way.
//!
//! A descriptor does not belong to a driver. It may be waited for in tasks of several runtimes and in plain threads:
//! each driver that meets it registers it for itself, and where no task can be switched away, [`poll`] blocks.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::task;

mod epoll;
mod poll;

pub(crate) use epoll::{Driver, Events, Waker};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

thread_local! {
    /// The driver of the worker whose thread this is.
    static CURRENT: RefCell<Option<Driver>> = const { RefCell::new(None) };
}

/// Ends, when dropped, that a driver serves this thread.
pub(crate) struct Entered(());

impl Driver {
    /// Lets this driver serve the tasks of this thread. `None` if the thread is ending.
    pub(crate) fn enter(&self) -> Option<Entered> {
        CURRENT.try_with(|current| current.replace(Some(self.clone()))).ok()?;
        Some(Entered(()))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // On a thread that is ending there may be nothing left to take back.
        let _ = CURRENT.try_with(|current| current.take());
    }
}

/// What the drivers know of one descriptor. Kept beside the descriptor, by whoever owns it.
#[derive(Default)]
pub(crate) struct Source {
    /// One for each driver that has met the descriptor: one, as a rule.
    registrations: Mutex<Vec<epoll::Registration>>,
}

impl Source {
    /// Waits until the descriptor can be read or written, has failed, or has been hung up; the caller tries again then,
    /// and comes back if that was not so.
    ///
    /// To be called after an attempt that would have blocked, without a switch between, or else the event may be gone.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline, or the error of registering the descriptor, or that of a wait that is [cancelled].
    ///
    /// [cancelled]: crate::Cancelled
    pub(crate) fn wait(
        &self,
        descriptor: BorrowedFd<'_>,
        direction: Direction,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        task::cancel::check_cancelled()?;
        let driver = if task::can_suspend() {
            CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
        } else {
            None
        };
        match driver {
            Some(driver) => {
                let token = self.register(&driver, descriptor)?;
                driver.wait(token, direction, deadline)
            }
            None => {
                let limited = task::limited(deadline);
                match poll::wait(descriptor, direction, limited) {
                    // Which of the two it was: if the operation's own, the caller's limits have not come yet.
                    Err(error) if limited != deadline && error.kind() == io::ErrorKind::TimedOut => {
                        task::cancel::check_cancelled()?;
                        Err(error)
                    }
                    waited => waited,
                }
            }
        }
    }

    /// Ends all registrations. The owner calls it before it closes the descriptor or gives it away: a duplicate of the
    /// descriptor would keep them alive.
    pub(crate) fn forget(&mut self, descriptor: BorrowedFd<'_>) {
        for registration in self.lock().drain(..) {
            registration.end(descriptor);
        }
    }

    fn register(&self, driver: &Driver, descriptor: BorrowedFd<'_>) -> io::Result<epoll::Token> {
        let mut registrations = self.lock();
        if let Some(known) = registrations.iter().find(|registration| registration.is_with(driver)) {
            return Ok(known.token());
        }
        // Runtimes that have ended since.
        registrations.retain(epoll::Registration::is_alive);
        let registration = driver.register(descriptor)?;
        let token = registration.token();
        registrations.push(registration);
        Ok(token)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<epoll::Registration>> {
        // No foreign code runs under this lock, so poison means nothing.
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of an operation whose time is up.
fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the operation's timeout has elapsed")
}
