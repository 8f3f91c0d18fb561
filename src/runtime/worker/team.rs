//! The workers of one runtime together: what they share, and what whoever is not one of them may do.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use switchback::stack;

use super::fresh::{Chain, Fresh};
use super::idle::Idle;
use super::shared::Shared;
use crate::metrics::{Metrics, WorkerMetrics};
use crate::task::handle::{Cause, JoinHandle};
use crate::task::{self, Mine, Reference};

/// What holds for all tasks of a runtime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The reserve of a stack for which none is asked, in bytes.
    pub(crate) stack_size: usize,
    /// Tasks alive at once; not counted if it is `usize::MAX`.
    pub(crate) tasks: usize,
}

/// What a task is to be called and how deep it may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack_size: Option<usize>,
}

/// A worker as the others see it.
#[derive(Default)]
pub(super) struct Seat {
    /// Tasks that any worker may begin.
    pub(super) fresh: Fresh,
    /// Tasks that only this worker may begin, from other threads.
    pub(super) placed: Fresh,
    /// Once the worker has begun.
    pub(super) shared: OnceLock<&'static Shared>,
    pub(super) figures: Figures,
}

/// Each is written by the worker alone, so that to count costs an ordinary store.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) spawned: AtomicU64,
    pub(super) begun: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) alive: AtomicUsize,
    pub(super) timers: AtomicUsize,
    pub(super) stacks: AtomicUsize,
    pub(super) sleeps: AtomicU64,
    pub(super) stolen: AtomicU64,
    pub(super) called: AtomicU64,
}

