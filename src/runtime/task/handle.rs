//! The result of a task, and whoever waits for it.
//!
//! # The word
//!
//! Task and handle agree through one word of the header:
//!
//! | value | meaning | who sets it |
//! |---|---|---|
//! | null | the task is not over, and its handle does not wait | |
//! | a header | the one of who waits; one count of it is the word's | the handle |
//! | a header, marked `NEAR` | that of a task of the same worker, which waits until it is taken out again | the handle |
//! | `OVER` | the task is over, its result is the handle's | the task |
//! | `DETACHED` | there is no handle any more | the handle |
//!
//! Each side makes one swap at its end, and whoever comes second has the result: the handle to give or drop it, the task to
//! drop it. A waiting task of the same worker needs no count: whoever finds it in the word is on its thread, where it cannot
//! end meanwhile. What was written before the swap is a release, what is read after it an acquire.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use switchback::stack;

use super::header::{Header, Mine, Reference};
use super::{Cancelled, Unparker, can_suspend, current, park_cancellable};

const OVER: *mut Header = ptr::without_provenance_mut(2);
const DETACHED: *mut Header = ptr::without_provenance_mut(4);
/// The bit of an address that no header has.
const NEAR: usize = 1;
const _: () = assert!(align_of::<Header>() > NEAR);

/// Who waits, as the word has it.
enum Joiner {
    Far(Reference),
    Near(NonNull<Header>),
}

impl Joiner {
    /// # Safety
    ///
    /// The word must be what [`into_word`](Joiner::into_word) gave, and have been taken out.
    unsafe fn from_word(word: *mut Header) -> Option<Joiner> {
        let header = NonNull::new(word.map_addr(|address| address & !NEAR))?;
        Some(match word.addr() & NEAR {
            // SAFETY: the word's count.
            0 => Joiner::Far(unsafe { Reference::from_raw(header) }),
            _ => Joiner::Near(header),
        })
    }

    fn into_word(self) -> *mut Header {
        match self {
            Joiner::Far(header) => header.into_raw().as_ptr(),
            Joiner::Near(header) => header.as_ptr().map_addr(|address| address | NEAR),
        }
    }

    /// The calling task or thread, as one that waits for `task`.
    ///
    /// # Errors
    ///
    /// Why it would wait for ever.
    #[inline]
    fn current(task: &Reference) -> Result<Joiner, &'static str> {
        if !task.runs_here() {
            return Ok(Joiner::Far(Unparker::current().into_reference()));
        }
        match current() {
            Some(current) if current.as_ptr() == task.as_ptr() => Err("a task cannot join itself"),
            Some(current) if can_suspend() => Ok(Joiner::Near(current.as_ptr())),
            _ => Err("it cannot run on while a destructor of the same worker waits for it"),
        }
    }

    fn unpark(self) {
        match self {
            Joiner::Far(header) => header.unpark(),
            // SAFETY: it waits, and cannot go on before the caller, who is on its thread, switches.
            Joiner::Near(header) => unsafe { header.as_ref() }.unpark(),
        }
    }
}

/// What has become of a result that was delivered.
#[derive(PartialEq)]
pub(super) enum End {
    /// It is the handle's.
    Wanted,
    /// There is no handle: the task drops it.
    Unwanted,
}

/// Says that the task is over and its result in its place.
pub(super) fn end(task: Mine) -> End {
    match task.joiner.swap(OVER, Ordering::AcqRel) {
        DETACHED => End::Unwanted,
        joiner => {
            // SAFETY: it has been taken out.
            if let Some(joiner) = unsafe { Joiner::from_word(joiner) } {
                joiner.unpark();
            }
            End::Wanted
        }
    }
}

