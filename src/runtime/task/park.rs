//! The neck of the hourglass: whatever waits, waits here, and is woken from any thread through an [`Unparker`].

use std::fmt;
use std::sync::Arc;
use std::thread::Thread;
use std::time::Instant;

use super::{Current, Header, Suspended, can_suspend, with_current};

/// Waits until somebody calls [`Unparker::unpark`] for this task or thread, or has done so since it last waited.
///
/// In a task, the other tasks of the worker run meanwhile. A plain thread blocks, and so does a task that is
/// unwinding. May return early; see the [module](super).
///
/// Costs two switches and three atomic operations in a task; nothing is allocated.
pub fn park() {
    wait(None);
}

/// As [`park`], but returns when `deadline` has come if nobody unparked before.
///
/// It never returns *because of the deadline* before `deadline`; to tell the reason, ask the clock and your condition.
/// Costs a timer (logarithmic in the number of timers) on top of [`park`].
pub fn park_until(deadline: Instant) {
    wait(Some(deadline));
}

/// As [`park_until`] or [`park`].
pub(crate) fn wait(deadline: Option<Instant>) {
    with_current(|current| match current {
        Some(current) if can_suspend() => current.park(deadline),
        Some(current) => current.block(deadline),
        None => block_thread(deadline),
    });
}

impl Current {
    fn park(&self, deadline: Option<Instant>) {
        if self.header.start_parking() {
            self.suspend(Suspended::Parked(deadline));
            self.header.take_token();
        }
    }

    /// Waits without switching away: the thread blocks, and every other task of the worker with it (invariant 5).
    fn block(&self, deadline: Option<Instant>) {
        if self.header.start_blocking() {
            while !self.header.has_token() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
                block_thread(deadline);
            }
            self.header.take_token();
        }
    }
}

fn block_thread(deadline: Option<Instant>) {
    match deadline {
        None => std::thread::park(),
        Some(deadline) => std::thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
    }
}

/// Ends the [`park`] of one task or plain thread. Clones may be kept and used anywhere, for as long as one likes.
///
/// It does not keep the task alive: to unpark a task that is over does nothing.
#[derive(Clone)]
pub struct Unparker(Sleeper);

#[derive(Clone)]
enum Sleeper {
    Task(Arc<Header>),
    Thread(Thread),
}

impl Unparker {
    /// The unparker of the calling task, or of the calling thread if it is not a task.
    ///
    /// Costs one reference count.
    pub fn current() -> Unparker {
        with_current(|current| match current {
            Some(current) => Unparker(Sleeper::Task(current.header.clone())),
            None => Unparker(Sleeper::Thread(std::thread::current())),
        })
    }

    /// Puts the token there: the task's or thread's [`park`] ends, now or when it next parks.
    ///
    /// What was written before is seen by whoever returns from that park. Costs one atomic operation; if the task
    /// waits, it is queued, which from another thread takes a short lock and, if the worker sleeps, a system call.
    pub fn unpark(&self) {
        match &self.0 {
            Sleeper::Task(header) => header.unpark(),
            Sleeper::Thread(thread) => thread.unpark(),
        }
    }

    /// Whether both wake the same task or thread.
    pub(crate) fn is_same(&self, other: &Unparker) -> bool {
        match (&self.0, &other.0) {
            (Sleeper::Task(a), Sleeper::Task(b)) => Arc::ptr_eq(a, b),
            (Sleeper::Thread(a), Sleeper::Thread(b)) => a.id() == b.id(),
            _ => false,
        }
    }
}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Sleeper::Task(header) => f.debug_tuple("Unparker::Task").field(&header.name()).finish(),
            Sleeper::Thread(thread) => f.debug_tuple("Unparker::Thread").field(&thread.name()).finish(),
        }
    }
}
