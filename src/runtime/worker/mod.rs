//! A worker: the thread that runs tasks, with its own run queue, timers, stacks and driver.
//!
//! Tasks never leave the thread on which they began (invariant 2), so all of this is plain data of one thread, and none of
//! it is borrowed while a task or any other foreign code runs. What other threads reach is [`Shared`] alone: the inbox and
//! the wake-up.
//!
//! # Where a task is
//!
//! A living task is in [`Alive`]; at any time it is in at most one queue as well: in the run queue or the inbox if it may
//! go on, else in none (and perhaps in a timer). It enters the queue when it is spawned, when it yields, and when its word
//! goes from parked to notified, which only one party can observe (see [`task::header`]).
//!
//! # The loop
//!
//! The thread's own stack, the root, runs the loop: it enters the first task of the queue, and tasks go on from one to the
//! other (see [`Turns`]). When they have used up [`TURNS`], the root looks at the inbox and the clock, every [`SLICE`] at the
//! driver; if there is nothing to do it sleeps in the driver until the next timer. A task that is over returns to the
//! root, which gives back its stack.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use switchback::context::Context;
use switchback::stack::{self, Named};

use crate::driver::{self, Driver};
use crate::metrics::Metrics;
use crate::task::handle::{Cause, JoinError, JoinHandle};
use crate::task::{self, Header, Mine, Reference, Scheduler, Taking, Timer, Turns};

mod alive;
mod inbox;
#[cfg(test)]
mod nobody;
mod shared;
mod stacks;
mod timers;

use alive::Alive;
use shared::Shared;
use stacks::Stacks;
use timers::Timers;

/// Turns after which inbox and clock are looked at although tasks are ready: that costs some 30 ns, a turn 5 ns at best.
/// Prime, so that no pattern of tasks falls in step; it is tokio's figure.
const TURNS: u32 = 61;

/// How long the driver may be left alone while tasks are ready. To ask it is a system call of some 300 ns, which would
/// double the cost of short turns; and what comes from outside has been on its way for longer than this.
const SLICE: Duration = Duration::from_micros(100);

/// The longest sleep in the driver. Nothing depends on it; it keeps the timeout within what every kernel accepts.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// How often a task that catches its unwinding and waits again is unwound again.
const UNWINDINGS: u32 = 100;

/// What the thread of a worker knows of it.
struct Local {
    shared: &'static Shared,
    alive: Alive,
    turns: Turns,
    timers: RefCell<Timers<Mine>>,
    stacks: RefCell<Stacks>,
    spawned: Cell<u64>,
    completed: Cell<u64>,
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
        match with_local(|local| local.timers.borrow_mut().set(deadline, task)) {
            Some(timer) => timer,
            None => unreachable!("a task runs on a worker"),
        }
    }

    fn cancel_timer(&self, timer: Timer) {
        with_local(|local| local.timers.borrow_mut().cancel(timer));
    }
}

/// Starts a task on this thread's worker; `None` if it has none.
pub(crate) fn spawn<F, T>(name: Option<Box<str>>, stack_size: usize, function: F) -> Option<JoinHandle<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    // What cannot become a task is dropped, which is foreign code, when the worker is not lent any more.
    with_local(|local| local.spawn(name, stack_size, function)).map(|spawned| match spawned {
        Ok(task) => JoinHandle::new(task),
        Err((refused, _function)) => refused,
    })
}

/// The figures of this thread's worker.
pub(crate) fn metrics() -> Option<Metrics> {
    with_local(|local| {
        let stacks = local.stacks.borrow();
        Metrics {
            tasks: local.alive.len(),
            spawned: local.spawned.get(),
            completed: local.completed.get(),
            timers: local.timers.borrow().len(),
            stacks: stacks.in_use(),
            stacks_cached: stack::pools().map(|pool| pool.stats().cached).sum(),
            stack_reserve: switchback::stack::DEFAULT_RESERVE,
        }
    })
}

