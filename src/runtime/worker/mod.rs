//! Workers: threads that run tasks, each with its own run queue, timers, stacks and driver.
//!
//! Tasks never leave the thread on which they began (invariant 2), so what a worker knows of its tasks ([`Local`]) is plain
//! data of one thread, and none of it is borrowed while a task or any other foreign code runs. What other threads reach of a
//! worker is its inbox and its wake-up ([`Shared`]), and the lists of tasks that have not begun ([`Seat`]). The workers of one
//! runtime are a [`Team`].
//!
//! # Where a task is
//!
//! A task that has not begun is a closure that may go anywhere. With several workers it waits in the list of the worker
//! that spawned it ([`fresh`]) until a worker *takes it on*: that one or, if it has nothing else to do, another. With one
//! worker, and if it has to run on a certain one, it is taken on at once.
//!
//! A living task that has been taken on is in [`Alive`] of its worker; at any time it is in at most one queue as well: in the
//! run queue or the inbox if it may go on, else in none (and perhaps in a timer). It enters the queue when it is taken on,
//! when it yields, and when its word goes from parked to notified, which only one party can observe (see [`task::header`]).
//!
//! # The loop
//!
//! The thread's own stack, the root, runs the loop (see [`run_loop`]): it enters the first task of the queue, and tasks go on
//! from one to the other (see [`Turns`]). When they have used up their turns, the root looks at the inbox and the clock, now
//! and then at the driver. If there is nothing to do it looks for tasks of other workers, and then sleeps in the driver until
//! the next timer (see [`idle`]). A task that is over returns to the root, which gives back its stack.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use switchback::context::Context;
use switchback::stack::{self, Named};

use crate::task::handle::{Cause, JoinHandle};
use crate::task::{self, Header, Home, Mine, Reference, Scheduler, Timer, Turns};

mod alive;
mod ending;
mod fresh;
mod idle;
mod inbox;
#[cfg(test)]
mod nobody;
mod run_loop;
mod shared;
mod stacks;
mod sync;
mod team;
mod threads;
mod timers;

pub(crate) use idle::MOST_WORKERS;
pub(crate) use run_loop::{Worker, may_run_here};
pub(crate) use team::{Limits, Settings, Team};
pub(crate) use threads::Threads;

use alive::Alive;
use shared::Shared;
use stacks::Stacks;
use team::{Seat, count, less, more};
use timers::Timers;

/// What the thread of a worker knows of it.
struct Local {
    team: Arc<Team>,
    /// Its number in the team.
    index: usize,
    /// Whether it is the only one, which has nobody to share with.
    alone: bool,
    seat: Arc<Seat>,
    shared: &'static Shared,
    home: &'static Home,
    alive: Alive,
    turns: Turns,
    timers: RefCell<Timers<Mine>>,
    stacks: RefCell<Stacks>,
    /// Taken from another worker, and the next to begin. It is not taken on before, or else it would have to wait if the
    /// task before it computes for long, although others have time.
    in_hand: Cell<Option<Reference>>,
    /// Whether it is the turn of a task that has not begun.
    is_freshs_turn: Cell<bool>,
    /// How often others' lists have been looked at.
    looks: Cell<usize>,
    /// The runtime is ending: nothing is admitted any more.
    closing: Cell<bool>,
    /// The first task, on whose end others rely.
    root: Cell<*const Header>,
}

thread_local! {
    /// The worker whose thread this is, while it is running.
    static LOCAL: Cell<Option<NonNull<Local>>> = const { Cell::new(None) };
}

/// Lends this thread's worker to `f`; `None` if the thread has none.
#[inline]
fn with_local<R>(f: impl FnOnce(&Local) -> R) -> Option<R> {
    // SAFETY: it stays where it is until it takes itself out of here, and what is called from `f` does not end it: it
    // ends in `Worker::drop`, which belongs to the root.
    LOCAL.get().map(|local| f(unsafe { local.as_ref() }))
}

impl Scheduler for Shared {
    fn ready(&self, task: &Header) {
        if self.inbox.push(task) {
            self.wake();
        }
    }

    fn unblock(&self) {
        self.unpark_thread();
    }

    fn set_timer(&self, task: Mine, deadline: Instant) -> Timer {
        let set = |local: &Local| {
            let timer = local.timers.borrow_mut().set(deadline, task);
            local.count_timers();
            timer
        };
        match with_local(set) {
            Some(timer) => timer,
            None => unreachable!("a task runs on a worker"),
        }
    }

    fn cancel_timer(&self, timer: Timer) {
        with_local(|local| {
            local.timers.borrow_mut().cancel(timer);
            local.count_timers();
        });
    }
}

/// Starts a task on this thread's runtime; `None` if it has none.
pub(crate) fn spawn<F, T>(settings: Settings, function: F) -> Option<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // What cannot become a task is dropped, which is foreign code, when the worker is not lent any more.
    with_local(|local| local.spawn(settings, function)).map(handle_of)
}

/// Starts a task on this thread's worker, where it stays; `None` if it has none.
pub(crate) fn spawn_local<F, T>(settings: Settings, function: F) -> Option<JoinHandle<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    with_local(|local| local.spawn_here(settings, function)).map(handle_of)
}

/// Starts a task in a runtime, on the given worker or on any. From any thread.
pub(crate) fn spawn_in<F, T>(team: &Arc<Team>, settings: Settings, on: Option<usize>, function: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // The number of this thread's worker, if it is of that runtime.
    let here = with_local(|local| Arc::ptr_eq(&local.team, team).then_some(local.index)).flatten();
    let spawned = match (here, on) {
        (Some(_), None) => spawn(settings, function),
        (Some(here), Some(on)) if here == on => spawn_local(settings, function),
        _ => Some(team.spawn(settings, on, function)),
    };
    spawned.unwrap_or_else(|| JoinHandle::refused(None, Cause::Cancelled))
}

