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

// This room knows the primitive crate only. A worker is to it a `Scheduler`: somebody who gives its tasks turns, and has
// timers. In reading order:
//
// - `header`: what others may touch of a task, kept off its stack (invariant 3);
// - `cell`: the allocation that it is the head of, with what the task is to do and what came of it;
// - `queue`, `turns`: who is next, and the switch to it;
// - this file: the task's own way from its first line to its last, and "which task is this?";
// - `cancel`: what ends a wait early;
// - `park`: the one way to wait, for tasks and plain threads alike;
// - `handle`: the result of a task and who waits for it.
//
// `can_suspend` decides who may switch and who has to block (invariant 5).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::AtomicPtr;

use switchback::context::Running;
use switchback::stack;

pub(crate) mod cancel;
mod cell;
pub(crate) mod handle;
pub(crate) mod header;
mod park;
mod queue;
mod turns;

pub(crate) use cancel::Cancelled;
pub(crate) use header::{Header, Mine, Reference, Scheduler, Timer};
pub(crate) use park::limited;
pub use park::{Unparker, park, park_cancellable, park_until};
pub(crate) use queue::Queue;
pub(crate) use turns::{Home, Taking, Turns};

use handle::Cause;
use header::Owner;

/// How many operations that never had to wait a task may do before it lets the others run.
///
/// Without it, a task whose socket is always ready would hold the worker for ever. The figure is tokio's; the cost of
/// a yield (about as much as a tenth of one socket call) vanishes in 128 of them.
const BUDGET: u32 = 128;

/// A task that is to run on the given worker, or on the one that will [settle](Mine::settle) it: the worker's count of it and
/// the handle's.
///
/// # Errors
///
/// If there is no memory for it: name and `function` are given back.
pub(crate) fn new<F, T>(
    home: Option<&'static Home>,
    name: Option<Box<str>>,
    stack_size: usize,
    function: F,
) -> Result<[Reference; 2], (Option<Box<str>>, F)>
where
    F: FnOnce() -> T,
{
    let home = home.map_or(ptr::null_mut(), |home| ptr::from_ref(home).cast_mut());
    cell::new(Owner::Worker(AtomicPtr::new(home)), name, stack_size, function)
}

/// What a task's context runs: the word is the task's header.
///
/// # Safety
///
/// It must be that of a living task of this thread's worker, which has not begun.
pub(crate) unsafe extern "C" fn entry(word: *mut (), running: Running) -> *mut () {
    // SAFETY: the caller's promise.
    let task = unsafe { Mine::new(ptr::NonNull::new_unchecked(word.cast())) };
    task.own().running.set(Some(running));
    // SAFETY: it has not begun.
    unsafe { run(task) };
    ptr::null_mut()
}

/// Calls a task's function and delivers what becomes of it.
///
/// # Safety
///
/// It must be the caller's, and not have begun.
unsafe fn run(task: Mine) {
    // SAFETY: the caller's promise.
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (task.vtable.run)(task) }));
    // `run` delivers a panic of the user's code itself. What comes out here is either the unwinding that ends a task
    // before its time, or the panic of a destructor (of a result nobody wanted, say): the hook has reported it, and it
    // must not reach the worker, which serves others too.
    if let Err(payload) = outcome {
        quietly(|| drop(payload));
    }
}

/// Calls the function of a task that no worker will get, which is the caller's alone and has not begun, on this thread and its
/// stack; or drops it, if it has been cancelled.
pub(crate) fn run_off_worker(task: Reference) {
    // SAFETY: it belongs to who has it, since no worker does, and lives as long as the reference.
    let mine = unsafe { Mine::new(task.as_ptr()) };
    if mine.is_cancelled() {
        mine.abandon();
    } else {
        // SAFETY: the same.
        unsafe { run(mine) };
    }
}

/// Ends a task as in [`run_off_worker`], without having called its function.
pub(crate) fn refuse_off_worker(task: Reference, cause: Cause) {
    // SAFETY: as there.
    unsafe { (task.vtable.refuse)(Mine::new(task.as_ptr()), cause) }
}

impl Mine {
    /// Ends a task that has not begun: whoever joins it is told that no stack could be had.
    pub(crate) fn refuse(self, error: stack::Error) {
        // SAFETY: it lives and is ours, and has not begun.
        unsafe { (self.vtable.refuse)(self, Cause::NoStack(error)) }
    }

    /// Ends a task that has not begun: whoever joins it is told that it was cancelled.
    pub(crate) fn abandon(self) {
        // SAFETY: as in `refuse`.
        unsafe { (self.vtable.refuse)(self, Cause::Cancelled) }
    }

    /// Called by the task where it has been continued: if it is to unwind, it does.
    #[inline(always)]
    fn continued(self) {
        self.own().budget.set(BUDGET);
        if self.own().is_unwinding.get() {
            unwind();
        }
    }
}

#[cold]
fn unwind() -> ! {
    /// What a task unwinds with when its runtime ends.
    struct RuntimeHasEnded;
    resume_unwind(Box::new(RuntimeHasEnded))
}

/// Calls foreign code (a destructor, as a rule) whose panic must end here, after the panic hook has reported it.
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        // The destructor of a payload may panic as well, and so on; nothing obliges us to run it.
        std::mem::forget(payload);
    }
}

/// The task that runs on this thread just now; `None` on a plain thread, and in the worker's own code.
#[inline(always)]
pub(crate) fn current() -> Option<Mine> {
    Turns::with(Turns::current).flatten()
}

/// Whether the caller is a task that may switch away. Otherwise it has to block its thread (invariant 5).
pub(crate) fn can_suspend() -> bool {
    current().is_some() && !std::thread::panicking()
}

/// Lets the other tasks that are ready run first, then goes on.
///
/// The tasks of a worker take turns in the order in which they became ready. On a plain thread this is
/// [`std::thread::yield_now`]. It does nothing in a task that is unwinding.
///
/// Costs one switch, no system call (a worker looks for I/O and timers every few dozen turns).
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
/// use std::sync::{Arc, Mutex};
///
/// # fn main() -> std::io::Result<()> {
/// let said = rt::Runtime::builder().workers(1).run(|| {
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
#[inline(always)]
pub fn yield_now() {
    // All of it is inlined, since a function that returns in another task than it was called in is one that the processor
    // has predicted to return elsewhere: that would cost more than the switch does.
    // SAFETY: they are the turns of the task that runs here, and are not used after it has gone on.
    if let Some(turns) = unsafe { Turns::here() }
        && let Some(task) = turns.current()
    {
        if !std::thread::panicking() {
            turns.yield_now(task);
        }
    } else {
        std::thread::yield_now();
    }
}

/// Called before an operation that may not have to wait: now and then it yields first, so that a task which is never
/// made to wait cannot keep the others from running.
pub(crate) fn spend_budget() {
    let Some(task) = current() else { return };
    match task.own().budget.get() {
        0 if can_suspend() => yield_now(),
        0 => {}
        left => task.own().budget.set(left - 1),
    }
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
    current().and_then(|task| task.name().map(str::to_owned))
}
