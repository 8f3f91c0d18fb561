//! Cancellation and deadlines: why a wait ends before what is waited for has come.
//!
//! A request to cancel is a flag of the header, set from any thread and never taken back; whoever sets it unparks the task as well.
//! A deadline that bounds code ([`timeout`]) is a *limit*: the task's limits are chained through their places on its own stack, which
//! only the task itself looks at (invariant 3). A [`shield`] is a limit too, one that hides what is outside of it.
//!
//! Limits need not end in the order in which they began: a coroutine of the user's may be suspended inside one and be resumed after
//! the task has left what was around it, or in another task of the same thread. So the chain goes both ways, each limit takes
//! itself out wherever it is, and it holds a count of the header that it was put into.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::header::Header;
use super::{Unparker, park};

/// The error of a call that would have waited, or would have gone on waiting, in a task that is to end, or in code whose time
/// is up.
///
/// It is *sticky*: once a task is cancelled, every call that may wait answers with it, however often it is tried again, until
/// the task has ended; and so it is inside a [`timeout`](crate::timeout) that has elapsed, until that returns. Clean-up that has to wait
/// goes into a [`shield`](crate::shield).
///
/// As an [`io::Error`] it is never [`Interrupted`](io::ErrorKind::Interrupted), which the standard library would try again for ever:
/// it is [`TimedOut`](io::ErrorKind::TimedOut) if a timeout has elapsed, and else [`Other`](io::ErrorKind::Other) with this as its
/// [inner error](io::Error::get_ref).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    by_timeout: bool,
}

impl Cancelled {
    /// Whether it is a [`timeout`](crate::timeout) around the call that has elapsed, and not the task that is cancelled.
    pub fn is_timeout(&self) -> bool {
        self.by_timeout
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.by_timeout { "the time given to this code has elapsed" } else { "the task was cancelled" })
    }
}

impl Error for Cancelled {}

impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> io::Error {
        let kind = if cancelled.by_timeout { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
        io::Error::new(kind, cancelled)
    }
}

/// What bounds the waits of a part of a task's code.
pub(super) struct Limit {
    kind: Kind,
    /// Whether a wait has been ended by it.
    was_met: Cell<bool>,
    outer: Cell<*const Limit>,
    inner: Cell<*const Limit>,
}

enum Kind {
    Deadline(Instant),
    Shield,
}

/// Those in force, from the innermost outwards, without what a shield hides.
fn in_force(header: &Header) -> impl Iterator<Item = (&Limit, Instant)> {
    let mut next = header.own_limits().get();
    std::iter::from_fn(move || {
        // SAFETY: a limit is in the chain only while it is in its place, on a stack of this thread.
        let limit = unsafe { next.as_ref() }?;
        next = limit.outer.get();
        match limit.kind {
            Kind::Deadline(deadline) => Some((limit, deadline)),
            Kind::Shield => None,
        }
    })
}

fn is_shielded(header: &Header) -> bool {
    let mut next = header.own_limits().get();
    // SAFETY: as in `in_force`.
    while let Some(limit) = unsafe { next.as_ref() } {
        if matches!(limit.kind, Kind::Shield) {
            return true;
        }
        next = limit.outer.get();
    }
    false
}

impl Header {
    /// Requests that the task end. From any thread.
    pub(crate) fn cancel(&self) {
        // Release: whoever finds itself cancelled sees what the canceller did before.
        self.cancelled.store(true, Ordering::Release);
        self.unpark();
    }

    /// Whether it has been requested to end.
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Why the calling task, whose header this is, must not wait now.
    #[inline]
    pub(crate) fn interruption(&self) -> Result<(), Cancelled> {
        if self.own_limits().get().is_null() && !self.is_cancelled() { Ok(()) } else { self.interruption_slow() }
    }

    #[cold]
    fn interruption_slow(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() && !is_shielded(self) {
            return Err(Cancelled { by_timeout: false });
        }
        if self.own_limits().get().is_null() {
            return Ok(());
        }
        let now = Instant::now();
        // The outermost one that has come: what it bounds is over, and the inner ones with it.
        match in_force(self).filter(|(_, deadline)| *deadline <= now).last() {
            Some((limit, _)) => {
                limit.was_met.set(true);
                Err(Cancelled { by_timeout: true })
            }
            None => Ok(()),
        }
    }

    /// The earliest deadline of the calling task's limits and the given one.
    #[inline]
    pub(crate) fn limited(&self, deadline: Option<Instant>) -> Option<Instant> {
        if self.own_limits().get().is_null() {
            return deadline;
        }
        in_force(self).map(|(_, limit)| limit).chain(deadline).min()
    }
}

/// A limit in the chain of a header, which it is taken out of in the end, also when the code that it bounds unwinds.
struct InForce<'a> {
    header: &'a Header,
    limit: &'a Limit,
}

