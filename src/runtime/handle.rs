//! The way into a runtime from outside.

use std::fmt;
use std::sync::Arc;

use crate::metrics::{Metrics, WorkerMetrics};
use crate::task::handle::JoinHandle;
use crate::worker::{self, Settings, Team};

/// Starts tasks in a runtime from anywhere: plain threads, and tasks of other runtimes.
///
/// It does not keep the runtime going. When that has ended, what is spawned is dropped at once, and its
/// [`JoinHandle`] says that it was cancelled.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// let handle = rt::run(|| {
///     let handle = rt::Handle::current();
///     let from_outside = handle.clone();
///     let thread = std::thread::spawn(move || from_outside.spawn(|| 5).join().unwrap());
///     while !thread.is_finished() {
///         rt::time::sleep(rt::time::Duration::from_millis(1));
///     }
///     assert_eq!(thread.join().unwrap(), 5);
///     handle
/// })?;
/// assert!(handle.spawn(|| 5).join().unwrap_err().is_cancelled());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Handle {
    team: Arc<Team>,
}

impl Handle {
    pub(crate) fn new(team: Arc<Team>) -> Handle {
        Handle { team }
    }

    pub(crate) fn team(&self) -> &Arc<Team> {
        &self.team
    }

    /// That of the runtime in which the caller runs.
    ///
    /// # Panics
    ///
    /// Outside a runtime. [`try_current`](Handle::try_current) returns `None` instead.
    #[track_caller]
    pub fn current() -> Handle {
        match Handle::try_current() {
            Some(handle) => handle,
            None => panic!("no runtime runs on this thread"),
        }
    }

    /// That of the runtime in which the caller runs; `None` outside.
    pub fn try_current() -> Option<Handle> {
        worker::current_team().map(Handle::new)
    }

    /// Starts a task in this runtime, as [`spawn`](crate::spawn()) does; [`Builder::spawn_on`](crate::Builder::spawn_on) is for
    /// one with settings of its own.
    ///
    /// From outside the runtime it costs a short lock and, if the worker that gets it sleeps, a system call.
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        worker::spawn_in(&self.team, Settings::default(), None, f)
    }

    /// The figures of the runtime, as [`metrics`](crate::metrics()) has them.
    pub fn metrics(&self) -> Metrics {
        self.team.metrics()
    }

    /// The figures of each of its workers, by their numbers. What they do meanwhile is seen or not.
    ///
    /// ```
    /// # use switchback_runtime as rt;
    /// # fn main() -> std::io::Result<()> {
    /// rt::Runtime::builder().workers(2).run(|| {
    ///     let begun: u64 = rt::Handle::current().worker_metrics().iter().map(|worker| worker.begun).sum();
    ///     assert_eq!(begun, 1);
    /// })
    /// # }
    /// ```
    pub fn worker_metrics(&self) -> Vec<WorkerMetrics> {
        self.team.worker_metrics()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("workers", &self.team.workers()).finish_non_exhaustive()
    }
}
