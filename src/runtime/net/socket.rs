//! A descriptor in non-blocking mode, and the one loop in which every operation tries, waits and tries again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::driver::{Direction, Source};
use crate::task;

/// A descriptor of type `S` together with what the drivers know of it.
pub(crate) struct Socket<S: AsFd> {
    /// `None` only between [`into_inner`](Socket::into_inner) and the drop that follows it.
    inner: Option<S>,
    source: Source,
}

impl<S: AsFd> Socket<S> {
    /// The descriptor must be in non-blocking mode, or else its operations block the thread.
    pub(crate) fn new(inner: S) -> Socket<S> {
        Socket { inner: Some(inner), source: Source::default() }
    }

    pub(crate) fn get(&self) -> &S {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("a socket that has been taken apart is not used"),
        }
    }

    /// Takes the descriptor out; no driver knows it any more.
    pub(crate) fn into_inner(mut self) -> S {
        self.forget();
        match self.inner.take() {
            Some(inner) => inner,
            None => unreachable!("a socket is taken apart once"),
        }
    }

    /// Does `operation`, waiting as often as it says `WouldBlock`, for `timeout` in all.
    ///
    /// The clock is read only if there is something to wait for.
    pub(crate) fn perform<T>(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
        mut operation: impl FnMut(&S) -> io::Result<T>,
    ) -> io::Result<T> {
        task::cancel::check_cancelled()?;
        task::spend_budget();
        let mut deadline = None;
        loop {
            match operation(self.get()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => return done,
            }
            if deadline.is_none() {
                // A timeout beyond the clock's range is none.
                deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            }
            self.wait(direction, deadline)?;
        }
    }

    /// Waits once, as [`Source::wait`] does.
    pub(crate) fn wait(&self, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
        self.source.wait(self.as_fd(), direction, deadline)
    }

    fn forget(&mut self) {
        if let Some(inner) = &self.inner {
            self.source.forget(inner.as_fd());
        }
    }
}

impl<S: AsFd> AsFd for Socket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }
}

impl<S: AsFd> Drop for Socket<S> {
    fn drop(&mut self) {
        self.forget();
    }
}
