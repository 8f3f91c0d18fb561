//! The task that is running, and how it waits: [`park()`] and [`Unparker`], on which everything that waits is built.
//!
//! The rules are those of [`std::thread::park`]: there is one token; `unpark` puts it there, `park` takes it or waits
//! for it. A park may also end without cause, and the token may be taken by any other call of the same task that waits
//! (a sleep, a read): so who parks keeps a condition somewhere, and checks it before each park.
//!
//! ```
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use switchback_runtime::{self as rt, task::{Unparker, park}};
//!
//! # fn main() -> std::io::Result<()> {
//! rt::run(|| {
//!     static RIPE: AtomicBool = AtomicBool::new(false);
//!     let me = Unparker::current();
//!     std::thread::spawn(move || {
//!         RIPE.store(true, Ordering::Release);
//!         me.unpark();
//!     });
//!     while !RIPE.load(Ordering::Acquire) {
//!         park();
//!     }
//! })
//! # }
//! ```
//!
//! A task that is unwinding (it panics, or its runtime is ending and its destructors run) must not switch, because the
//! count of panics belongs to the thread and every other task would see it. What such a task calls still works, but it
//! blocks the thread as in a plain program.

// This room knows the primitive crate only. A worker is to it a `Scheduler`: somebody who runs a task whose word says
// that it may go on. In reading order:
//
// - `header`: what others may touch of a task, kept off its stack (invariant 3);
// - this file: the part that lies on the task's own stack, and "which task is this?";
// - `park`: the one way to wait, for tasks and plain threads alike;
// - `handle`: the result of a task and who waits for it.
//
// `can_suspend` decides who may switch and who has to block (invariant 5).

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use switchback::stack::{self, Named, Pooled};
use switchback::{Coroutine, Yielder};

pub(crate) mod handle;
pub(crate) mod header;
mod park;

pub(crate) use header::{Header, Key, Scheduler};
pub(crate) use park::wait;
pub use park::{Unparker, park, park_until};

/// How many operations that never had to wait a task may do before it lets the others run.
///
/// Without it, a task whose socket is always ready would hold the worker for ever. The figure is tokio's; the cost of
/// a yield (about as much as a tenth of one socket call) vanishes in 128 of them.
const BUDGET: u32 = 128;

/// What a task asks of its worker when it switches away.
pub(crate) enum Suspended {
    /// Run me again after the others.
    Yielded,
    /// Run me when my word says so, or when the instant has come.
    Parked(Option<Instant>),
}

/// What a worker hands in when it resumes: the job at the first resume, nothing later.
pub(crate) type Resume = Option<Box<dyn Job>>;

/// A started task: the job runs on the stack of this coroutine.
pub(crate) type Fiber = Coroutine<Resume, Suspended, (), Named<Pooled>>;

/// What a task is to do. Dropped without having been run, it tells whoever joins that the task was cancelled.
pub(crate) trait Job {
    /// Does it, and delivers the result.
    fn run(self: Box<Self>);
    /// Delivers that no stack could be had.
    fn refuse(self: Box<Self>, error: stack::Error);
}

/// The entry function of a task's coroutine.
pub(crate) fn entry(header: Arc<Header>) -> impl FnOnce(&Yielder<Resume, Suspended>, Resume) + 'static {
    move |yielder, job| {
        let Some(job) = job else { return };
        let current = Current { header, yielder: NonNull::from(yielder), budget: Cell::new(BUDGET) };
        let outcome = {
            let _entered = Switched::to(Some(NonNull::from(&current)));
            catch_unwind(AssertUnwindSafe(|| job.run()))
        };
        // `run` delivers a panic of the user's code itself. What comes out here is either the unwinding that ends a
        // task before its time, which goes on to the primitive, or the panic of a destructor (of a result nobody
        // wanted, say): the hook has reported it, and it must not reach the worker, which serves others too.
        if let Err(payload) = outcome {
            if current.header.is_unwinding() {
                resume_unwind(payload);
            }
            quietly(|| drop(payload));
        }
    }
}

/// Calls foreign code (a destructor, as a rule) whose panic must end here, after the panic hook has reported it.
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        // The destructor of a payload may panic as well, and so on; nothing obliges us to run it.
        std::mem::forget(payload);
    }
}

/// The part of a running task that only the task itself touches; it lies on the task's own stack.
struct Current {
    header: Arc<Header>,
    yielder: NonNull<Yielder<Resume, Suspended>>,
    /// Operations left before the next forced yield.
    budget: Cell<u32>,
}

