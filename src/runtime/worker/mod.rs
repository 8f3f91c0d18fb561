//! A worker: the thread that runs tasks, with its own run queue, timers, stacks and driver.
//!
//! Tasks never leave the thread on which they began (invariant 2), so all of this is plain data of one thread, lent
//! out through `RefCell` for a few instructions at a time and never while a task or any other foreign code runs. What
//! other threads reach is [`Shared`] alone: the inbox and the wake-up.
//!
//! # Where a task's key is
//!
//! A living task is in the arena; at any time its key is in at most one place: in the run queue or the inbox if it may
//! go on, else nowhere but in its header (and perhaps in a timer). A key enters the queue when the task is launched,
//! when it yields, and when its word goes from parked to notified, which only one party can observe (see
//! [`task::header`]). So no key is ever stale and nothing is looked up twice.
//!
//! # The loop
//!
//! Take the next key, run the task until it switches back, file it where it asked to be. Every [`TURNS`] turns, and
//! when the queue is empty, look at the inbox, the clock and the driver; if there is still nothing to do, sleep in the
//! driver until the next timer. A task that parks costs a switch to this loop and one from it to the next task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use switchback::Resumed;
use switchback::stack::{self, Named};

use crate::driver::{self, Driver, Waker};
use crate::metrics::Metrics;
use crate::task::{self, Fiber, Header, Job, Key, Scheduler, Suspended};

mod inbox;
mod slots;
mod stacks;
mod timers;

use inbox::Inbox;
use slots::{Body, Slot, Slots};
use stacks::Stacks;
use timers::Timers;

/// Turns after which timers, inbox and driver are looked at although tasks are ready. A look costs a system call of
/// some 300 ns, a turn some 10 ns at best; tokio's 61 (prime, so that no pattern of tasks falls in step) fits here too.
const TURNS: u32 = 61;

/// The longest sleep in the driver. Nothing depends on it; it keeps the timeout within what every kernel accepts.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// What the thread of a worker knows of it.
struct Local {
    shared: Arc<Shared>,
    slots: RefCell<Slots>,
    queue: RefCell<VecDeque<Key>>,
    timers: RefCell<Timers>,
    stacks: RefCell<Stacks>,
    spawned: Cell<u64>,
    completed: Cell<u64>,
    /// The runtime is ending: nothing is admitted any more.
    closing: Cell<bool>,
}

/// What other threads may touch of a worker. Lives as long as anybody could unpark one of its tasks.
struct Shared {
    inbox: Inbox,
    waker: Waker,
    thread: Thread,
}

