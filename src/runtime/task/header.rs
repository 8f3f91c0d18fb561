//! The header of a task: everything that others may touch while it is parked, off its stack (invariant 3). A plain thread
//! that waits for tasks has one as well.
//!
//! # The word
//!
//! | value | meaning | who may set it |
//! |---|---|---|
//! | `EMPTY` | runs or is queued, and nobody has unparked it | the task |
//! | `PARKED` | waits for an unpark or a deadline | the task, on its way to the next one |
//! | `BLOCKED` | waits in place, holding its thread: it is unwinding, or is a plain thread | the task |
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
//! all of them.
//!
//! Who finds `PARKED` or `BLOCKED` has to know the task's worker, which is written once, by the thread that takes the task
//! on before its first line. A waker may have its reference from before that (from the handle, say). So the exchange that
//! announces `PARKED` or `BLOCKED` is a release and the swap to `NOTIFIED` an acquire as well: who finds the one sees the
//! worker. Nothing else is published by them: the worker touches the task again only on its own thread, and a foreign
//! waker touches only what is atomic. Loads of the worker may hence be relaxed, and so may those that only compare it
//! with the caller's own: that one was written by the caller's thread, or it is not there.
//!
//! # Who may touch what
//!
//! The atomics belong to everybody. [`Own`] belongs to the thread of the task's worker: it is reached through [`Mine`],
//! which does not leave that thread. Before a worker has taken the task on, it belongs to whoever has taken it out of the list
//! in which it waits for one, or has not put it in yet. One cell of it, the link of the queue a task is in, is lent to whoever queues the
//! task: there is only one, by the rule above, and it hands the link over with the queue.

use std::cell::Cell;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Instant;

use switchback::context::{Context, Running};
use switchback::stack::{Named, Pooled};

use super::cancel::Limit;
use super::cell::VTable;
use super::turns::{self, Home, Turns};

const EMPTY: u8 = 0;
const PARKED: u8 = 1;
const BLOCKED: u8 = 2;
const NOTIFIED: u8 = 3;

/// What a task needs from its worker beside its turns.
pub(crate) trait Scheduler: Sync {
    /// Queues a task whose word has just gone from parked to notified, from another thread.
    fn ready(&self, task: &Header);
    /// Ends a block of the worker's thread (`std::thread::park`). From any thread.
    fn unblock(&self);
    /// Has the task notified at `deadline`. On the worker's thread.
    fn set_timer(&self, task: Mine, deadline: Instant) -> Timer;
    /// Takes the timer back, if it has not come. On the worker's thread.
    fn cancel_timer(&self, timer: Timer);
}

/// Names a timer that is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub(crate) deadline: Instant,
    /// Tells timers of the same deadline apart, and orders them.
    pub(crate) serial: u64,
}

/// Who brings it forward.
pub(crate) enum Owner {
    /// The worker that has taken it on; null before that.
    Worker(AtomicPtr<Home>),
    /// Nobody: it is this plain thread.
    Thread(Thread),
}

/// See the module's documentation.
pub(crate) struct Header {
    word: AtomicU8,
    /// See [`cancel`](super::cancel).
    pub(super) cancelled: AtomicBool,
    /// Who holds the allocation: the worker while the task is alive, its handle, whoever may unpark it.
    references: AtomicUsize,
    /// Who waits for its end: see [`handle`](super::handle).
    pub(super) joiner: AtomicPtr<Header>,
    pub(super) vtable: &'static VTable,
    owner: Owner,
    name: Option<Box<str>>,
    own: Own,
}

