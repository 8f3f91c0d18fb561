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
//! # Who switches where
//!
//! The thread's own stack is the root: it runs the loop. It enters the first task of the queue, and a task that parks or
//! yields goes straight to the next one, one switch and no loop between. It leaves to the root instead if that one has not
//! begun (who begins on what stack is the root's business, for which there is room there), if there is none, or if
//! [`TURNS`] have passed: then the root looks at the inbox, the clock and the driver, and sleeps in the driver until the
//! next timer if there is still nothing to do. A task that is over returns to the root, which gives back its stack.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use switchback::context::{Context, Left};
use switchback::stack::{self, Named};

use crate::driver::{self, Driver};
use crate::metrics::Metrics;
use crate::task::handle::{Cause, JoinError, JoinHandle};
use crate::task::{self, Header, Mine, Reference, Scheduler};

mod alive;
mod inbox;
mod queue;
mod shared;
mod stacks;
mod timers;

use alive::Alive;
use queue::Queue;
use shared::Shared;
use stacks::Stacks;
use timers::Timers;

/// Turns after which timers, inbox and driver are looked at although tasks are ready. A look costs a system call of
/// some 300 ns, a turn some 5 ns at best; tokio's 61 (prime, so that no pattern of tasks falls in step) fits here too.
const TURNS: u32 = 61;

/// The longest sleep in the driver. Nothing depends on it; it keeps the timeout within what every kernel accepts.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// How often a task that catches its unwinding and waits again is unwound again.
const UNWINDINGS: u32 = 100;

/// What the thread of a worker knows of it.
struct Local {
    shared: &'static Shared,
    alive: Alive,
    queue: Queue,
    timers: RefCell<Timers<Mine>>,
    stacks: RefCell<Stacks>,
    spawned: Cell<u64>,
    completed: Cell<u64>,
    /// Turns left before the next look.
    turns: Cell<u32>,
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
    fn yield_now(&self, task: Mine) {
        with_local(|local| {
            local.queue.push(task);
            local.switch(task);
        });
        task.continued();
    }

    fn park(&self, task: Mine, deadline: Option<Instant>) {
        with_local(|local| local.park(task, deadline));
        task.continued();
    }

    fn ready(&self, task: &Header) {
        let queued = with_local(|local| {
            let here = ptr::eq(local.shared, self);
            if here {
                // SAFETY: it was parked, so it lives, and is this worker's.
                local.queue.push(unsafe { Mine::new(NonNull::from(task)) });
            }
            here
        });
        if queued != Some(true) && self.inbox.push(task) {
            self.wake();
        }
    }

    fn unblock(&self) {
        self.unpark_thread();
    }

    fn is_here(&self) -> bool {
        with_local(|local| ptr::eq(local.shared, self)) == Some(true)
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
        let task = match task::new(self.shared, name, stack_size, function) {
            Ok(task) => task,
            Err((name, function)) => return Err((JoinHandle::refused(name, Cause::NoMemory), function)),
        };
        self.spawned.set(self.spawned.get() + 1);
        self.queue.push(self.alive.insert(task.clone()));
        Ok(task)
    }

    /// Runs others until the task is to go on.
    #[inline]
    fn park(&self, task: Mine, deadline: Option<Instant>) {
        let own = task.own();
        own.is_parked.set(true);
        match deadline {
            None => self.switch(task),
            Some(deadline) => {
                let timer = self.timers.borrow_mut().set(deadline, task);
                self.switch(task);
                self.timers.borrow_mut().cancel(timer);
            }
        }
        own.is_parked.set(false);
    }

    /// Switches from the running task, which has filed itself where it is to be found, to the next one or to the root.
    /// Returns when somebody has switched back.
    #[inline]
    fn switch(&self, task: Mine) {
        let Some(running) = task.own().running.get() else { return };
        match self.next_begun() {
            Some((next, _)) if next == task => {}
            Some((next, context)) => {
                task::set_current(Some(next));
                // SAFETY: it is the running task's, by `Scheduler`'s contract; the next one is suspended since it is in
                // the queue, on this thread, on a stack that is there until it is retired. The thread is not panicking.
                unsafe { running.switch_to(context, ptr::null_mut()) };
            }
            None => {
                task::set_current(None);
                // SAFETY: as above.
                unsafe { running.leave(ptr::null_mut()) };
            }
        }
    }

    /// Takes the next task out of the queue, unless it is time for the root.
    #[inline]
    fn next_begun(&self) -> Option<(Mine, Context)> {
        let turns = self.turns.get().checked_sub(1)?;
        let next = self.queue.peek()?;
        let running = next.own().running.get()?;
        self.turns.set(turns);
        self.queue.pop();
        Some((next, running.context()))
    }

    /// Runs a task, and those that it switches to, until one leaves or is over: that one is returned, retired.
    fn enter(&self, task: Mine) -> Option<Reference> {
        let context = match task.own().running.get() {
            Some(running) => running.context(),
            None => match self.begin(task) {
                Ok(context) => context,
                Err(error) => {
                    task.refuse(error);
                    return Some(self.retire(task));
                }
            },
        };
        self.go_on(task, context)
    }

    fn go_on(&self, task: Mine, context: Context) -> Option<Reference> {
        task::set_current(Some(task));
        // SAFETY: it is new, or suspended since it came from the queue; this thread's, on a stack that is there until it is
        // retired; a new one expects its header.
        let left = unsafe { context.enter(task.as_ptr().as_ptr().cast()) };
        let last = task::current();
        task::set_current(None);
        match (left, last) {
            (Left::Ended(_), Some(last)) => Some(self.retire(last)),
            _ => None,
        }
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
    fn collect(&self) {
        self.shared.inbox.drain(&self.queue);
        let mut timers = self.timers.borrow_mut();
        if timers.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(task) = timers.expired(now) {
            if task.notify() {
                self.queue.push(task);
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
        self.queue.close();
        while let Some(task) = self.alive.first() {
            match task.own().running.get() {
                Some(running) => self.unwind(task, running.context()),
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
            if self.go_on(task, context).is_some() {
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
            self.shared.inbox.drain(&self.queue);
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
        if LOCAL.get().is_some() {
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
        let local = Box::new(Local {
            shared: Shared::take(driver.waker())?,
            alive: Alive::default(),
            queue: Queue::default(),
            timers: RefCell::default(),
            stacks: RefCell::default(),
            spawned: Cell::new(0),
            completed: Cell::new(0),
            turns: Cell::new(TURNS),
            closing: Cell::new(false),
            root: Cell::new(ptr::null()),
        });
        LOCAL.set(Some(NonNull::from(&*local)));
        Ok(Worker { local, _entered: entered, driver })
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
        loop {
            match local.turns.get().checked_sub(1) {
                Some(turns) => local.turns.set(turns),
                None => {
                    local.turns.set(TURNS);
                    driver.poll(&mut events, Duration::ZERO)?;
                    local.collect();
                }
            }
            match local.queue.pop() {
                Some(task) => {
                    if local.enter(task).is_some() && handle.is_finished() {
                        return Ok(());
                    }
                }
                None => {
                    local.collect();
                    if local.queue.is_empty() {
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
