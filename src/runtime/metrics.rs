//! The figures of a running runtime.

use crate::worker;

/// What [`metrics`] saw in all workers together at the moment it was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Workers of the runtime.
    pub workers: usize,
    /// Tasks alive: spawned, and not over yet. The root task is one of them.
    pub tasks: usize,
    /// Tasks spawned since the runtime began, the root task included.
    pub spawned: u64,
    /// Tasks that are over, in whatever way: returned, panicked, cancelled, or refused a stack.
    pub completed: u64,
    /// Timers set: deadlines of tasks that wait.
    pub timers: usize,
    /// Stacks in use. A task that has not run yet has none.
    pub stacks: usize,
    /// Stacks kept for reuse, in the pools that all of the process share.
    pub stacks_cached: usize,
    /// The reserve of a task's stack, if none is asked for, in bytes of address space; only what is touched costs memory.
    pub stack_reserve: usize,
}

/// The figures of the runtime that runs on this thread; `None` if there is none.
///
/// What other workers do meanwhile is seen or not: a task that has just been joined may still be counted as alive.
///
/// Costs two locks for each size of stack in use and some loads for each worker: cheap enough to be asked per request.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// assert_eq!(rt::metrics(), None);
/// let (before, after) = rt::Runtime::builder().workers(1).run(|| {
///     let before = rt::metrics().unwrap();
///     rt::spawn(|| ()).join().unwrap();
///     (before, rt::metrics().unwrap())
/// })?;
/// assert_eq!((before.tasks, before.spawned, before.completed), (1, 1, 0));
/// assert_eq!((after.tasks, after.spawned, after.completed), (1, 2, 1));
/// # Ok(()) }
/// ```
pub fn metrics() -> Option<Metrics> {
    worker::with_team(|team| team.metrics())
}

/// The figures of one worker, as [`Handle::worker_metrics`](crate::Handle::worker_metrics) saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// Tasks alive that this worker has taken on. They stay with it, so an imbalance shows here.
    pub tasks: usize,
    /// Tasks that it has begun since the runtime did.
    pub begun: u64,
    /// Tasks that wait to be begun, by this worker or, unless they were placed here, by another.
    pub waiting: usize,
    /// Timers set.
    pub timers: usize,
    /// Stacks in use.
    pub stacks: usize,
    /// How often it has gone to sleep since there was nothing to do.
    pub sleeps: u64,
    /// Tasks that it has taken over from other workers.
    pub stolen: u64,
    /// How often it has been woken because another worker had tasks to give away.
    pub called: u64,
}
