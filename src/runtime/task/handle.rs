//! The result of a task, and whoever waits for it.
//!
//! Task and handle share a packet. The task's side of it is a [`Completer`], which delivers "cancelled" when it is
//! dropped before anything else was delivered: so a job that was never started and a task that was unwound need no
//! further care.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchback::stack;

use super::{Header, Job, Unparker, can_suspend, is_unwinding, park, with_current};

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
    packet: Arc<Packet<T>>,
}

struct Packet<T> {
    header: Arc<Header>,
    state: Mutex<State<T>>,
}

struct State<T> {
    finished: bool,
    result: Option<Result<T, JoinError>>,
    /// Only one can wait, since [`JoinHandle::join`] takes the handle.
    joiner: Option<Unparker>,
}

impl<T> Packet<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No foreign code runs under this lock, so poison means nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, result: Result<T, JoinError>) {
        let joiner = {
            let mut state = self.lock();
            state.finished = true;
            state.result = Some(result);
            state.joiner.take()
        };
        if let Some(joiner) = joiner {
            joiner.unpark();
        }
    }
}

impl<T> JoinHandle<T> {
    /// Waits until the task is over and returns what its function returned.
    ///
    /// In a task the others run meanwhile; a plain thread blocks.
    ///
    /// # Errors
    ///
    /// If there is no such value, [`JoinError`] says why: the task panicked, it was cancelled because its runtime
    /// ended, or it never ran because no stack could be had. The same error type says that waiting would never end:
    /// when a task joins itself, or when code that may not switch (a destructor that runs while its task unwinds)
    /// joins an unfinished task of the same worker.
    pub fn join(self) -> Result<T, JoinError> {
        loop {
            let mut state = self.packet.lock();
            if let Some(result) = state.result.take() {
                return result;
            }
            if let Some(why) = self.would_never_end() {
                return Err(self.packet.header.error(Cause::Endless(why)));
            }
            state.joiner = Some(Unparker::current());
            drop(state);
            park();
        }
    }

    /// Whether the task is over, so that [`join`](JoinHandle::join) would return at once. Never waits.
    pub fn is_finished(&self) -> bool {
        self.packet.lock().finished
    }

    /// The name the task was given with [`Builder::name`](crate::Builder::name).
    pub fn name(&self) -> Option<&str> {
        self.packet.header.name()
    }

    fn would_never_end(&self) -> Option<&'static str> {
        let header = &self.packet.header;
        if with_current(|current| current.is_some_and(|current| Arc::ptr_eq(&current.header, header))) {
            return Some("a task cannot join itself");
        }
        if header.runs_here() && !can_suspend() {
            return Some("it cannot run on while a destructor of the same worker waits for it");
        }
        None
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("name", &self.name()).field("finished", &self.is_finished()).finish()
    }
}

/// The two ends of a task's result.
pub(crate) fn packet<T>(header: Arc<Header>) -> (Completer<T>, JoinHandle<T>) {
    let state = Mutex::new(State { finished: false, result: None, joiner: None });
    let packet = Arc::new(Packet { header, state });
    (Completer { packet: packet.clone(), delivered: false }, JoinHandle { packet })
}

/// The task's end of its result.
pub(crate) struct Completer<T> {
    packet: Arc<Packet<T>>,
    delivered: bool,
}

impl<T> Completer<T> {
    fn deliver(mut self, result: Result<T, Cause>) {
        self.delivered = true;
        self.packet.deliver(result.map_err(|cause| self.packet.header.error(cause)));
    }

    /// Delivers that the worker has no room for one more task.
    pub(crate) fn refuse_for_lack_of_memory(self) {
        self.deliver(Err(Cause::NoMemory));
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        if !self.delivered {
            self.packet.deliver(Err(self.packet.header.error(Cause::Cancelled)));
        }
    }
}

/// The job of a spawned task: calls a function and delivers what becomes of it.
pub(crate) struct Call<F, T> {
    pub(crate) function: F,
    pub(crate) completer: Completer<T>,
}

impl<F: FnOnce() -> T, T> Job for Call<F, T> {
    fn run(self: Box<Self>) {
        let Call { function, completer } = *self;
        match catch_unwind(AssertUnwindSafe(function)) {
            // Also when the runtime is ending: what was achieved in spite of that is reported.
            Ok(value) => completer.deliver(Ok(value)),
            Err(payload) if is_unwinding() => {
                drop(completer);
                resume_unwind(payload);
            }
            Err(payload) => completer.deliver(Err(Cause::Panic(Mutex::new(payload)))),
        }
    }

    fn refuse(self: Box<Self>, error: stack::Error) {
        self.completer.deliver(Err(Cause::NoStack(error)));
    }
}

/// Why a task has no result.
pub struct JoinError {
    name: Option<Box<str>>,
    cause: Cause,
}

enum Cause {
    /// The mutex makes the payload shareable, so that the error fits into a [`std::io::Error`].
    Panic(Mutex<Box<dyn Any + Send>>),
    Cancelled,
    NoStack(stack::Error),
    NoMemory,
    /// Not the task's fault: the call of `join` would not have returned.
    Endless(&'static str),
}

impl Header {
    fn error(&self, cause: Cause) -> JoinError {
        JoinError { name: self.name().map(Box::from), cause }
    }
}

impl JoinError {
    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.cause, Cause::Panic(_))
    }

    /// Whether the task was ended, or never begun, because its runtime ended.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.cause, Cause::Cancelled)
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
            Cause::Cancelled => write!(f, "was cancelled because its runtime ended"),
            Cause::NoStack(error) => write!(f, "could not get a stack: {error}"),
            Cause::NoMemory => write!(f, "was refused: no memory for the records of one more task"),
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
