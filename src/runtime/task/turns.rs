//! Whose turn it is: the running task of a worker's thread, those that are next, and the switch from one to the other.
//!
//! The thread's own stack is the *root*: it enters a task of the queue, and a task that parks or yields goes straight to
//! the next one, one switch and nothing between. It leaves to the root instead if that one has not begun (who begins on what
//! stack is the root's business, for which there is room there), if there is none, or if the turns that the root has given are
//! used up, so that it looks at the clock and the system now and then, or when it has been summoned because tasks wait there that
//! have not begun.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use switchback::context::Context;

use super::header::{Header, Mine, Scheduler};
use super::queue::Queue;

/// What a task knows its worker by: one word wide, so that it can be written while others read it.
pub(crate) struct Home(pub(crate) &'static dyn Scheduler);

/// See the module's documentation. One for each worker, on its thread.
pub(crate) struct Turns {
    home: &'static Home,
    /// The task that runs just now. Set before each switch, so that the root's own code sees `None`.
    current: Cell<Option<Mine>>,
    queue: Queue,
    /// Left before the root is to be entered again.
    left: Cell<u32>,
    /// Taken away by [`summon`](Turns::summon), to be given again.
    held: Cell<u32>,
}

thread_local! {
    /// Those of the worker whose thread this is, while it is running.
    static TURNS: Cell<*const Turns> = const { Cell::new(ptr::null()) };
}

/// Makes, until it is dropped, a thread one on which tasks take turns.
pub(crate) struct Taking(());

impl Drop for Taking {
    fn drop(&mut self) {
        TURNS.set(ptr::null());
    }
}

impl Turns {
    pub(crate) fn new(home: &'static Home) -> Turns {
        Turns { home, current: Cell::new(None), queue: Queue::default(), left: Cell::new(0), held: Cell::new(0) }
    }

    /// Whether tasks take turns on this thread already.
    pub(crate) fn are_taken() -> bool {
        !TURNS.get().is_null()
    }

    /// From now on tasks take turns on this thread.
    ///
    /// # Safety
    ///
    /// `self` must stay where it is until what this returns is dropped.
    pub(crate) unsafe fn take(&self) -> Taking {
        TURNS.set(self);
        Taking(())
    }

    /// Those of this thread; `None` if there are none.
    ///
    /// # Safety
    ///
    /// Not to be used any more when their worker ends, which it does in the root's code alone, not in a task's.
    #[inline(always)]
    pub(super) unsafe fn here<'a>() -> Option<&'a Turns> {
        // SAFETY: they are there until they are taken out.
        unsafe { TURNS.get().as_ref() }
    }

    /// As [`here`](Turns::here), lent to `f`, which must not end them.
    #[inline(always)]
    pub(super) fn with<R>(f: impl FnOnce(&Turns) -> R) -> Option<R> {
        // SAFETY: `f` is code of this crate's that does not.
        unsafe { Turns::here() }.map(f)
    }

    #[inline(always)]
    pub(super) fn current(&self) -> Option<Mine> {
        self.current.get()
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Whether these are the turns that a task of this worker takes.
    #[inline(always)]
    pub(super) fn are_of(&self, home: &'static Home) -> bool {
        ptr::eq(self.home, home)
    }

    /// Gives so many turns before the root looks again.
    pub(crate) fn give(&self, turns: u32) {
        self.left.set(turns);
    }

    /// Has the running task leave to the root when it next switches, although there are turns left.
    pub(crate) fn summon(&self) {
        self.held.set(self.held.get() + self.left.replace(0));
    }

    /// Gives the turns again that [`summon`](Turns::summon) took away; `false` if there are none.
    pub(crate) fn give_again(&self) -> bool {
        let held = self.held.replace(0);
        self.left.set(self.left.get() + held);
        held != 0
    }

    /// Takes one of the turns; `false` if they are used up.
    #[inline(always)]
    pub(crate) fn spend(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left != 0
    }

    /// From the root: runs a task, and those that it switches to, until one leaves or ends, which is returned then.
    ///
    /// # Safety
    ///
    /// The context must be the task's, suspended or new, and neither in the queue. So must be those in the queue, on stacks
    /// that are there.
    pub(crate) unsafe fn enter(&self, task: Mine, context: Context) -> Option<Mine> {
        self.current.set(Some(task));
        // SAFETY: the caller's promise; a new one expects its header.
        let left = unsafe { context.enter(task.as_ptr().as_ptr().cast()) };
        let last = self.current.take();
        match left {
            switchback::context::Left::Ended(_) => last,
            switchback::context::Left::Suspended(..) => None,
        }
    }

    /// Queues the running task again, and lets the others run first.
    #[inline(always)]
    pub(super) fn yield_now(&self, task: Mine) {
        self.queue.push(task);
        self.switch(task);
    }

    /// Switches from the running task, which has filed itself where it is to be found, to the next one or to the root.
    /// Returns when somebody has switched back. To be called where [`can_suspend`](super::can_suspend).
    ///
    /// # Panics
    ///
    /// When the runtime ends, a suspended task goes on as if this call had panicked, but the hook is not called.
    #[inline(always)]
    pub(super) fn switch(&self, task: Mine) {
        match self.next_begun() {
            Some((next, _)) if next == task => {}
            Some((next, context)) => {
                self.current.set(Some(next));
                // SAFETY: it is the running task's; the next one is suspended since it was in the queue, on this thread, on a
                // stack that is there until it is retired. The thread is not panicking.
                unsafe { task.own().running().switch_to(context, ptr::null_mut()) };
            }
            None => self.leave(task),
        }
        task.continued();
    }

    /// Leaves to the root. Out of line, so that the way from task to task is short.
    #[cold]
    #[inline(never)]
    fn leave(&self, task: Mine) {
        // SAFETY: it is the running task's, and the thread is not panicking.
        unsafe { task.own().running().leave(ptr::null_mut()) };
    }

    /// Takes the next task out of the queue, unless it is time for the root.
    #[inline(always)]
    fn next_begun(&self) -> Option<(Mine, Context)> {
        let next = self.queue.peek()?;
        let context = next.own().context()?;
        if !self.spend() {
            return None;
        }
        self.queue.pop();
        Some((next, context))
    }
}

/// Queues a task whose word has just gone from parked to notified. From any thread.
#[inline]
pub(super) fn ready(task: &Header, home: &'static Home) {
    let queued = Turns::with(|turns| {
        let here = turns.are_of(home);
        if here {
            // SAFETY: it was parked, so it lives, and it is of the worker whose thread this is.
            turns.queue.push(unsafe { Mine::new(NonNull::from(task)) });
        }
        here
    });
    if queued != Some(true) {
        home.0.ready(task);
    }
}
