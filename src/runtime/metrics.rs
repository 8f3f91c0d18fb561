//! The figures of a running runtime.

use crate::worker;

/// What [`metrics`] saw at the moment it was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
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
    /// The reserve of a stack of default size, in bytes of address space; only what is touched costs memory.
    pub stack_reserve: usize,
}

/// The figures of the runtime that runs on this thread; `None` if there is none.
///
/// Costs two locks for each size of stack in use: cheap enough to be asked per request.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// assert_eq!(rt::metrics(), None);
/// let (before, after) = rt::run(|| {
///     let before = rt::metrics().unwrap();
///     rt::spawn(|| ()).join().unwrap();
///     (before, rt::metrics().unwrap())
/// })?;
/// assert_eq!((before.tasks, before.spawned, before.completed), (1, 1, 0));
/// assert_eq!((after.tasks, after.spawned, after.completed), (1, 2, 1));
/// # Ok(()) }
/// ```
pub fn metrics() -> Option<Metrics> {
    worker::metrics()
}