/// Owns the right to wait for a task and to have its result. Dropping it leaves the task running on its own.
///
/// It may be sent to, and used in, any task of any runtime and any plain thread.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// let sum = rt::run(|| {
///     let task = rt::spawn(|| (1..=10).sum::<u32>());
///     task.join().unwrap()
/// })?;
/// assert_eq!(sum, 55);
/// # Ok(()) }
/// ```
pub struct JoinHandle<T> {
    task: Task,
    /// It may be shared and sent if the result may be sent: only who consumes the handle comes by it.
    _result: PhantomData<Mutex<T>>,
}

enum Task {
    Spawned(Reference),
    /// It was refused before it was one. Nothing if that has been said.
    Refused {
        name: Option<Box<str>>,
        cause: Option<Cause>,
    },
}

impl<T> JoinHandle<T> {
    /// The handle of a task that delivers a `T`. There is one for each task.
    pub(crate) fn new(task: Reference) -> JoinHandle<T> {
        JoinHandle { task: Task::Spawned(task), _result: PhantomData }
    }

    /// The handle of what cannot become a task.
    pub(crate) fn refused(name: Option<Box<str>>, cause: Cause) -> JoinHandle<T> {
        JoinHandle { task: Task::Refused { name, cause: Some(cause) }, _result: PhantomData }
    }

    /// Waits until the task is over and returns what its function returned.
    ///
    /// In a task the others run meanwhile; a plain thread blocks. A task that is over already gives its result even to a caller
    /// that is cancelled.
    ///
    /// # Errors
    ///
    /// If there is no such value, [`JoinError`] says why: the task panicked, it was cancelled before it began or because its
    /// runtime ended, or it never ran because no stack could be had. The same error type says that the waiting is over and the task
    /// is not, which is then left to itself: when the *caller* is cancelled or out of time ([`is_interrupted`](JoinError::is_interrupted);
    /// [`join_until`](JoinHandle::join_until) gives the handle back then); and when waiting would never end: a task joins itself, or
    /// code that may not switch (a destructor that runs while its task unwinds) joins an unfinished task of the same worker.
    pub fn join(mut self) -> Result<T, JoinError> {
        match self.wait(None) {
            Ok(()) => self.result(),
            Err(cause) => Err(self.error(cause)),
        }
    }

    /// As [`join`](JoinHandle::join), but gives the handle back if the task is not over when `deadline` comes, or the caller is
    /// [cancelled](crate::check_cancelled) meanwhile.
    ///
    /// # Errors
    ///
    /// The handle, if the task is not over.
    ///
    /// # Examples
    ///
    /// ```
    /// use switchback_runtime::{self as rt, time::{Duration, Instant, sleep}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// rt::run(|| {
    ///     let slow = rt::spawn(|| sleep(Duration::from_secs(3600)));
    ///     let slow = slow.join_until(Instant::now() + Duration::from_millis(1)).unwrap_err();
    ///     slow.cancel();
    ///     assert!(!matches!(slow.join(), Ok(Ok(()))));
    /// })
    /// # }
    /// ```
    pub fn join_until(mut self, deadline: Instant) -> Result<Result<T, JoinError>, JoinHandle<T>> {
        match self.wait(Some(deadline)) {
            Ok(()) => Ok(self.result()),
            Err(Cause::Interrupted(_)) => Err(self),
            Err(cause) => Ok(Err(self.error(cause))),
        }
    }

    /// As [`join_until`](JoinHandle::join_until), for at most `duration`.
    ///
    /// # Errors
    ///
    /// As [`join_until`](JoinHandle::join_until).
    pub fn join_timeout(mut self, duration: Duration) -> Result<Result<T, JoinError>, JoinHandle<T>> {
        match Instant::now().checked_add(duration) {
            Some(deadline) => self.join_until(deadline),
            None => match self.wait(None) {
                Ok(()) => Ok(self.result()),
                Err(Cause::Interrupted(_)) => Err(self),
                Err(cause) => Ok(Err(self.error(cause))),
            },
        }
    }

