//! What a worker's thread does: its loop, and what it does when there is nothing to do.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use switchback::stack;

use super::alive::Alive;
use super::idle::Work;
use super::shared::Shared;
use super::team::count;
use super::threads::Threads;
use super::{LOCAL, Local, Settings, Team};
use crate::driver::{self, Driver};
use crate::task::handle::{Cause, JoinError, JoinHandle};
use crate::task::{Mine, Reference, Taking, Turns};

/// Turns after which inbox and clock are looked at although tasks are ready: that costs some 30 ns, a turn 5 ns at best.
/// Prime, so that no pattern of tasks falls in step; it is tokio's figure.
const TURNS: u32 = 61;

/// How long the driver may be left alone while tasks are ready. To ask it is a system call of some 300 ns, which would
/// double the cost of short turns; and what comes from outside has been on its way for longer than this.
const SLICE: Duration = Duration::from_micros(100);

/// The longest sleep in the driver. Nothing depends on it; it keeps the timeout within what every kernel accepts.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Whether a runtime may be run on the calling thread, as far as it can be told without a descriptor.
///
/// # Errors
///
/// If it is a worker already, or is panicking.
pub(crate) fn may_run_here() -> io::Result<()> {
    if Turns::are_taken() {
        return Err(io::Error::other("a runtime runs on this thread already: spawn a task instead of nesting `run`"));
    }
    if std::thread::panicking() {
        return Err(io::Error::other("a runtime cannot run while its thread is panicking: its tasks could not switch"));
    }
    Ok(())
}

fn thread_is_ending() -> io::Error {
    io::Error::other("a runtime cannot run on a thread that is ending: its thread-locals are gone")
}

/// A worker on the calling thread, ready to run. Dropping it ends every task that it has taken on.
pub(crate) struct Worker {
    _taking: Taking,
    local: Box<Local>,
    driver: Driver,
    _entered: driver::Entered,
}

impl Worker {
    /// Makes the calling thread, which [may](may_run_here) be one, a worker of the team.
    ///
    /// # Errors
    ///
    /// If it runs a coroutine just now, or if there is no memory.
    pub(crate) fn new(team: &Arc<Team>, index: usize, driver: Driver) -> io::Result<Worker> {
        // The worker and its tasks are found through thread-locals. A coroutine around them could be suspended by a task
        // and leave those behind for whoever resumed it, who would then wait in the name of a task that is not running.
        if !stack::is_the_threads() {
            return Err(io::Error::other(
                "a runtime must run on the thread's own stack, not inside a coroutine or `on_stack`; where the system \
                 does not say which stack that is (no /proc, no descriptor left), it cannot run",
            ));
        }
        let entered = driver.enter().ok_or_else(thread_is_ending)?;
        let seat = team.seats[index].clone();
        let shared = Shared::take(driver.waker())?;
        let shared = *seat.shared.get_or_init(|| shared);
        let local = Box::new(Local {
            team: team.clone(),
            index,
            alone: team.is_one(),
            seat,
            shared,
            home: shared.home(),
            turns: Turns::new(shared.home()),
            alive: Alive::default(),
            timers: RefCell::default(),
            stacks: RefCell::default(),
            in_hand: Cell::new(None),
            is_freshs_turn: Cell::new(false),
            looks: Cell::new(0),
            closing: Cell::new(false),
            root: Cell::new(ptr::null()),
        });
        LOCAL.set(Some(NonNull::from(&*local)));
        // SAFETY: the box stays, and is dropped after this.
        let taking = unsafe { local.turns.take() };
        Ok(Worker { _taking: taking, local, _entered: entered, driver })
    }

    /// Runs `function` as the first task, and what it spawns, until it is over; then ends the others, and the other workers.
    ///
    /// When this returns or unwinds, no task is left, and `function` has been run to its end, unwound or dropped: what it
    /// borrows is not used any more.
    ///
    /// # Errors
    ///
    /// If there is no memory for the first task, or a driver cannot be asked any more; all tasks are ended then.
    pub(crate) fn run<F, T>(self, others: Threads, settings: Settings, function: F) -> io::Result<Result<T, JoinError>>
    where
        F: FnOnce() -> T,
    {
        // If this unwinds, the worker ends its tasks first, which is the way round in which others may wait for it.
        let (others, worker) = (others, self);
        let root = match worker.local.spawn_here(settings, function) {
            Ok(root) => root,
            Err((refused, _function)) => {
                return match refused.join() {
                    Err(error) if matches!(error.cause(), Cause::NoMemory) => Err(io::ErrorKind::OutOfMemory.into()),
                    Err(error) => Err(io::Error::other(error)),
                    Ok(value) => Ok(Ok(value)),
                };
            }
        };
        worker.local.root.set(root.as_ptr().as_ptr());
        let handle = JoinHandle::new(root);
        let ran = worker.until(|| handle.is_finished());
        let team = worker.local.team.clone();
        team.end(ran.err());
        drop(worker);
        drop(others);
        match (handle.join(), team.take_failure()) {
            // Whatever has become of it then.
            (Err(error), Some(failure)) if error.is_cancelled() => Err(failure),
            (result, _) => Ok(result),
        }
    }

