//! Waiting for one descriptor by blocking the thread: for plain threads, and for tasks that may not switch.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Direction, timed_out};

/// The longest single wait, so that the timeout is one that every kernel takes. Nothing else depends on it.
const LONGEST: Duration = Duration::from_secs(3600);

/// As [`Source::wait`](super::Source::wait).
pub(super) fn wait(descriptor: BorrowedFd<'_>, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
    let events = match direction {
        Direction::Read => PollFlags::IN | PollFlags::RDHUP,
        Direction::Write => PollFlags::OUT,
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).min(LONGEST));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, events)], timeout.as_ref()) {
            Ok(0) if left == Some(Duration::ZERO) => return Err(timed_out()),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