thread_local! {
    /// The worker whose thread this is, while it is running.
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// Lends this thread's worker to `f`, which must not call foreign code; `None` if the thread has no worker.
fn with_local<R>(f: impl FnOnce(&Rc<Local>) -> R) -> Option<R> {
    // During the destruction of the thread's locals there is no worker any more.
    LOCAL.try_with(|local| local.borrow().as_ref().map(f)).ok().flatten()
}

impl Scheduler for Shared {
    fn ready(&self, key: Key) {
        let queued = with_local(|local| {
            let here = std::ptr::eq(&*local.shared, self);
            if here {
                local.queue.borrow_mut().push_back(key);
            }
            here
        });
        if queued != Some(true) && self.inbox.push(key) {
            self.waker.wake();
        }
    }

    fn unblock(&self) {
        self.thread.unpark();
    }

    fn is_here(&self) -> bool {
        with_local(|local| std::ptr::eq(&*local.shared, self)) == Some(true)
    }
}

/// Why a task was not admitted.
pub(crate) enum Refusal {
    /// The calling thread runs no runtime.
    NoRuntime,
    /// The runtime is ending. The header is that of a task which is over.
    Closing(Arc<Header>),
    /// The arena or the queue cannot grow. The header is that of a task which is over.
    NoMemory(Arc<Header>),
}

/// A place for one more task on this thread's worker.
pub(crate) struct Admitted {
    header: Arc<Header>,
}

/// Makes room for a task, which [`Admitted::launch`] then fills. Calls no foreign code.
pub(crate) fn admit(name: Option<Box<str>>, stack_size: usize) -> Result<Admitted, Refusal> {
    with_local(|local| local.admit(name, stack_size)).unwrap_or(Err(Refusal::NoRuntime))
}

impl Admitted {
    pub(crate) fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// Queues the task. Must be called, on the same thread, before any task can run; otherwise the place is lost.
    pub(crate) fn launch(self, job: Box<dyn Job>) {
        with_local(|local| {
            local.slots.borrow_mut().get_mut(self.header.key()).body = Body::Waiting(job);
            local.queue.borrow_mut().push_back(self.header.key());
        });
    }
}

/// The figures of this thread's worker.
pub(crate) fn metrics() -> Option<Metrics> {
    with_local(|local| {
        let stacks = local.stacks.borrow();
        Metrics {
            tasks: local.slots.borrow().len(),
            spawned: local.spawned.get(),
            completed: local.completed.get(),
            stacks: stacks.in_use(),
            stacks_cached: stack::pools().map(|pool| pool.stats().cached).sum(),
            stack_reserve: switchback::stack::DEFAULT_RESERVE,
        }
    })
}

impl Local {
    fn admit(&self, name: Option<Box<str>>, stack_size: usize) -> Result<Admitted, Refusal> {
        let header = |key| Arc::new(Header::new(key, name, self.shared.clone()));
        if self.closing.get() {
            return Err(Refusal::Closing(header(Key::NONE)));
        }
        let mut slots = self.slots.borrow_mut();
        let mut queue = self.queue.borrow_mut();
        // A key is in the queue at most once, so with room for all of them no later push has to allocate.
        let missing = (slots.len() + 1).saturating_sub(queue.len());
        let place = queue.try_reserve(missing).ok().and_then(|()| slots.vacant());
        let Some(key) = place else {
            return Err(Refusal::NoMemory(header(Key::NONE)));
        };
        let header = header(key);
        slots.fill(key, Slot { header: header.clone(), body: Body::Absent, stack_size, timer: None });
        self.spawned.set(self.spawned.get() + 1);
        Ok(Admitted { header })
    }

    /// Runs one task until it switches back. `true`: it is over.
    fn turn(&self, key: Key) -> bool {
        let (body, stack_size) = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots.get_mut(key);
            if let Some(timer) = slot.timer.take() {
                self.timers.borrow_mut().cancel(timer);
            }
            (std::mem::replace(&mut slot.body, Body::Absent), slot.stack_size)
        };
        let (mut fiber, job) = match body {
            Body::Started(fiber) => (fiber, None),
            Body::Waiting(job) => match self.start(key, stack_size) {
                Ok(fiber) => (fiber, Some(job)),
                Err(error) => {
                    self.retire(key);
                    task::quietly(|| job.refuse(error));
                    return true;
                }
            },
            Body::Absent => unreachable!("a task that is running is not queued"),
        };
        let request = match fiber.resume(job) {
            Resumed::Yielded(request) => request,
            Resumed::Returned(()) => {
                self.retire(key);
                drop(fiber.into_stack());
                self.stacks.borrow_mut().gone();
                return true;
            }
        };
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key);
        slot.body = Body::Started(fiber);
        match request {
            Suspended::Yielded => self.queue.borrow_mut().push_back(key),
            Suspended::Parked(None) => {}
            Suspended::Parked(Some(deadline)) => slot.timer = Some(self.timers.borrow_mut().set(deadline, key)),
        }
        false
    }

    /// The coroutine of a task that is to run for the first time.
    fn start(&self, key: Key, stack_size: usize) -> Result<Fiber, stack::Error> {
        let header = self.slots.borrow_mut().get_mut(key).header.clone();
        let stack = self.stacks.borrow_mut().take(stack_size)?;
        let stack = Named::new(stack, header.name().unwrap_or_default());
        Fiber::with_stack(stack, task::entry(header)).inspect_err(|_| self.stacks.borrow_mut().gone())
    }

    /// Takes a task that is over out of the arena.
    fn retire(&self, key: Key) -> Slot {
        self.completed.set(self.completed.get() + 1);
        self.slots.borrow_mut().empty(key)
    }

    /// Queues whatever the inbox and the clock have made ready.
    fn collect(&self) {
        let mut queue = self.queue.borrow_mut();
        self.shared.inbox.drain(&mut queue);
        let mut timers = self.timers.borrow_mut();
        if timers.is_empty() {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let now = Instant::now();
        while let Some(key) = timers.expired(now) {
            let slot = slots.get_mut(key);
            slot.timer = None;
            if slot.header.notify() {
                queue.push_back(key);
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

    /// Ends every task that is left, in the order of their places: one that has run is unwound on its stack, one that
    /// has not is dropped. What their destructors spawn is refused; whom they wake does not run any more.
    fn close(&self) {
        self.closing.set(true);
        let keys = self.slots.borrow().keys();
        for key in keys {
            // Its destructors may do anything but admit new tasks, so no key changes its meaning meanwhile.
            if !self.slots.borrow().contains(key) {
                continue;
            }
            let Slot { header, body, .. } = self.retire(key);
            let started = matches!(body, Body::Started(_));
            header.start_unwinding();
            task::quietly(|| drop(body));
            if started {
                self.stacks.borrow_mut().gone();
            }
        }
    }
}

fn thread_is_ending() -> io::Error {
    io::Error::other("a runtime cannot run on a thread that is ending: its thread-locals are gone")
}

/// A worker on the calling thread, ready to run. Dropping it ends every task that is left.
pub(crate) struct Worker {
    local: Rc<Local>,
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
        match LOCAL.try_with(|local| local.borrow().is_some()) {
            Ok(false) => {}
            Ok(true) => {
                return Err(io::Error::other(
                    "a runtime runs on this thread already: spawn a task instead of nesting `run`",
                ));
            }
            Err(_) => return Err(thread_is_ending()),
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
        let shared = Shared { inbox: Inbox::default(), waker: driver.waker(), thread: std::thread::current() };
        let local = Rc::new(Local {
            shared: Arc::new(shared),
            slots: RefCell::default(),
            queue: RefCell::default(),
            timers: RefCell::default(),
            stacks: RefCell::default(),
            spawned: Cell::new(0),
            completed: Cell::new(0),
            closing: Cell::new(false),
        });
        let entered = driver.enter().ok_or_else(thread_is_ending)?;
        LOCAL.set(Some(local.clone()));
        Ok(Worker { local, _entered: entered, driver })
    }

    /// Runs `root` and what it spawns until `root` is over, then ends the others.
    ///
    /// When this returns or unwinds, no task is left, and `root` has been run to its end, unwound or dropped: what it
    /// borrows is not used any more.
    ///
    /// # Errors
    ///
    /// If the driver cannot be asked any more; all tasks are ended then.
    pub(crate) fn run(self, root: Box<dyn Job>, name: Option<Box<str>>, stack_size: usize) -> io::Result<()> {
        let admitted = match self.local.admit(name, stack_size) {
            Ok(admitted) => admitted,
            Err(_) => return Err(io::ErrorKind::OutOfMemory.into()),
        };
        let root_key = admitted.header().key();
        admitted.launch(root);
        let mut events = driver::Events::new();
        let mut turns = 0;
        loop {
            let next = self.local.queue.borrow_mut().pop_front();
            let Some(key) = next else {
                self.local.collect();
                if self.local.queue.borrow().is_empty() {
                    self.local.sleep(&self.driver, &mut events)?;
                }
                continue;
            };
            if self.local.turn(key) && key == root_key {
                return Ok(());
            }
            turns += 1;
            if turns == TURNS {
                turns = 0;
                self.driver.poll(&mut events, Duration::ZERO)?;
                self.local.collect();
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.local.close();
        let _ = LOCAL.try_with(|local| local.take());
        self.local.shared.inbox.close();
    }
}