    /// Runs until the runtime ends, or until `is_over` says so, which is asked whenever a task is over.
    pub(super) fn until(&self, is_over: impl Fn() -> bool) -> io::Result<()> {
        let Worker { local, driver, .. } = self;
        let mut events = driver::Events::new();
        let mut asked = Instant::now();
        loop {
            if !(local.turns.spend() || local.turns.give_again() && local.turns.spend()) {
                local.turns.give(TURNS);
                let now = Instant::now();
                if now.saturating_duration_since(asked) >= SLICE {
                    asked = now;
                    driver.poll(&mut events, Duration::ZERO)?;
                }
                local.collect(now);
                local.help();
                if local.team.is_ending() {
                    return Ok(());
                }
            }
            match local.next() {
                Some(task) => {
                    if local.enter(task).is_some() && is_over() {
                        return Ok(());
                    }
                }
                None => {
                    local.collect(Instant::now());
                    if local.turns.queue().is_empty() {
                        local.rest(driver, &mut events)?;
                    }
                    if local.team.is_ending() {
                        return Ok(());
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

impl Local {
    /// The task whose turn it is. Those that have begun and those that have not take turns, so that neither wait for ever.
    #[inline]
    fn next(&self) -> Option<Mine> {
        if self.alone {
            return self.turns.queue().pop();
        }
        if let Some(task) = self.in_hand.take() {
            return Some(self.take_on(task));
        }
        let begun = || self.turns.queue().pop();
        let fresh = || self.seat.fresh.pop().map(|task| self.take_on(task));
        let next = match self.is_freshs_turn.replace(!self.is_freshs_turn.get()) {
            true => fresh().or_else(begun),
            false => begun().or_else(fresh),
        };
        if !self.seat.fresh.is_empty() {
            self.turns.summon();
        }
        next
    }

    /// Takes a task from another worker now and then although there is enough to do: that one may be busy for long, and
    /// those who have nothing to do may be none.
    fn help(&self) {
        if !self.alone
            && let Some(task) = self.neighbour().fresh.pop()
        {
            count(&self.seat.figures.stolen, 1);
            self.hold(task);
        }
    }

    /// Takes a task that is to be begun next. If there was one already, that one is for whoever has time.
    fn hold(&self, task: Reference) {
        if let Some(before) = self.in_hand.replace(Some(task)) {
            match self.seat.fresh.push(before) {
                Ok(()) => self.team.call(),
                Err(before) => self.team.drop_fresh(before),
            }
        }
    }

    /// Another worker: each time the next one.
    fn neighbour(&self) -> &super::Seat {
        let seats = &self.team.seats;
        let looks = self.looks.replace(self.looks.get().wrapping_add(1));
        let distance = 1 + looks % (seats.len() - 1);
        &seats[(self.index + distance) % seats.len()]
    }

    /// Finds something to do, or sleeps until there is. For when there is nothing in the queue.
    fn rest(&self, driver: &Driver, events: &mut driver::Events) -> io::Result<()> {
        if self.alone {
            return self.sleep(driver, events);
        }
        self.team.idle.rest(self.index, &mut Resting { local: self, driver, events })
    }

    /// Takes tasks from another worker. Says whether there is something to do now.
    fn search(&self) -> bool {
        if !self.seat.fresh.is_empty() {
            return true;
        }
        for _ in 1..self.team.seats.len() {
            let mut taken = self.neighbour().fresh.take_half();
            let stolen = taken.len() as u64;
            // One is ours for good, so that workers do not take the last task from each other for ever.
            if let Some(first) = taken.pop() {
                count(&self.seat.figures.stolen, stolen);
                self.hold(first);
                self.team.refuse(self.seat.fresh.append(taken));
                return true;
            }
        }
        false
    }

    /// Sleeps until a timer, the driver or another thread makes a task ready.
    fn sleep(&self, driver: &Driver, events: &mut driver::Events) -> io::Result<()> {
        if !self.shared.inbox.fall_asleep() {
            return Ok(());
        }
        // Whoever places a task here, or ends the runtime, has a fence between that and looking whether we sleep.
        fence(Ordering::SeqCst);
        if !self.seat.placed.is_empty() || self.team.is_ending() {
            self.shared.inbox.wake_up();
            return Ok(());
        }
        count(&self.seat.figures.sleeps, 1);
        let timeout =
            self.timers.borrow().next().map_or(LONGEST_SLEEP, |deadline| {
                deadline.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP)
            });
        let polled = driver.poll(events, timeout);
        self.shared.inbox.wake_up();
        polled
    }
}

/// A worker that has nothing to do, and those beside it.
struct Resting<'a> {
    local: &'a Local,
    driver: &'a Driver,
    events: &'a mut driver::Events,
}

impl Work for Resting<'_> {
    fn search(&mut self) -> bool {
        self.local.search()
    }

    fn is_left(&self) -> bool {
        self.local.team.has_fresh()
    }

    fn sleep(&mut self) -> io::Result<()> {
        self.local.sleep(self.driver, self.events)
    }

    fn wake(&self, worker: usize) {
        self.local.team.wake(worker);
    }

    fn was_called(&self) {
        count(&self.local.seat.figures.called, 1);
    }
}