fn handle_of<F, T>(spawned: Result<Reference, (JoinHandle<T>, F)>) -> JoinHandle<T> {
    match spawned {
        Ok(task) => JoinHandle::new(task),
        Err((refused, _function)) => refused,
    }
}

/// The team of this thread's worker.
pub(crate) fn current_team() -> Option<Arc<Team>> {
    with_local(|local| local.team.clone())
}

/// Lends the team of this thread's worker to `f`.
pub(crate) fn with_team<R>(f: impl FnOnce(&Team) -> R) -> Option<R> {
    with_local(|local| f(&local.team))
}

/// The number of this thread's worker in its team.
pub(crate) fn current_index() -> Option<usize> {
    with_local(|local| local.index)
}

impl Local {
    /// Admits a task, which any worker of the runtime may begin.
    fn spawn<F, T>(&self, settings: Settings, function: F) -> Result<Reference, (JoinHandle<T>, F)>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if self.alone {
            return self.spawn_here(settings, function);
        }
        let [ours, handles] = self.admit(None, settings, function)?;
        match self.seat.fresh.push(ours) {
            Ok(()) => {
                self.turns.summon();
                self.team.call();
            }
            // It calls foreign code, which finds nothing borrowed.
            Err(ours) => self.team.drop_fresh(ours),
        }
        Ok(handles)
    }

    /// Admits a task and queues it. Calls no foreign code.
    fn spawn_here<F, T>(&self, settings: Settings, function: F) -> Result<Reference, (JoinHandle<T>, F)>
    where
        F: FnOnce() -> T,
    {
        let [ours, handles] = self.admit(Some(self.home), settings, function)?;
        let task = self.alive.insert(ours);
        more(&self.seat.figures.alive);
        self.turns.queue().push(task);
        Ok(handles)
    }

    #[inline(always)]
    fn admit<F, T>(
        &self,
        home: Option<&'static Home>,
        Settings { name, stack_size }: Settings,
        function: F,
    ) -> Result<[Reference; 2], (JoinHandle<T>, F)>
    where
        F: FnOnce() -> T,
    {
        if self.closing.get() {
            return Err((JoinHandle::refused(name, Cause::Cancelled), function));
        }
        if let Err(cause) = self.team.admit() {
            return Err((JoinHandle::refused(name, cause), function));
        }
        match task::new(home, name, stack_size.unwrap_or(self.team.limits.stack_size), function) {
            Ok(task) => {
                count(&self.seat.figures.spawned, 1);
                Ok(task)
            }
            Err((name, function)) => {
                self.team.dismiss();
                Err((JoinHandle::refused(name, Cause::NoMemory), function))
            }
        }
    }

    /// Takes on a task that belonged to nobody: from now on it is this worker's.
    fn take_on(&self, task: Reference) -> Mine {
        let task = self.alive.insert(task);
        task.settle(self.home);
        more(&self.seat.figures.alive);
        task
    }

    /// Runs a task, and those that it switches to, until one leaves or is over: that one is returned, retired.
    fn enter(&self, task: Mine) -> Option<Reference> {
        let context = match task.own().context() {
            Some(context) => context,
            None if task.is_cancelled() => {
                task.abandon();
                return Some(self.retire(task));
            }
            None => match self.begin(task) {
                Ok(context) => context,
                Err(error) => {
                    task.refuse(error);
                    return Some(self.retire(task));
                }
            },
        };
        // SAFETY: it is new, or suspended since it came from the queue, and so are the others there; stacks are there until
        // their tasks are retired.
        unsafe { self.turns.enter(task, context) }.map(|over| self.retire(over))
    }

    /// The context of a task that is to run for the first time.
    fn begin(&self, task: Mine) -> Result<Context, stack::Error> {
        let stack = self.stacks.borrow_mut().take(task.own().stack_size.get())?;
        count(&self.seat.figures.begun, 1);
        let stack = Named::new(stack, task.name().unwrap_or_default());
        // SAFETY: the stack is the task's until it is retired: then its function has returned, or it is leaked.
        let context = unsafe { Context::new(&stack, task::entry) };
        if context.is_ok() {
            task.own().stack.set(Some(stack));
            more(&self.seat.figures.stacks);
        }
        context
    }

    /// Takes out a task that is over, and gives back its stack.
    fn retire(&self, task: Mine) -> Reference {
        count(&self.seat.figures.completed, 1);
        if task.own().stack.take().is_some() {
            less(&self.seat.figures.stacks);
        }
        less(&self.seat.figures.alive);
        self.team.dismiss();
        self.alive.remove(task)
    }

    /// Queues whatever the inbox, others who spawn and the clock have made ready.
    fn collect(&self, now: Instant) {
        self.shared.inbox.drain(self.turns.queue());
        if !self.seat.placed.is_empty() {
            let mut placed = self.seat.placed.take_all();
            while let Some(task) = placed.pop() {
                self.turns.queue().push(self.take_on(task));
            }
        }
        let mut timers = self.timers.borrow_mut();
        while let Some(task) = timers.expired(now) {
            self.seat.figures.timers.store(timers.len(), Ordering::Relaxed);
            if task.notify() {
                self.turns.queue().push(task);
            }
        }
    }

    fn count_timers(&self) {
        self.seat.figures.timers.store(self.timers.borrow().len(), Ordering::Relaxed);
    }
}
