//! Readiness by epoll: a descriptor is registered once, edge-triggered, for both directions, on its first wait.
//!
//! # Why no event is lost
//!
//! An edge is reported once, so it must find its waiter. A task waits only after an attempt that would have blocked,
//! and between that attempt and its park nothing else runs on its thread; events are collected on that thread too. So
//! an edge that comes after the attempt is still in the kernel's list when the task has parked, and the next poll
//! wakes it. When a descriptor is registered the kernel reports what is ready at that moment as an edge. All tasks
//! that wait for the same thing are woken: those who come too late wait for the next edge, which the kernel makes
//! whenever something arrives after an attempt has found nothing.
//!
//! # Who is woken by a stale event
//!
//! Nobody that matters. An event names a place in the table and the place's generation; if the descriptor has been
//! forgotten meanwhile and the place given to another, the generations differ and the event is dropped.
//!
//! The table is shared, because the owner of a descriptor may forget it on any thread; the lock is held for a few
//! instructions beside a system call, and waiters are woken outside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use slab::Slab;

use super::{Direction, timed_out};
use crate::task::{self, Unparker};

/// Events taken from the kernel at once: 12 KiB of them. More would make the first wait for the last.
const BATCH: usize = 1024;

/// What the wake-up descriptor is registered under; no place has this number.
const WAKE: u64 = u64::MAX;

/// One worker's way to the kernel. A clone is the same driver.
#[derive(Clone)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    waker: Waker,
}

struct Shared {
    epoll: OwnedFd,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    places: Slab<Place>,
    /// Given to the next place that is filled.
    generation: u32,
}

struct Place {
    generation: u32,
    readers: Vec<Unparker>,
    writers: Vec<Unparker>,
}

impl Place {
    fn waiting(&mut self, direction: Direction) -> &mut Vec<Unparker> {
        match direction {
            Direction::Read => &mut self.readers,
            Direction::Write => &mut self.writers,
        }
    }
}

/// Where a registered descriptor is in a driver's table.
#[derive(Clone, Copy)]
pub(crate) struct Token {
    index: u32,
    generation: u32,
}

impl Token {
    fn to_word(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_word(word: u64) -> Token {
        Token { index: word as u32, generation: (word >> 32) as u32 }
    }
}

impl Table {
    fn get(&mut self, token: Token) -> Option<&mut Place> {
        self.places.get_mut(token.index as usize).filter(|place| place.generation == token.generation)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // No foreign code runs under this lock, so poison means nothing.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for the answers of the kernel, reused from poll to poll.
pub(crate) struct Events {
    buffer: Vec<epoll::Event>,
    ready: Vec<Unparker>,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events { buffer: Vec::with_capacity(BATCH), ready: Vec::new() }
    }
}

impl Driver {
    /// # Errors
    ///
    /// If the process or the system has no descriptor left; two are needed.
    pub(crate) fn new() -> io::Result<Driver> {
        let failed = |what: &str, error: Errno| {
            let remedy = match error {
                Errno::MFILE => ": raise the limit of open files (`ulimit -n`)",
                Errno::NFILE => ": raise `fs.file-max`",
                _ => "",
            };
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("the runtime cannot have {what}: {error}{remedy}"))
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| failed("an epoll descriptor", error))?;
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| failed("an eventfd", error))?;
        // Edge-triggered, so the count need never be read: each write is an edge of its own.
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN | epoll::EventFlags::ET)
            .map_err(|error| failed("its wake-up watched", error))?;
        let shared = Shared { epoll, table: Mutex::default() };
        Ok(Driver { shared: Arc::new(shared), waker: Waker { eventfd: Arc::new(wake) } })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Wakes the tasks whose descriptors have become ready; if there are none, sleeps until there are, until a
    /// [`Waker`] is used, or until the timeout, rounded up to milliseconds, is over.
    pub(crate) fn poll(&self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        let Events { buffer, ready } = events;
        buffer.clear();
        let timeout = Timespec::try_from(timeout).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match epoll::wait(&self.shared.epoll, rustix::buffer::spare_capacity(buffer), Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        {
            let mut table = self.shared.lock();
            for event in buffer.iter() {
                use epoll::EventFlags as Is;
                let word = event.data.u64();
                if word == WAKE {
                    continue;
                }
                let Some(place) = table.get(Token::from_word(word)) else { continue };
                let flags = event.flags;
                // What has failed or been hung up will not block either.
                if flags.intersects(Is::IN | Is::PRI | Is::RDHUP | Is::HUP | Is::ERR) {
                    ready.append(&mut place.readers);
                }
                if flags.intersects(Is::OUT | Is::HUP | Is::ERR) {
                    ready.append(&mut place.writers);
                }
            }
        }
        for task in ready.drain(..) {
            task.unpark();
        }
        Ok(())
    }

    /// Registers a descriptor; what is ready now will be reported by the next poll.
    pub(super) fn register(&self, descriptor: BorrowedFd<'_>) -> io::Result<Registration> {
        let token = {
            let mut table = self.shared.lock();
            table.generation = table.generation.wrapping_add(1);
            let generation = table.generation;
            let index = table.places.insert(Place { generation, readers: Vec::new(), writers: Vec::new() });
            // There are no more descriptors than fit into an `i32`.
            Token { index: index as u32, generation }
        };
        let registration = Registration { driver: Arc::downgrade(&self.shared), token };
        use epoll::EventFlags as For;
        let flags = For::IN | For::OUT | For::RDHUP | For::ET;
        match epoll::add(&self.shared.epoll, descriptor, epoll::EventData::new_u64(token.to_word()), flags) {
            Ok(()) => Ok(registration),
            Err(error) => {
                self.shared.lock().places.remove(token.index as usize);
                Err(match error {
                    Errno::NOSPC => io::Error::other(
                        "no more descriptors can be watched by this user: raise `fs.epoll.max_user_watches`",
                    ),
                    error => error.into(),
                })
            }
        }
    }

    /// As [`Source::wait`](super::Source::wait).
    pub(super) fn wait(&self, token: Token, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
        let waiting = Waiting { shared: &self.shared, token, direction, task: Unparker::current() };
        waiting.enlist();
        loop {
            task::park_cancellable(deadline)?;
            if !waiting.is_enlisted() {
                return Ok(());
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(timed_out());
            }
        }
    }
}

/// A task in the list of those who wait for a descriptor; taken off the list when dropped, however the wait ends.
struct Waiting<'a> {
    shared: &'a Shared,
    token: Token,
    direction: Direction,
    task: Unparker,
}

