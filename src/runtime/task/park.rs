//! The neck of the hourglass: whatever waits, waits here, and is woken from any thread through an [`Unparker`].

use std::cell::OnceCell;
use std::fmt;
use std::time::Instant;

use super::cancel::Cancelled;
use super::header::{Header, Mine, Owner, Reference};
use super::turns::Turns;
use super::{can_suspend, cell, current};

/// Waits until somebody calls [`Unparker::unpark`] for this task or thread, or has done so since it last waited.
///
/// In a task, the other tasks of the worker run meanwhile. A plain thread blocks, and so does a task that is
/// unwinding. May return early; see the [module](super).
///
/// Costs a switch to whoever is next and three atomic operations in a task; nothing is allocated.
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

/// As [`park`] or [`park_until`], but returns at once with an error if the task is cancelled or out of time, and early if it becomes
/// so: the next call tells.
///
/// # Errors
///
/// [`Cancelled`], without having waited, and with the token left where it is.
///
/// # Examples
///
/// A task that waits for a condition of its own and can be cancelled:
///
/// ```
/// use switchback_runtime::{self as rt, Cancelled, task};
///
/// fn until(mut ready: impl FnMut() -> bool) -> Result<(), Cancelled> {
///     while !ready() {
///         task::park_cancellable(None)?;
///     }
///     Ok(())
/// }
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| assert!(rt::timeout(std::time::Duration::from_millis(1), || until(|| false)).is_err()))
/// # }
/// ```
pub fn park_cancellable(deadline: Option<Instant>) -> Result<(), Cancelled> {
    let deadline = with_own_header(|header| header.interruption().map(|()| header.limited(deadline)))?;
    wait(deadline);
    Ok(())
}

/// The earliest of `deadline` and those that bound the caller's waits.
pub(crate) fn limited(deadline: Option<Instant>) -> Option<Instant> {
    with_own_header(|header| header.limited(deadline))
}

/// Lends the header of the calling task or thread.
pub(super) fn with_own_header<R>(f: impl FnOnce(&Header) -> R) -> R {
    match current() {
        Some(task) => f(&task),
        None => f(&of_this_thread()),
    }
}

/// As [`park_until`] or [`park`].
pub(crate) fn wait(deadline: Option<Instant>) {
    let parked = Turns::with(|turns| match turns.current() {
        Some(task) if can_suspend() => {
            turns.park(task, deadline);
            true
        }
        Some(task) => {
            block(&task, deadline);
            true
        }
        None => false,
    });
    if parked != Some(true) {
        block(&of_this_thread(), deadline);
    }
}

impl Turns {
    #[inline]
    fn park(&self, task: Mine, deadline: Option<Instant>) {
        if !task.start_parking() {
            return;
        }
        let own = task.own();
        own.is_parked.set(true);
        match (deadline, task.scheduler()) {
            (Some(deadline), Some(scheduler)) => {
                let timer = scheduler.set_timer(task, deadline);
                self.switch(task);
                scheduler.cancel_timer(timer);
            }
            _ => self.switch(task),
        }
        own.is_parked.set(false);
        task.take_token();
    }
}

/// Waits without switching away: the thread blocks, and every other task of the worker with it (invariant 5).
fn block(header: &Header, deadline: Option<Instant>) {
    if header.start_blocking() {
        // A thread may have been unparked by way of the standard library, without a token here.
        block_thread(deadline);
        header.take_token();
    }
}

fn block_thread(deadline: Option<Instant>) {
    match deadline {
        None => std::thread::park(),
        Some(deadline) => std::thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
    }
}

/// The header of a plain thread.
fn of_this_thread() -> Reference {
    thread_local! {
        static HEADER: OnceCell<Reference> = const { OnceCell::new() };
    }
    let new = || {
        let function: fn() = || ();
        cell::new(Owner::Thread(std::thread::current()), None, 0, function)
            .map(|[header]| header)
            .unwrap_or_else(|_| std::alloc::handle_alloc_error(std::alloc::Layout::new::<Header>()))
    };
    // A thread that is ending, whose locals are gone, has one for each wait.
    HEADER.try_with(|header| header.get_or_init(new).clone()).unwrap_or_else(|_| new())
}

/// Ends the [`park`] of one task or plain thread. Clones may be kept and used anywhere, for as long as one likes.
///
/// It does not keep the task alive: to unpark a task that is over does nothing.
#[derive(Clone)]
pub struct Unparker(Reference);

impl Unparker {
    /// The unparker of the calling task, or of the calling thread if it is not a task.
    ///
    /// Costs one reference count. The first time on a plain thread an allocation as well, without whose memory the
    /// process aborts, as it would in [`std::thread::current`].
    pub fn current() -> Unparker {
        Unparker(match current() {
            Some(task) => task.to_reference(),
            None => of_this_thread(),
        })
    }

    /// Puts the token there: the task's or thread's [`park`] ends, now or when it next parks.
    ///
    /// What was written before is seen by whoever returns from that park. Costs one atomic operation; if the task
    /// waits, it is queued, which from another thread takes one more and, if the worker sleeps, a system call.
    pub fn unpark(&self) {
        self.0.unpark();
    }

    /// Whether both wake the same task or thread.
    pub(crate) fn is_same(&self, other: &Unparker) -> bool {
        self.0.as_ptr() == other.0.as_ptr()
    }

    pub(super) fn into_reference(self) -> Reference {
        self.0
    }
}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unparker").field(&self.0.name()).finish()
    }
}