impl<'a> InForce<'a> {
    /// Puts a limit into the chain of the calling task or thread, whose header this must be, as the innermost.
    fn new(header: &'a Header, limit: &'a Limit) -> InForce<'a> {
        let outer = header.own_limits().replace(limit);
        limit.outer.set(outer);
        // SAFETY: it is in the chain.
        if let Some(outer) = unsafe { outer.as_ref() } {
            outer.inner.set(limit);
        }
        InForce { header, limit }
    }
}

impl Drop for InForce<'_> {
    fn drop(&mut self) {
        let (outer, inner) = (self.limit.outer.get(), self.limit.inner.get());
        // SAFETY: neighbours are in the chain.
        let (beyond, within) = unsafe { (outer.as_ref(), inner.as_ref()) };
        match within {
            Some(within) => within.outer.set(outer),
            // On the thread of the header, since neither frames nor coroutines leave it.
            None => self.header.own_limits().set(outer),
        }
        if let Some(beyond) = beyond {
            beyond.inner.set(inner);
        }
    }
}

/// Calls `f` with `kind` in force; says whether it was met.
fn limited<T>(kind: Kind, f: impl FnOnce() -> T) -> (T, bool) {
    let header = Unparker::current().into_reference();
    let none = || Cell::new(ptr::null());
    let limit = Limit { kind, was_met: Cell::new(false), outer: none(), inner: none() };
    let in_force = InForce::new(&header, &limit);
    let value = f();
    drop(in_force);
    (value, limit.was_met.get())
}

/// Calls `f`, whose waits end, with an error, when `duration` is over.
///
/// Whatever waits inside (a sleep, a read, a channel) returns [`Cancelled`] then, or an error made of it, and goes on doing so until
/// `f` returns. Code that computes is not interrupted. Timeouts may be nested; the one that ends first counts, and if several
/// have ended, the outermost says so. On a plain thread it does the same.
///
/// Costs a few words on the stack and two changes of a reference count: the waits inside have a timer each as if they had been given the deadline.
///
/// # Errors
///
/// [`Elapsed`] if a wait inside was ended by the time, with what `f` returned all the same. If `f` never waited beyond the time it
/// has a result as if there had been no timeout, however late it is.
///
/// # Examples
///
/// ```
/// use switchback_runtime::{self as rt, time::{Duration, sleep}};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let slow = rt::timeout(Duration::from_millis(5), || sleep(Duration::from_secs(3600)));
///     assert!(slow.is_err());
///     let quick = rt::timeout(Duration::from_secs(3600), || sleep(Duration::from_millis(1)));
///     assert_eq!(quick, Ok(Ok(())));
/// })
/// # }
/// ```
pub fn timeout<T>(duration: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed<T>> {
    match Instant::now().checked_add(duration) {
        Some(deadline) => timeout_at(deadline, f),
        // Beyond the range of the clock.
        None => Ok(f()),
    }
}

/// As [`timeout`], with the point in time at which waits end.
///
/// # Errors
///
/// As [`timeout`].
pub fn timeout_at<T>(deadline: Instant, f: impl FnOnce() -> T) -> Result<T, Elapsed<T>> {
    match limited(Kind::Deadline(deadline), f) {
        (value, false) => Ok(value),
        (value, true) => Err(Elapsed { value }),
    }
}

/// The error of [`timeout`]: the time was over before the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed<T> {
    value: T,
}

impl<T> Elapsed<T> {
    /// What the code returned after its wait had failed.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> fmt::Display for Elapsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Cancelled { by_timeout: true }.fmt(f)
    }
}

impl<T: fmt::Debug> Error for Elapsed<T> {}

impl<T> From<Elapsed<T>> for io::Error {
    /// [`TimedOut`](io::ErrorKind::TimedOut); the value is dropped.
    fn from(_: Elapsed<T>) -> io::Error {
        Cancelled { by_timeout: true }.into()
    }
}

/// Calls `f`, whose waits are not ended by cancellation or by a [`timeout`] around this call: for clean-up that has to be done.
///
/// A timeout inside `f` counts as ever. A runtime that ends does not spare the code.
///
/// # Examples
///
/// ```
/// use switchback_runtime::{self as rt, time::{Duration, sleep}};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let task = rt::spawn(|| {
///         let cancelled = sleep(Duration::from_secs(3600)).is_err();
///         let cleaned_up = rt::shield(|| sleep(Duration::from_millis(1))).is_ok();
///         (cancelled, cleaned_up)
///     });
///     rt::yield_now(); // let it begin
///     task.cancel();
///     if let Ok(both) = task.join() { // an error, had it not begun yet
///         assert_eq!(both, (true, true));
///     }
/// })
/// # }
/// ```
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    limited(Kind::Shield, f).0
}

/// Whether the current task is to end, or a [`timeout`] around this call has elapsed: for code that computes for long.
///
/// It does not wait and does not yield. On a plain thread there are timeouts only.
///
/// # Errors
///
/// [`Cancelled`] if so.
pub fn check_cancelled() -> Result<(), Cancelled> {
    park::with_own_header(Header::interruption)
}