thread_local! {
    /// The task that runs on this thread just now. Set by the task itself, when it enters and whenever it has been
    /// resumed, and taken back when it leaves: so a worker's own code, and a plain thread's, sees `None`.
    static CURRENT: Cell<Option<NonNull<Current>>> = const { Cell::new(None) };
}

/// Sets `CURRENT` and puts back what was there when dropped, also when unwinding.
struct Switched {
    before: Option<NonNull<Current>>,
}

impl Switched {
    fn to(current: Option<NonNull<Current>>) -> Switched {
        Switched { before: CURRENT.replace(current) }
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

impl Current {
    /// Switches to the worker, and returns when it resumes this task.
    ///
    /// # Panics
    ///
    /// With the primitive's unwinding: when the runtime ends, a suspended task goes on as if this call had panicked. A
    /// task that catches that and waits again is unwound again; after a hundred times the primitive gives it up and
    /// leaves its stack where it is.
    fn suspend(&self, request: Suspended) {
        let _left = Switched::to(None);
        // SAFETY: the yielder was lent to the entry function, which is still running, further down on this stack
        // (invariant 1); and we are on its thread, because `CURRENT` led here (invariant 2).
        let yielder = unsafe { self.yielder.as_ref() };
        yielder.suspend(request);
        self.budget.set(BUDGET);
    }
}

/// Lends the current task to `f`; `None` on a plain thread, and in the worker's own code.
fn with_current<R>(f: impl FnOnce(Option<&Current>) -> R) -> R {
    match CURRENT.get() {
        // SAFETY: it points to a local of `entry`, on the stack of the task that is running on this thread. While `f`
        // runs that frame stays where it is (invariant 1), and no other thread comes by it (invariant 2).
        Some(current) => f(Some(unsafe { current.as_ref() })),
        None => f(None),
    }
}

/// Whether the caller is a task that may switch away. Otherwise it has to block its thread (invariant 5).
pub(crate) fn can_suspend() -> bool {
    CURRENT.get().is_some() && !std::thread::panicking()
}

/// Whether the caller is a task that is being unwound because its runtime is ending.
pub(crate) fn is_unwinding() -> bool {
    with_current(|current| current.is_some_and(|current| current.header.is_unwinding()))
}

/// Lets the other tasks that are ready run first, then goes on.
///
/// The tasks of a worker take turns in the order in which they became ready. On a plain thread this is
/// [`std::thread::yield_now`]. It does nothing in a task that is unwinding.
///
/// Costs two switches, no system call (a worker looks for I/O and timers every few dozen turns).
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
/// use std::sync::{Arc, Mutex};
///
/// # fn main() -> std::io::Result<()> {
/// let said = rt::run(|| {
///     let said = Arc::new(Mutex::new(Vec::new()));
///     let tasks: Vec<_> = ["a", "b"].map(|name| {
///         let said = said.clone();
///         rt::spawn(move || for turn in 0..2 {
///             said.lock().unwrap().push(format!("{name}{turn}"));
///             rt::yield_now();
///         })
///     }).into();
///     for task in tasks { task.join().unwrap() }
///     said.lock().unwrap().join(" ")
/// })?;
/// assert_eq!(said, "a0 b0 a1 b1");
/// # Ok(()) }
/// ```
pub fn yield_now() {
    with_current(|current| match current {
        Some(current) if can_suspend() => current.suspend(Suspended::Yielded),
        Some(_) => {}
        None => std::thread::yield_now(),
    });
}

/// Called before an operation that may not have to wait: now and then it yields first, so that a task which is never
/// made to wait cannot keep the others from running.
pub(crate) fn spend_budget() {
    with_current(|current| {
        let Some(current) = current else { return };
        match current.budget.get() {
            0 if can_suspend() => current.suspend(Suspended::Yielded),
            0 => {}
            left => current.budget.set(left - 1),
        }
    });
}

/// The name the current task was given with [`Builder::name`](crate::Builder::name).
///
/// `None` if it has none, or if the caller is not a task.
///
/// # Examples
///
/// ```
/// # use switchback_runtime as rt;
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let task = rt::Builder::new().name("lamplighter".into()).spawn(rt::task::name)?;
///     assert_eq!(task.join().unwrap().as_deref(), Some("lamplighter"));
///     Ok(())
/// })?
/// # }
/// ```
pub fn name() -> Option<String> {
    with_current(|current| current.and_then(|current| current.header.name().map(str::to_owned)))
}