    /// Requests that the task end; does not wait for that.
    ///
    /// A task that has not begun will not: its function is dropped when its turn comes, and the handle says that it was cancelled. In
    /// one that has, the call in which it waits, or the next one that may, returns [`Cancelled`], and so do all that come after it,
    /// except in a [`shield`](crate::shield). What its function returns then is its result as ever. May be called at any time, from
    /// anywhere, and again; it cannot be taken back.
    ///
    /// # Examples
    ///
    /// ```
    /// use switchback_runtime::{self as rt, time::{Duration, sleep}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// rt::run(|| {
    ///     let task = rt::spawn(|| sleep(Duration::from_secs(3600)));
    ///     task.cancel();
    ///     match task.join() {
    ///         Ok(slept) => assert!(slept.is_err()),
    ///         Err(error) => assert!(error.is_cancelled()), // it had not begun
    ///     }
    /// })
    /// # }
    /// ```
    pub fn cancel(&self) {
        if let Task::Spawned(task) = &self.task {
            task.cancel();
        }
    }

    /// Waits until the task is over. After an error the word is as it was before.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<(), Cause> {
        let Task::Spawned(task) = &self.task else { return Ok(()) };
        // Acquire: whoever sees that it is over sees the result.
        let is_over = || task.joiner.load(Ordering::Acquire) == OVER;
        if is_over() {
            return Ok(());
        }
        let me = Joiner::current(task).map_err(Cause::Endless)?.into_word();
        // Release: the task finds a whole header.
        if task.joiner.compare_exchange(ptr::null_mut(), me, Ordering::Release, Ordering::Acquire).is_err() {
            // SAFETY: it did not become the word's.
            drop(unsafe { Joiner::from_word(me) });
            return Ok(());
        }
        loop {
            if is_over() {
                return Ok(());
            }
            let interrupted = match park_cancellable(deadline) {
                Ok(()) if deadline.is_none_or(|deadline| Instant::now() < deadline) => continue,
                Ok(()) => None,
                Err(cancelled) => Some(cancelled),
            };
            // If it fails, the task is over after all, and has taken us out.
            if task.joiner.compare_exchange(me, ptr::null_mut(), Ordering::Acquire, Ordering::Acquire).is_ok() {
                // SAFETY: it has been taken out.
                drop(unsafe { Joiner::from_word(me) });
                return Err(Cause::Interrupted(interrupted));
            }
            return Ok(());
        }
    }

    /// The result of a task that is over.
    fn result(&mut self) -> Result<T, JoinError> {
        let task = match &mut self.task {
            Task::Spawned(task) => task,
            Task::Refused { name, cause } => {
                let cause = cause.take().unwrap_or(Cause::Cancelled);
                return Err(JoinError { name: name.take(), cause });
            }
        };
        let mut result: Option<Result<T, Cause>> = None;
        // SAFETY: it is over and delivers a `T`.
        unsafe { (task.vtable.take)(task.as_ptr(), (&raw mut result).cast()) };
        let result = result.unwrap_or(Err(Cause::Cancelled)).map_err(|cause| task.error(cause));
        // There is nothing left to take; what remains to be dropped is the count.
        self.task = Task::Refused { name: None, cause: None };
        result
    }

    fn error(&self, cause: Cause) -> JoinError {
        JoinError { name: self.name().map(Box::from), cause }
    }

    /// Whether the task is over, so that [`join`](JoinHandle::join) would return at once. Never waits.
    pub fn is_finished(&self) -> bool {
        match &self.task {
            Task::Spawned(task) => task.joiner.load(Ordering::Acquire) == OVER,
            Task::Refused { .. } => true,
        }
    }

    /// The name the task was given with [`Builder::name`](crate::Builder::name).
    pub fn name(&self) -> Option<&str> {
        match &self.task {
            Task::Spawned(task) => task.name(),
            Task::Refused { name, .. } => name.as_deref(),
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let Task::Spawned(task) = &self.task else { return };
        match task.joiner.swap(DETACHED, Ordering::AcqRel) {
            OVER => {
                let mut result: Option<Result<T, Cause>> = None;
                // SAFETY: it is over and delivers a `T`.
                unsafe { (task.vtable.take)(task.as_ptr(), (&raw mut result).cast()) };
            }
            // Our own, if the wait has been unwound.
            // SAFETY: it has been taken out.
            joiner => drop(unsafe { Joiner::from_word(joiner) }),
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("name", &self.name()).field("finished", &self.is_finished()).finish()
    }
}

/// Why a task has no result.
pub struct JoinError {
    name: Option<Box<str>>,
    cause: Cause,
}

pub(crate) enum Cause {
    /// The mutex makes the payload shareable, so that the error fits into a [`std::io::Error`].
    Panic(Mutex<Box<dyn Any + Send>>),
    Cancelled,
    NoStack(stack::Error),
    NoMemory,
    /// No thread for what may block.
    NoThread(io::Error),
    /// There were as many tasks as the runtime was to have.
    TooMany(usize),
    /// Not the task's fault: the caller was cancelled; `None` if its own deadline came.
    Interrupted(Option<Cancelled>),
    /// Not the task's fault: the call of `join` would not have returned.
    Endless(&'static str),
}

impl Header {
    fn error(&self, cause: Cause) -> JoinError {
        JoinError { name: self.name().map(Box::from), cause }
    }
}

impl JoinError {
    pub(crate) fn cause(&self) -> &Cause {
        &self.cause
    }

    pub(crate) fn into_cause(self) -> Cause {
        self.cause
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.cause, Cause::Panic(_))
    }

    /// Whether the task was ended because its runtime ended, or never begun because of that or of [`JoinHandle::cancel`].
    pub fn is_cancelled(&self) -> bool {
        matches!(self.cause, Cause::Cancelled)
    }

    /// Whether it is the *caller* of `join` that was cancelled, or out of time, while the task was not over yet.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.cause, Cause::Interrupted(_))
    }

    /// What the task panicked with, as [`std::thread::JoinHandle::join`] would return it.
    ///
    /// # Panics
    ///
    /// If it did not panic. [`try_into_panic`](JoinError::try_into_panic) gives the error back instead.
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("not the error of a panic: {error}"),
        }
    }

    /// What the task panicked with.
    ///
    /// # Errors
    ///
    /// This error again, if the task did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send + 'static>, JoinError> {
        match self.cause {
            Cause::Panic(payload) => Ok(payload.into_inner().unwrap_or_else(PoisonError::into_inner)),
            cause => Err(JoinError { name: self.name, cause }),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "task '{name}' ")?,
            None => write!(f, "task ")?,
        }
        match &self.cause {
            Cause::Panic(payload) => {
                let payload = payload.lock().unwrap_or_else(PoisonError::into_inner);
                match message(&**payload) {
                    Some(message) => write!(f, "panicked: {message}"),
                    None => write!(f, "panicked"),
                }
            }
            Cause::Cancelled => write!(f, "was cancelled"),
            Cause::NoStack(error) => write!(f, "could not get a stack: {error}"),
            Cause::NoMemory => write!(f, "was refused: no memory for the records of one more task"),
            Cause::NoThread(error) => {
                write!(
                    f,
                    "could not get a thread to block: {error}: raise the limit of processes (`ulimit -u`) or of the control group"
                )
            }
            Cause::TooMany(limit) => {
                write!(f, "was refused: {limit} tasks are alive: raise `max_tasks` of the runtime")
            }
            Cause::Interrupted(Some(cancelled)) => write!(f, "was not waited for to its end: {cancelled}"),
            Cause::Interrupted(None) => write!(f, "was not waited for to its end: the deadline has come"),
            Cause::Endless(why) => write!(f, "cannot be waited for: {why}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::NoStack(error) => Some(error),
            _ => None,
        }
    }
}

/// The message of a panic, if it was made by `panic!` as usual.
fn message(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<&'static str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}