/// What belongs to the thread that runs the task.
pub(crate) struct Own {
    /// The next one in the queue or the inbox that it is in.
    pub(crate) next: Cell<*const Header>,
    /// Whether it is in the queue of its worker.
    pub(crate) is_queued: Cell<bool>,
    /// Whether it waits for an unpark, or for its turn after one.
    pub(crate) is_parked: Cell<bool>,
    /// The runtime ends before the task does: it unwinds instead of waiting.
    pub(crate) is_unwinding: Cell<bool>,
    /// Operations left before the next forced yield.
    pub(super) budget: Cell<u32>,
    /// The reserve of its stack, in bytes, as it was asked for.
    pub(crate) stack_size: Cell<usize>,
    /// What it runs on, once it has begun.
    pub(crate) stack: Cell<Option<Named<Pooled>>>,
    /// How it goes elsewhere, and is continued, once it has begun.
    pub(super) running: Cell<Option<Running>>,
    /// What bounds its waits: see [`cancel`](super::cancel).
    limits: Cell<*const Limit>,
    /// The neighbours in the list of all living tasks of its worker.
    pub(crate) before: Cell<*const Header>,
    pub(crate) after: Cell<*const Header>,
}

impl Own {
    /// The running task's way elsewhere.
    ///
    /// # Panics
    ///
    /// If it has not begun.
    #[inline(always)]
    pub(super) fn running(&self) -> Running {
        match self.running.get() {
            Some(running) => running,
            None => unreachable!("a task that runs has begun"),
        }
    }

    /// Where it goes on; `None` if it has not begun.
    #[inline(always)]
    pub(crate) fn context(&self) -> Option<Context> {
        self.running.get().map(Running::context)
    }
}

// SAFETY: see "Who may touch what".
unsafe impl Sync for Header {}
// SAFETY: the same; what `Own` holds when the last reference goes is plain data: the stack was taken out before.
unsafe impl Send for Header {}

impl Header {
    #[inline(always)]
    pub(super) fn new(
        owner: Owner,
        name: Option<Box<str>>,
        stack_size: usize,
        vtable: &'static VTable,
        counts: usize,
    ) -> Header {
        Header {
            word: AtomicU8::new(EMPTY),
            cancelled: AtomicBool::new(false),
            references: AtomicUsize::new(counts),
            joiner: AtomicPtr::new(ptr::null_mut()),
            vtable,
            owner,
            name,
            own: Own {
                next: Cell::new(ptr::null()),
                is_queued: Cell::new(false),
                is_parked: Cell::new(false),
                is_unwinding: Cell::new(false),
                budget: Cell::new(super::BUDGET),
                stack_size: Cell::new(stack_size),
                stack: Cell::new(None),
                running: Cell::new(None),
                limits: Cell::new(ptr::null()),
                before: Cell::new(ptr::null()),
                after: Cell::new(ptr::null()),
            },
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the caller runs on the thread that alone can bring this task forward.
    pub(crate) fn runs_here(&self) -> bool {
        self.home().is_some_and(|home| Turns::with(|turns| turns.are_of(home)) == Some(true))
    }

    /// Its worker; `None` if none has taken it on yet, or if it is a plain thread.
    #[inline]
    fn home(&self) -> Option<&'static Home> {
        match &self.owner {
            // Relaxed: see "Ordering".
            // SAFETY: it is null or what `settle` or `Owner` was given.
            Owner::Worker(home) => unsafe { home.load(Ordering::Relaxed).as_ref() },
            Owner::Thread(_) => None,
        }
    }

    /// As [`home`](Header::home).
    pub(super) fn scheduler(&self) -> Option<&'static dyn Scheduler> {
        self.home().map(|home| home.0)
    }

