//! Starting runtimes, and their end.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::PoisonError;

use switchback::stack;

use crate::driver::Driver;
use crate::handle::Handle;
use crate::task::handle::Cause;
use crate::worker::{self, Limits, MOST_WORKERS, Settings, Team, Threads, Worker};

/// Runs `f` as the first task of a new runtime, on the calling thread, and returns what it returns.
///
/// The runtime has as many workers as [`RuntimeBuilder::workers`] says if it is not told otherwise; the calling thread is the
/// first of them.
///
/// `f` may borrow from its surroundings, since it is over when this returns. When it is over, every task that is left
/// is ended where it waits: its destructors run, as if the call it waits in had panicked, and whoever joins it, in
/// another runtime or a plain thread, is told [`is_cancelled`](crate::JoinError::is_cancelled). So join the tasks whose
/// work you want done. Destructors that run then may do I/O, sleep and so on, but they block the thread. They must not
/// panic: as in any unwinding, Rust aborts the process then. A task that catches the unwinding
/// ([`catch_unwind`](std::panic::catch_unwind)) and waits again is unwound again; if it does so a hundred times it is
/// given up, and its stack leaked.
///
/// A process may have several runtimes.
///
/// A task that overflows its stack ends the process, and its name is printed before, by a handler of the process's signals; see
/// [`RuntimeBuilder::report_overflows`].
///
/// Costs a thread for each further worker, two descriptors and some system calls for each, and a stack.
///
/// # Errors
///
/// If this thread runs a runtime already, is panicking, or runs a coroutine just now; if there are no descriptors for
/// the drivers, no threads for the workers, or no stack for `f`. In these cases `f` is dropped without having been called.
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
/// let words = ["several", "workers"];
/// let length = rt::run(|| words.iter().map(|word| word.len()).sum::<usize>())?;
/// assert_eq!(length, 14);
/// # Ok(()) }
/// ```
pub fn run<F, T>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T,
{
    Runtime::builder().run(f)
}

/// A runtime all of whose workers have threads of their own. It is used through its [`Handle`].
///
/// Dropped, it ends as [`run`] says, and waits until it has ended. Within one of its own tasks it does not wait.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = rt::Runtime::builder().workers(2).name("pool").start()?;
/// let task = runtime.spawn(|| std::thread::current().name().map(str::to_owned));
/// assert!(task.join().unwrap().unwrap().starts_with("pool-"));
/// runtime.shutdown()
/// # }
/// ```
pub struct Runtime {
    handle: Handle,
    threads: Threads,
}

impl Runtime {
    /// Settings of a runtime that is to be.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// Ends all tasks, as [`run`] does with those that are left, and waits until they have ended.
    ///
    /// # Errors
    ///
    /// If the runtime had ended before, because the system refused a worker what it needs.
    pub fn shutdown(self) -> io::Result<()> {
        let Runtime { handle, threads } = self;
        drop(threads);
        handle.team().take_failure().map_or(Ok(()), Err)
    }
}

impl Deref for Runtime {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("workers", &self.threads.team().workers()).finish_non_exhaustive()
    }
}

/// Settings of a runtime; [`Runtime::builder`] makes them.
#[derive(Clone, Debug)]
pub struct RuntimeBuilder {
    workers: Option<usize>,
    name: String,
    limits: Limits,
    report_overflows: bool,
}

impl Default for RuntimeBuilder {
    fn default() -> RuntimeBuilder {
        RuntimeBuilder {
            workers: None,
            name: "switchback".to_owned(),
            limits: Limits { stack_size: stack::DEFAULT_RESERVE, tasks: usize::MAX },
            report_overflows: true,
        }
    }
}

impl RuntimeBuilder {
    /// How many threads run tasks, the one that calls [`run`](RuntimeBuilder::run) included.
    ///
    /// If it is not said, as many as [`std::thread::available_parallelism`] says: the processors that the process may use,
    /// as its affinity and the quota of its control group have it, and 1 where that cannot be found out.
    ///
    /// One worker shares with nobody: its tasks are begun in the order in which they are spawned, and to spawn one takes no
    /// lock.
    pub fn workers(mut self, workers: usize) -> RuntimeBuilder {
        self.workers = Some(workers);
        self
    }