impl Waiting<'_> {
    fn enlist(&self) {
        if let Some(place) = self.shared.lock().get(self.token) {
            place.waiting(self.direction).push(self.task.clone());
        }
    }

    /// Whether no event has come yet.
    fn is_enlisted(&self) -> bool {
        let mut table = self.shared.lock();
        let Some(place) = table.get(self.token) else { return false };
        place.waiting(self.direction).iter().any(|other| other.is_same(&self.task))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.shared.lock().get(self.token) {
            place.waiting(self.direction).retain(|other| !other.is_same(&self.task));
        }
    }
}

/// A descriptor in a driver's table. It does not keep the driver alive.
pub(crate) struct Registration {
    driver: Weak<Shared>,
    token: Token,
}

impl Registration {
    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn is_with(&self, driver: &Driver) -> bool {
        std::ptr::eq(self.driver.as_ptr(), Arc::as_ptr(&driver.shared))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.driver.strong_count() > 0
    }

    /// Takes the descriptor out of the kernel's list and the driver's table.
    pub(super) fn end(self, descriptor: BorrowedFd<'_>) {
        let Some(driver) = self.driver.upgrade() else { return };
        // It can only fail if the descriptor is not there, which is what we want.
        let _ = epoll::delete(&driver.epoll, descriptor);
        driver.lock().places.try_remove(self.token.index as usize);
    }
}

/// Ends the sleep of a driver, from any thread.
#[derive(Clone)]
pub(crate) struct Waker {
    eventfd: Arc<OwnedFd>,
}

impl Waker {
    pub(crate) fn wake(&self) {
        // It fails only if the count is full, in which case a wake-up is on its way.
        let _ = rustix::io::write(self.eventfd.as_fd(), &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::driver::{CURRENT, Source};

    #[test]
    fn a_stale_event_does_not_find_the_place_of_another_descriptor() {
        let driver = Driver::new().unwrap();
        let (first, second) = UnixStream::pair().unwrap();
        let old = driver.register(first.as_fd()).unwrap();
        let stale = old.token();
        old.end(first.as_fd());
        let new = driver.register(second.as_fd()).unwrap().token();
        assert_eq!(stale.index, new.index, "the place was not used again");
        let mut table = driver.shared.lock();
        assert!(table.get(stale).is_none());
        assert!(table.get(new).is_some());
        assert!(table.get(Token::from_word(new.to_word())).is_some());
    }

    #[test]
    fn a_wait_leaves_no_waiter_behind_and_forgetting_leaves_no_place() {
        crate::run(|| {
            let driver = CURRENT.with_borrow(Option::clone).unwrap();
            let (near, mut far) = UnixStream::pair().unwrap();
            let mut source = Source::default();
            let waiters = || -> Vec<usize> {
                let table = driver.shared.lock();
                table.places.iter().map(|(_, place)| place.readers.len() + place.writers.len()).collect()
            };
            let soon = Some(Instant::now() + Duration::from_millis(2));
            let error = source.wait(near.as_fd(), Direction::Read, soon).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(waiters(), [0]);
            far.write_all(b"x").unwrap();
            source.wait(near.as_fd(), Direction::Read, None).unwrap();
            assert_eq!(waiters(), [0]);
            source.forget(near.as_fd());
            assert_eq!(waiters(), []);
        })
        .unwrap();
    }
}
