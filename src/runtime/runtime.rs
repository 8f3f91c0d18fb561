//! Starting a runtime, and tasks in it.

use std::io;
use std::panic::resume_unwind;
use std::sync::PoisonError;

use switchback::stack;

use crate::task::handle::{Cause, JoinHandle};
use crate::worker::{self, Worker};

/// Runs `f` as the first task of a new runtime on the calling thread, and returns what it returns.
///
/// `f` may borrow from its surroundings, since it is over when this returns. When it is over, every task that is left
/// is ended where it waits: its destructors run, as if the call it waits in had panicked, and whoever joins it, in
/// another runtime or a plain thread, is told [`is_cancelled`](crate::JoinError::is_cancelled). So join the tasks whose
/// work you want done. Destructors that run then may do I/O, sleep and so on, but they block the thread. They must not
/// panic: as in any unwinding, Rust aborts the process then. A task that catches the unwinding
/// ([`catch_unwind`](std::panic::catch_unwind)) and waits again is unwound again; if it does so a hundred times it is
/// given up, and its stack leaked.
///
/// Several threads of a process may each run a runtime.
///
/// A task that overflows its stack ends the process, and its name is printed before, by a handler of the process's signals; see
/// [`Builder::report_overflows`].
///
/// Costs two descriptors, some system calls and a stack.
///
/// # Errors
///
/// If this thread runs a runtime already, is panicking, or runs a coroutine just now; if there are no descriptors for
/// the driver, or no stack for `f`. In these cases `f` is dropped without having been called.
///
/// # Panics
///
/// If `f` panics, with its payload, after the other tasks have been ended.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// let words = ["one", "worker"];
/// let length = rt::run(|| words.iter().map(|word| word.len()).sum::<usize>())?;
/// assert_eq!(length, 9);
/// # Ok(()) }
/// ```
pub fn run<F, T>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T,
{
    Builder::new().run(f)
}

/// Starts a task. The handle waits for it and has its result; dropped, it leaves the task to itself.
///
/// The task begins when its turn comes, not now. It runs on the thread of this runtime, with the bounds of
/// [`std::thread::spawn`] all the same. A stack of the default size is acquired when it begins; if there is none, the
/// handle tells so. When the runtime is ending, `f` is dropped at once, and the handle says that it was cancelled.
///
/// Costs one allocation, and a stack when the task begins: some system calls, unless one is kept from a task that is
/// over.
///
/// # Panics
///
/// Outside a runtime. [`Builder::spawn`] returns an error instead.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let task = rt::spawn(|| -> u8 { panic!("as an error") });
///     let error = task.join().unwrap_err();
///     assert!(error.is_panic());
///     assert_eq!(error.into_panic().downcast_ref(), Some(&"as an error"));
/// })
/// # }
/// ```
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// A task with settings of its own, as [`std::thread::Builder`] is for threads.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let deep = rt::Builder::new().name("deep".to_owned()).stack_size(1 << 20).spawn(|| {
///         fn depth(n: u32) -> u32 { if n == 0 { 0 } else { 1 + std::hint::black_box(depth(n - 1)) } }
///         depth(2_000)
///     })?;
///     assert_eq!(deep.join().unwrap(), 2_000);
///     Ok(())
/// })?
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    name: Option<Box<str>>,
    stack_size: usize,
    report_overflows: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder { name: None, stack_size: stack::DEFAULT_RESERVE, report_overflows: true }
    }
}

impl Builder {
    /// A task without a name, with a stack of the default size ([`switchback::stack::DEFAULT_RESERVE`]).
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the task, for errors, [`task::name`](crate::task::name), and the report of an overflow of its stack.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name.into_boxed_str());
        self
    }

    /// How far the task's stack can grow, in bytes; rounded up to whole pages. Memory is used for what is touched only.
    ///
    /// A size that cannot be had is not noticed here, nor by [`spawn`](Builder::spawn), but when the task begins, and
    /// told by its handle. Stacks of other than the default size are not kept for reuse.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = bytes;
        self
    }

    /// Whether a task that overflows its stack says so before the process dies of it. Yes, if not said otherwise.
    ///
    /// It is what [`switchback::stack::report_overflows`] does, which [`run`](Builder::run) calls: a signal handler of the
    /// process, for good. A program that has a handler of its own for the same signals, and wants it not even asked before,
    /// says no, in every runtime. It has no meaning for a task of a runtime that runs.
    ///
    /// ```
    /// # use switchback_runtime as rt;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(rt::Builder::new().report_overflows(false).run(|| 1)?, 1);
    /// # Ok(()) }
    /// ```
    pub fn report_overflows(mut self, report: bool) -> Builder {
        self.report_overflows = report;
        self
    }

    /// Starts the task, as [`spawn`] does.
    ///
    /// # Errors
    ///
    /// Outside a runtime; `f` is dropped.
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        worker::spawn(self.name, self.stack_size, f)
            .ok_or_else(|| io::Error::other("no runtime runs on this thread: spawn inside `switchback_runtime::run`"))
    }

    /// Runs `f` as the first task of a new runtime, as [`run`] does, with these settings.
    ///
    /// # Errors
    ///
    /// As [`run`].
    ///
    /// # Panics
    ///
    /// As [`run`].
    pub fn run<F, T>(self, f: F) -> io::Result<T>
    where
        F: FnOnce() -> T,
    {
        let worker = Worker::new()?;
        if self.report_overflows {
            stack::report_overflows()?;
        }
        match worker.run(self.name, self.stack_size, f)? {
            Ok(value) => Ok(value),
            Err(error) => match error.into_cause() {
                Cause::Panic(payload) => resume_unwind(payload.into_inner().unwrap_or_else(PoisonError::into_inner)),
                Cause::NoStack(error) => Err(error.into()),
                _ => Err(io::Error::other("the first task ended without a result")),
            },
        }
    }
}