/// Counts one more. For the only one who writes the figure.
#[inline]
pub(super) fn count(figure: &AtomicU64, more: u64) {
    figure.store(figure.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// As [`count`], for what comes and goes.
#[inline]
pub(super) fn more(figure: &AtomicUsize) {
    figure.store(figure.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[inline]
pub(super) fn less(figure: &AtomicUsize) {
    figure.store(figure.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
}

/// See the module's documentation. It outlives the workers, for as long as somebody has a handle of the runtime.
pub(crate) struct Team {
    pub(super) seats: Box<[Arc<Seat>]>,
    pub(super) idle: Idle,
    pub(super) limits: Limits,
    /// Tasks alive, if there is a limit to it.
    alive: AtomicUsize,
    /// By whoever is no worker of this runtime.
    spawned: AtomicU64,
    /// Without having been begun by a worker.
    completed: AtomicU64,
    /// Where the next task of somebody else's is put.
    next: AtomicUsize,
    ending: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl Team {
    pub(crate) fn new(workers: usize, limits: Limits) -> Arc<Team> {
        Arc::new(Team {
            seats: (0..workers).map(|_| Arc::default()).collect(),
            idle: Idle::new(workers),
            limits,
            alive: AtomicUsize::new(0),
            spawned: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            failure: Mutex::new(None),
        })
    }

    pub(crate) fn workers(&self) -> usize {
        self.seats.len()
    }

    /// Whether there is one worker only, which need not share.
    #[inline]
    pub(super) fn is_one(&self) -> bool {
        self.seats.len() == 1
    }

    /// Admits a task that is to be, unless there are too many.
    #[inline]
    pub(super) fn admit(&self) -> Result<(), Cause> {
        if self.limits.tasks == usize::MAX {
            return Ok(());
        }
        let more = |alive: usize| (alive < self.limits.tasks).then_some(alive + 1);
        // Relaxed: it is a number and nothing else.
        match self.alive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Cause::TooMany(self.limits.tasks)),
        }
    }

    /// A task that was admitted is over, or has not become one.
    #[inline]
    pub(super) fn dismiss(&self) {
        if self.limits.tasks != usize::MAX {
            self.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Starts a task from a thread that is no worker of this runtime, on the given worker or on any.
    pub(super) fn spawn<F, T>(&self, settings: Settings, on: Option<usize>, function: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Settings { name, stack_size } = settings;
        if self.is_ending() {
            return JoinHandle::refused(name, Cause::Cancelled);
        }
        if let Err(cause) = self.admit() {
            return JoinHandle::refused(name, cause);
        }
        match task::new(None, name, stack_size.unwrap_or(self.limits.stack_size), function) {
            Ok([task, handles]) => {
                self.spawned.fetch_add(1, Ordering::Relaxed);
                self.put(task, on);
                JoinHandle::new(handles)
            }
            Err((name, _function)) => {
                self.dismiss();
                JoinHandle::refused(name, Cause::NoMemory)
            }
        }
    }

    /// Puts a task where the given worker, or any, will find it.
    pub(super) fn put(&self, task: Reference, on: Option<usize>) {
        let put = match (on, self.is_one()) {
            (None, false) => {
                let seat = &self.seats[self.next.fetch_add(1, Ordering::Relaxed) % self.seats.len()];
                seat.fresh.push(task).inspect(|()| self.call())
            }
            (on, _) => {
                let seat = &self.seats[on.unwrap_or(0)];
                seat.placed.push(task).inspect(|()| seat.rouse())
            }
        };
        if let Err(task) = put {
            self.drop_fresh(task);
        }
    }

    /// Wakes a worker to search, if one is wanted: to be called when a task has been added that any may take.
    pub(super) fn call(&self) {
        if let Some(worker) = self.idle.to_wake() {
            self.wake(worker);
        }
    }

    /// Ends the sleep of a worker that has begun.
    pub(super) fn wake(&self, worker: usize) {
        if let Some(shared) = self.seats[worker].shared.get() {
            shared.wake();
        }
    }

    /// Whether there are tasks that any worker may take.
    pub(super) fn has_fresh(&self) -> bool {
        self.seats.iter().any(|seat| !seat.fresh.is_empty())
    }

    /// Ends a task that no worker will begin, which nobody else has got: it is dropped, and that is foreign code.
    pub(super) fn drop_fresh(&self, task: Reference) {
        // SAFETY: it has not begun, so it belongs to who has taken it out, and lives until it is cancelled.
        unsafe { Mine::new(task.as_ptr()) }.abandon();
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.dismiss();
    }

    fn drop_all(&self, mut tasks: Chain) {
        while let Some(task) = tasks.pop() {
            self.drop_fresh(task);
        }
    }

    /// As [`drop_all`](Team::drop_all) for what could not be put into a list because the runtime is ending.
    pub(super) fn refuse(&self, put: Result<(), Chain>) {
        if let Err(tasks) = put {
            self.drop_all(tasks);
        }
    }

    #[inline]
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// From now on nothing is admitted, what has not begun is dropped, and every worker ends its tasks. Does not wait for that.
    ///
    /// Of several failures the first is kept.
    pub(crate) fn end(&self, failure: Option<io::Error>) {
        if let Some(failure) = failure {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
        self.ending.store(true, Ordering::Relaxed);
        // A worker that has not been seen to have begun sees after its own fence, before it sleeps, that it is to end.
        fence(Ordering::SeqCst);
        let dropped: Vec<Chain> =
            self.seats.iter().flat_map(|seat| [seat.fresh.close(), seat.placed.close()]).collect();
        self.seats.iter().filter_map(|seat| seat.shared.get()).for_each(|shared| shared.wake());
        dropped.into_iter().for_each(|tasks| self.drop_all(tasks));
    }

    /// Why it has ended, if not because it was told to.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The figures of all workers.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = Metrics {
            workers: self.workers(),
            completed: self.completed.load(Ordering::Relaxed),
            stack_reserve: self.limits.stack_size,
            stacks_cached: stack::pools().map(|pool| pool.stats().cached).sum(),
            ..Metrics::default()
        };
        // What is over is counted first, so that the number of those alive is never below zero.
        for seat in &self.seats {
            metrics.completed += seat.figures.completed.load(Ordering::Relaxed);
            metrics.timers += seat.figures.timers.load(Ordering::Relaxed);
            metrics.stacks += seat.figures.stacks.load(Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        metrics.spawned = self.spawned.load(Ordering::Relaxed);
        for seat in &self.seats {
            metrics.spawned += seat.figures.spawned.load(Ordering::Relaxed);
        }
        metrics.tasks = usize::try_from(metrics.spawned.saturating_sub(metrics.completed)).unwrap_or(usize::MAX);
        metrics
    }

    /// The figures of each worker.
    pub(crate) fn worker_metrics(&self) -> Vec<WorkerMetrics> {
        let of = |seat: &Arc<Seat>| {
            let Seat { fresh, placed, figures, .. } = &**seat;
            WorkerMetrics {
                tasks: figures.alive.load(Ordering::Relaxed),
                begun: figures.begun.load(Ordering::Relaxed),
                waiting: fresh.len() + placed.len(),
                timers: figures.timers.load(Ordering::Relaxed),
                stacks: figures.stacks.load(Ordering::Relaxed),
                sleeps: figures.sleeps.load(Ordering::Relaxed),
                stolen: figures.stolen.load(Ordering::Relaxed),
                called: figures.called.load(Ordering::Relaxed),
            }
        };
        self.seats.iter().map(of).collect()
    }
}

impl Seat {
    /// Wakes the worker, if it sleeps, for what has been placed there.
    fn rouse(&self) {
        // Either this one comes first, and the worker sees what was placed after its own fence, before it sleeps; or it is
        // seen asleep here.
        fence(Ordering::SeqCst);
        if let Some(shared) = self.shared.get()
            && shared.inbox.rouse()
        {
            shared.wake();
        }
    }
}