    /// What the threads are called: by this, a hyphen and the number of the worker. `switchback`, if it is not said.
    ///
    /// The thread that calls [`run`](RuntimeBuilder::run) keeps its name.
    pub fn name(mut self, name: impl Into<String>) -> RuntimeBuilder {
        self.name = name.into();
        self
    }

    /// How far the stack of a task that does not ask for a size can grow, in bytes; see
    /// [`Builder::stack_size`](crate::Builder::stack_size). [`switchback::stack::DEFAULT_RESERVE`], if it is not said.
    pub fn stack_size(mut self, bytes: usize) -> RuntimeBuilder {
        self.limits.stack_size = bytes;
        self
    }

    /// How many tasks may be alive at once, the first included. What is spawned beyond that is dropped, and its handle says
    /// so. Without limit, if it is not said.
    ///
    /// ```
    /// # use switchback_runtime as rt;
    /// # fn main() -> std::io::Result<()> {
    /// rt::Runtime::builder().max_tasks(2).run(|| {
    ///     let waits = rt::spawn(rt::task::park);
    ///     let refused = rt::spawn(|| ()).join().unwrap_err();
    ///     assert_eq!(refused.to_string(), "task was refused: 2 tasks are alive: raise `max_tasks` of the runtime");
    /// })
    /// # }
    /// ```
    pub fn max_tasks(mut self, tasks: usize) -> RuntimeBuilder {
        self.limits.tasks = tasks;
        self
    }

    /// Whether a task that overflows its stack says so before the process dies of it. Yes, if not said otherwise.
    ///
    /// It is what [`switchback::stack::report_overflows`] does, which is called when the runtime starts: a signal handler of
    /// the process, for good. A program that has a handler of its own for the same signals, and wants it not even asked
    /// before, says no, in every runtime.
    ///
    /// ```
    /// # use switchback_runtime as rt;
    /// # fn main() -> std::io::Result<()> {
    /// assert_eq!(rt::Runtime::builder().report_overflows(false).run(|| 1)?, 1);
    /// # Ok(()) }
    /// ```
    pub fn report_overflows(mut self, report: bool) -> RuntimeBuilder {
        self.report_overflows = report;
        self
    }

    /// Runs `f` as the first task of a new runtime, as [`run`] does, with these settings.
    ///
    /// # Errors
    ///
    /// As [`run`], and if there cannot be so many workers.
    ///
    /// # Panics
    ///
    /// As [`run`].
    pub fn run<F, T>(self, f: F) -> io::Result<T>
    where
        F: FnOnce() -> T,
    {
        worker::may_run_here()?;
        let (team, mut drivers) = self.prepare()?;
        let worker = Worker::new(&team, 0, drivers.remove(0))?;
        let others = Threads::start(&team, &self.name, drivers)?;
        match worker.run(others, Settings::default(), f)? {
            Ok(value) => Ok(value),
            Err(error) => match error.into_cause() {
                Cause::Panic(payload) => resume_unwind(payload.into_inner().unwrap_or_else(PoisonError::into_inner)),
                Cause::NoStack(error) => Err(error.into()),
                _ => Err(io::Error::other("the first task ended without a result")),
            },
        }
    }

    /// Starts a runtime all of whose workers have threads of their own.
    ///
    /// # Errors
    ///
    /// If there are no descriptors for the drivers or no threads for the workers, or there cannot be so many.
    pub fn start(self) -> io::Result<Runtime> {
        let (team, drivers) = self.prepare()?;
        let threads = Threads::start(&team, &self.name, drivers)?;
        Ok(Runtime { handle: Handle::new(team), threads })
    }

    /// What all workers need before the first of them begins.
    fn prepare(&self) -> io::Result<(std::sync::Arc<Team>, Vec<Driver>)> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let available = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
        let workers = self.workers.unwrap_or_else(available);
        if !(1..=MOST_WORKERS).contains(&workers) {
            return Err(invalid(format!("a runtime has between 1 and {MOST_WORKERS} workers, not {workers}")));
        }
        if self.name.contains('\0') {
            return Err(invalid("the name of a thread cannot contain a null byte".to_owned()));
        }
        // First, since what follows needs a descriptor for a moment, and could not say so.
        let drivers = (0..workers).map(|_| Driver::new()).collect::<io::Result<Vec<_>>>()?;
        if self.report_overflows {
            stack::report_overflows()?;
        }
        Ok((Team::new(workers, self.limits), drivers))
    }
}