impl Local {
    /// Admits a task and queues it. Calls no foreign code.
    fn spawn<F, T>(
        &self,
        name: Option<Box<str>>,
        stack_size: usize,
        function: F,
    ) -> Result<Reference, (JoinHandle<T>, F)>
    where
        F: FnOnce() -> T,
    {
        if self.closing.get() {
            return Err((JoinHandle::refused(name, Cause::Cancelled), function));
        }
        let [ours, handles] = match task::new(self.shared, name, stack_size, function) {
            Ok(task) => task,
            Err((name, function)) => return Err((JoinHandle::refused(name, Cause::NoMemory), function)),
        };
        self.spawned.set(self.spawned.get() + 1);
        self.turns.queue().push(self.alive.insert(ours));
        Ok(handles)
    }

    /// Runs a task, and those that it switches to, until one leaves or is over: that one is returned, retired.
    fn enter(&self, task: Mine) -> Option<Reference> {
        let context = match task.own().context() {
            Some(context) => context,
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
        let stack = Named::new(stack, task.name().unwrap_or_default());
        // SAFETY: the stack is the task's until it is retired: then its function has returned, or it is leaked.
        let context = unsafe { Context::new(&stack, task::entry) };
        match &context {
            Ok(_) => task.own().stack.set(Some(stack)),
            Err(_) => self.stacks.borrow_mut().gone(),
        }
        context
    }

    /// Takes out a task that is over, and gives back its stack.
    fn retire(&self, task: Mine) -> Reference {
        self.completed.set(self.completed.get() + 1);
        if task.own().stack.take().is_some() {
            self.stacks.borrow_mut().gone();
        }
        self.alive.remove(task)
    }

    /// Queues whatever the inbox and the clock have made ready.
    fn collect(&self, now: Instant) {
        self.shared.inbox.drain(self.turns.queue());
        let mut timers = self.timers.borrow_mut();
        while let Some(task) = timers.expired(now) {
            if task.notify() {
                self.turns.queue().push(task);
            }
        }
    }

    /// Sleeps until a timer, the driver or another thread makes a task ready.
    fn sleep(&self, driver: &Driver, events: &mut driver::Events) -> io::Result<()> {
        if !self.shared.inbox.fall_asleep() {
            return Ok(());
        }
        let timeout =
            self.timers.borrow().next().map_or(LONGEST_SLEEP, |deadline| {
                deadline.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP)
            });
        let polled = driver.poll(events, timeout);
        self.shared.inbox.wake_up();
        polled
    }

    /// Ends every task that is left, in the order in which they were spawned: one that has begun is unwound on its stack, one
    /// that has not is dropped. What their destructors spawn is refused; whom they wake does not run any more.
    fn close(&self) {
        self.closing.set(true);
        self.turns.queue().close();
        while let Some(task) = self.alive.first() {
            match task.own().context() {
                Some(context) => self.unwind(task, context),
                None => {
                    task.cancel();
                    drop(self.retire(task));
                }
            }
        }
    }

    /// Ends a task that has begun.
    fn unwind(&self, task: Mine, context: Context) {
        task.own().is_unwinding.set(true);
        // Where panics abort there is no unwinding.
        let times = if cfg!(panic = "unwind") { UNWINDINGS } else { 0 };
        for _ in 0..times {
            self.wait_for_wakers(task);
            // SAFETY: it is suspended, and the queue is empty and closed.
            if let Some(over) = unsafe { self.turns.enter(task, context) } {
                drop(self.retire(over));
                return;
            }
        }
        self.wait_for_wakers(task);
        if ptr::eq(task.as_ptr().as_ptr(), self.root.get()) {
            // To return would leave it, or a thread that it lends to, with dangling borrows.
            eprintln!("the first task of a runtime could not be ended after its driver failed");
            std::process::abort();
        }
        // It never goes on, but what lies on its stack may be in use elsewhere.
        task.cancel();
        std::mem::forget(task.own().stack.take());
        self.stacks.borrow_mut().gone();
        drop(self.retire(task));
    }

    /// Sees to it that nobody is about to queue the task, which is suspended, nor will.
    fn wait_for_wakers(&self, task: Mine) {
        // If it was parked and has been notified, somebody has to queue it, and may be on the way. Now nobody else will,
        // since the word says neither.
        let notified = task.take_token();
        while task.own().is_parked.get() && notified && !task.own().is_queued.get() {
            self.shared.inbox.drain(self.turns.queue());
            std::thread::yield_now();
        }
        task.own().is_queued.set(false);
    }
}