    /// Lets the task go on: from any thread, at any time, also when the task is long over.
    pub(crate) fn unpark(&self) {
        // Release: pairs with the acquire in `take_token`. Acquire: pairs with the release in `announce`.
        match (self.word.swap(NOTIFIED, Ordering::AcqRel), &self.owner) {
            (PARKED, Owner::Worker(_)) => {
                if let Some(home) = self.home() {
                    turns::ready(self, home);
                }
            }
            (BLOCKED, Owner::Worker(_)) => {
                if let Some(home) = self.home() {
                    home.0.unblock();
                }
            }
            (BLOCKED, Owner::Thread(thread)) => thread.unpark(),
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
        // Release: pairs with the acquire in `unpark`. Relaxed if it fails, since `take_token` acquires.
        let announced = self.word.compare_exchange(EMPTY, state, Ordering::Release, Ordering::Relaxed).is_ok();
        if !announced {
            self.take_token();
        }
        announced
    }

    /// Ends a wait: takes the token. Says whether there was one.
    pub(crate) fn take_token(&self) -> bool {
        // Acquire: pairs with the release in `unpark`.
        self.word.swap(EMPTY, Ordering::Acquire) == NOTIFIED
    }

    /// The limits of the calling task or thread, whose header this must be.
    #[inline]
    pub(super) fn own_limits(&self) -> &Cell<*const Limit> {
        &self.own.limits
    }

    /// The link of the queue that this task is put into.
    ///
    /// # Safety
    ///
    /// The caller must be the one who queues it, and must not have handed it on yet; or have got it with the queue.
    pub(crate) unsafe fn next(&self) -> &Cell<*const Header> {
        &self.own.next
    }
}

/// A counted reference to a header: whoever has one may use what is atomic in it, from any thread.
#[repr(transparent)]
pub(crate) struct Reference(NonNull<Header>);

// SAFETY: as a reference to a header, which is `Sync`; who drops the last one frees what may be freed anywhere.
unsafe impl Send for Reference {}
// SAFETY: the same.
unsafe impl Sync for Reference {}

impl Reference {
    /// Takes over one count.
    ///
    /// # Safety
    ///
    /// The caller must own one, of a header that [`cell`](super::cell) made.
    pub(crate) unsafe fn from_raw(header: NonNull<Header>) -> Reference {
        Reference(header)
    }

    /// Gives up the count to whoever passes this to [`from_raw`](Reference::from_raw).
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        let header = self.0;
        std::mem::forget(self);
        header
    }

    pub(crate) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }
}

impl Deref for Reference {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: it is there as long as there is a count.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Reference {
    #[inline]
    fn clone(&self) -> Reference {
        // Relaxed: there is a count already, so the header cannot go meanwhile.
        if self.references.fetch_add(1, Ordering::Relaxed) > usize::MAX / 2 {
            // So many can only be leaked ones; to go on would free the header while it is in use.
            std::process::abort();
        }
        Reference(self.0)
    }
}

impl Drop for Reference {
    #[inline]
    fn drop(&mut self) {
        // Release: what was done with this reference comes before the end. Acquire: the end comes after all of that.
        if self.references.fetch_sub(1, Ordering::Release) == 1 {
            // A load, since ThreadSanitizer knows no fences.
            self.references.load(Ordering::Acquire);
            // SAFETY: it was the last one, and `cell` has made it.
            unsafe { (self.vtable.free)(self.0) };
        }
    }
}

/// A living task of the worker whose thread this is: the way to what is [`Own`].
///
/// It is lent by the worker's count, so it must not be kept beyond the task's retirement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mine(NonNull<Header>);

impl Mine {
    /// # Safety
    ///
    /// It must be a living task of the worker whose thread this is.
    pub(crate) unsafe fn new(header: NonNull<Header>) -> Mine {
        Mine(header)
    }

    pub(crate) fn as_ptr(self) -> NonNull<Header> {
        self.0
    }

    #[inline]
    pub(crate) fn own(&self) -> &Own {
        // SAFETY: it lives, and we are on its thread.
        &unsafe { self.0.as_ref() }.own
    }

    /// Says that the worker whose thread this is takes it on, for good.
    pub(crate) fn settle(self, home: &'static Home) {
        if let Owner::Worker(place) = &self.owner {
            // Relaxed: the release in `announce` comes after it.
            place.store(ptr::from_ref(home).cast_mut(), Ordering::Relaxed);
        }
    }

    /// One more count.
    pub(super) fn to_reference(self) -> Reference {
        // SAFETY: the worker has a count, which stays with it.
        let lent = std::mem::ManuallyDrop::new(unsafe { Reference::from_raw(self.0) });
        Reference::clone(&lent)
    }
}

impl Deref for Mine {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: it lives.
        unsafe { self.0.as_ref() }
    }
}
