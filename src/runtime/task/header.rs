//! The header of a task: everything that others may touch while it is parked, off its stack (invariant 3).
//!
//! # The word
//!
//! | value | meaning | who may set it |
//! |---|---|---|
//! | `EMPTY` | runs or is queued, and nobody has unparked it | the task |
//! | `PARKED` | waits for an unpark or a deadline | the task, on its way to its worker |
//! | `BLOCKED` | waits in place, holding its thread, because it is unwinding | the task |
//! | `NOTIFIED` | has been unparked since it last looked | anybody |
//!
//! An unpark is one swap to `NOTIFIED`, and what it finds says what is left to do: at `PARKED` the task has to be
//! queued, at `BLOCKED` its thread has to be unblocked, else nothing. Since exactly one swap finds `PARKED`, a task is
//! never queued twice; a deadline that comes is just one more unpark, made by the worker. Hence what the worker keeps
//! about a task needs neither locks nor guards against stale wake-ups.
//!
//! # Ordering
//!
//! What a waker wrote before it unparked must be seen by the task afterwards. The swap to `NOTIFIED` is a release, and
//! the swap with which the task takes the token (`take_token`) is an acquire, so the two pair. If several wakers come,
//! each swap is a read-modify-write that continues the release sequence of those before it, so the task acquires from
//! all of them. `PARKED` and `BLOCKED` publish nothing (the worker touches the task again only on its own thread, and
//! a foreign waker touches only the header), so storing them may be relaxed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

const EMPTY: u8 = 0;
const PARKED: u8 = 1;
const BLOCKED: u8 = 2;
const NOTIFIED: u8 = 3;

/// The place of a task in the worker's arena. Valid while the task is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u32);

impl Key {
    /// The key of a task that was never admitted to an arena.
    pub(crate) const NONE: Key = Key(u32::MAX);
}

/// What a task needs from whoever runs it. All of it may be called from any thread.
pub(crate) trait Scheduler: Send + Sync {
    /// Queues a task whose word has just gone from parked to notified.
    fn ready(&self, key: Key);
    /// Ends a block of the worker's thread (`std::thread::park`).
    fn unblock(&self);
    /// Whether the caller runs on the thread that runs these tasks.
    fn is_here(&self) -> bool;
}

/// See the module's documentation.
pub(crate) struct Header {
    word: AtomicU8,
    /// Set when the runtime ends before the task does. Written and read on the task's thread only, so relaxed.
    unwinding: AtomicBool,
    key: Key,
    name: Option<Box<str>>,
    scheduler: Arc<dyn Scheduler>,
}

impl Header {
    pub(crate) fn new(key: Key, name: Option<Box<str>>, scheduler: Arc<dyn Scheduler>) -> Header {
        Header { word: AtomicU8::new(EMPTY), unwinding: AtomicBool::new(false), key, name, scheduler }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the caller runs on the thread that alone can bring this task forward.
    pub(crate) fn runs_here(&self) -> bool {
        self.scheduler.is_here()
    }

    /// Lets the task go on: from any thread, at any time, also when the task is long over.
    pub(crate) fn unpark(&self) {
        // Release: pairs with the acquire in `take_token`.
        match self.word.swap(NOTIFIED, Ordering::Release) {
            PARKED => self.scheduler.ready(self.key),
            BLOCKED => self.scheduler.unblock(),
            _ => {}
        }
    }

    /// As [`unpark`](Header::unpark), for the worker itself: says whether the caller has to queue the task.
    pub(crate) fn notify(&self) -> bool {
        // Relaxed: on the task's own thread, so program order does.
        self.word.swap(NOTIFIED, Ordering::Relaxed) == PARKED
    }

    /// Announces that the task is about to switch away. `false`: it has been unparked already, and the token is taken.
    pub(super) fn start_parking(&self) -> bool {
        self.announce(PARKED)
    }

    /// Announces that the task is about to block its thread. `false` as in [`start_parking`](Header::start_parking).
    pub(super) fn start_blocking(&self) -> bool {
        self.announce(BLOCKED)
    }

    fn announce(&self, state: u8) -> bool {
        // Relaxed: see "Ordering" above; if it fails, `take_token` acquires.
        let announced = self.word.compare_exchange(EMPTY, state, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !announced {
            self.take_token();
        }
        announced
    }

    /// Ends a wait: takes the token, if there is one.
    pub(super) fn take_token(&self) {
        // Acquire: pairs with the release in `unpark`.
        self.word.swap(EMPTY, Ordering::Acquire);
    }

    /// Whether an unpark has come that the task has not taken. Its answer orders nothing.
    pub(super) fn has_token(&self) -> bool {
        self.word.load(Ordering::Relaxed) == NOTIFIED
    }

    /// From now on the task unwinds instead of waiting. Called by the worker, while the task is suspended.
    pub(crate) fn start_unwinding(&self) {
        self.unwinding.store(true, Ordering::Relaxed);
        // It will not be resumed, so an unpark must not queue it any more.
        self.take_token();
    }

    pub(super) fn is_unwinding(&self) -> bool {
        self.unwinding.load(Ordering::Relaxed)
    }
}