fn thread_is_ending() -> io::Error {
    io::Error::other("a runtime cannot run on a thread that is ending: its thread-locals are gone")
}

/// A worker on the calling thread, ready to run. Dropping it ends every task that is left.
pub(crate) struct Worker {
    _taking: Taking,
    local: Box<Local>,
    driver: Driver,
    _entered: driver::Entered,
}

impl Worker {
    /// Makes the calling thread a worker.
    ///
    /// # Errors
    ///
    /// If it is one already, runs a coroutine just now or is panicking, or if the system has no descriptors for the
    /// driver.
    pub(crate) fn new() -> io::Result<Worker> {
        if Turns::are_taken() {
            return Err(io::Error::other(
                "a runtime runs on this thread already: spawn a task instead of nesting `run`",
            ));
        }
        if std::thread::panicking() {
            return Err(io::Error::other(
                "a runtime cannot run while its thread is panicking: its tasks could not switch",
            ));
        }
        // First, since what follows needs a descriptor for a moment, and could not say so.
        let driver = Driver::new()?;
        // The worker and its tasks are found through thread-locals. A coroutine around them could be suspended by a task
        // and leave those behind for whoever resumed it, who would then wait in the name of a task that is not running.
        if !stack::is_the_threads() {
            return Err(io::Error::other(
                "a runtime must run on the thread's own stack, not inside a coroutine or `on_stack`; where the system \
                 does not say which stack that is (no /proc, no descriptor left), it cannot run",
            ));
        }
        let entered = driver.enter().ok_or_else(thread_is_ending)?;
        let shared = Shared::take(driver.waker())?;
        let local = Box::new(Local {
            shared,
            turns: Turns::new(shared),
            alive: Alive::default(),
            timers: RefCell::default(),
            stacks: RefCell::default(),
            spawned: Cell::new(0),
            completed: Cell::new(0),
            closing: Cell::new(false),
            root: Cell::new(ptr::null()),
        });
        LOCAL.set(Some(NonNull::from(&*local)));
        // SAFETY: the box stays, and is dropped after this.
        let taking = unsafe { local.turns.take() };
        Ok(Worker { _taking: taking, local, _entered: entered, driver })
    }

    /// Runs `function` as the first task, and what it spawns, until it is over; then ends the others.
    ///
    /// When this returns or unwinds, no task is left, and `function` has been run to its end, unwound or dropped: what it
    /// borrows is not used any more.
    ///
    /// # Errors
    ///
    /// If there is no memory for the first task, or the driver cannot be asked any more; all tasks are ended then.
    pub(crate) fn run<F, T>(
        self,
        name: Option<Box<str>>,
        stack_size: usize,
        function: F,
    ) -> io::Result<Result<T, JoinError>>
    where
        F: FnOnce() -> T,
    {
        let Ok(root) = self.local.spawn(name, stack_size, function) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        self.local.root.set(root.as_ptr().as_ptr());
        let handle = JoinHandle::new(root);
        let ran = self.until(&handle);
        drop(self);
        match (handle.join(), ran) {
            // Whatever has become of it then.
            (Err(error), Err(failure)) if error.is_cancelled() => Err(failure),
            (result, _) => Ok(result),
        }
    }

    /// Runs until a task is over.
    fn until<T>(&self, handle: &JoinHandle<T>) -> io::Result<()> {
        let Worker { local, driver, .. } = self;
        let mut events = driver::Events::new();
        let mut asked = Instant::now();
        loop {
            if !local.turns.spend() {
                local.turns.give(TURNS);
                let now = Instant::now();
                if now.saturating_duration_since(asked) >= SLICE {
                    asked = now;
                    driver.poll(&mut events, Duration::ZERO)?;
                }
                local.collect(now);
            }
            match local.turns.queue().pop() {
                Some(task) => {
                    if local.enter(task).is_some() && handle.is_finished() {
                        return Ok(());
                    }
                }
                None => {
                    local.collect(Instant::now());
                    if local.turns.queue().is_empty() {
                        local.sleep(driver, &mut events)?;
                    }
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.local.close();
        LOCAL.set(None);
        // Nobody is on the way to the inbox: every task has been ended, and its wakers waited for.
        self.local.shared.give_back();
    }
}
