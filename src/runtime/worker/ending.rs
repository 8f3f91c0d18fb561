//! How a worker ends its tasks when the runtime does.

use std::ptr;

use switchback::context::Context;

use super::Local;
use super::team::less;
use crate::task::Mine;

/// How often a task that catches its unwinding and waits again is unwound again.
const UNWINDINGS: u32 = 100;

impl Local {
    /// Ends every task that this worker has taken on, in that order: one that has begun is unwound on its stack, one that
    /// has not is dropped. What their destructors spawn is refused; whom they wake does not run any more.
    ///
    /// The lists of those that nobody has taken on are closed before (by [`Team::end`](super::Team::end)): a destructor that
    /// joins one of them does not wait.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.turns.queue().close();
        if let Some(task) = self.in_hand.take() {
            self.team.drop_fresh(task);
        }
        while let Some(task) = self.alive.first() {
            match task.own().context() {
                Some(context) => self.unwind(task, context),
                None => {
                    task.abandon();
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
        task.abandon();
        std::mem::forget(task.own().stack.take());
        less(&self.seat.figures.stacks);
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
