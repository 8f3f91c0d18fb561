//! Which workers sleep, and how many search: so that a task which nobody has begun finds a worker, and no more are woken
//! than there is work for.
//!
//! One word counts both; who sleeps stands in a list under a lock. A worker without work first *searches* the lists of the
//! others, unless half of all do so already; then it sleeps. Whoever adds a task wakes a sleeper, but only if nobody searches: a
//! searcher will find the task, and when it stops searching it looks whether to wake the next. So a burst of tasks wakes
//! the workers one after the other, as each finds that there is more.
//!
//! # Why no task is left lying
//!
//! There are two parties, and each writes before it reads (Dekker's pattern):
//!
//! | who adds a task | who gives up |
//! |---|---|
//! | 1. writes the length of the list | 1. changes the word: it sleeps from now on, or does not search any more |
//! | 2. fence (in `to_wake`) | 2. fence (in `fall_asleep`, `stop_searching`) |
//! | 3. reads the word, and wakes a sleeper if nobody searches | 3. reads the lengths of all lists, and takes what is there |
//!
//! The two fences are in one order that all agree on. If the left one is first, the right party reads the length as it was
//! written (or as it has become since, when somebody took the task). Else the left party reads the word as it was changed, or
//! later. Then the right party is a sleeper to it, which it wakes, or it finds that another searches or has been woken; and that
//! one gives up later than the left fence, so to it the first case applies.
//!
//! A sleeper stands in the list from before its fence until it, or whoever wakes it, takes it out, under the lock. Who wakes it
//! counts it as searching at once, so that a second task added meanwhile wakes nobody else; and signals its driver, where the
//! signal stays if the sleeper has not got there yet. So it does not matter how far the sleeper has come.
//!
//! A searcher that moves tasks to a list of its own is counted until they are in there: so another that gives up meanwhile,
//! and sees them nowhere, is not the last, and the one that moves them looks again.
//!
//! Only the first search is kept to half of the workers. Who has seen a task searches in any case, so that nobody goes round
//! in circles between a task that is there and a search that is not allowed.

use std::io;
use std::sync::PoisonError;

use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};

/// The searchers are counted in the lower half of the word, the sleepers in the upper one.
const SEARCHER: usize = 1;
const SLEEPER: usize = 1 << (usize::BITS / 2);

/// As many workers as can be counted, with room to spare.
pub(crate) const MOST_WORKERS: usize = 1 << 12;

pub(super) struct Idle {
    word: AtomicUsize,
    /// Their numbers; as many as the word says, when the lock is free.
    sleepers: Mutex<Vec<usize>>,
    workers: usize,
}

/// What a worker can do about tasks that nobody has begun.
pub(super) trait Work {
    /// Takes tasks from others. Says whether there is something to do now.
    fn search(&mut self) -> bool;

    /// Whether there is a task in any list, its own included.
    fn is_left(&self) -> bool;

    /// Sleeps until it is woken, or something else wants it.
    fn sleep(&mut self) -> io::Result<()>;

    /// Ends the sleep of another worker: this one or, if it does not sleep, the next. From any thread.
    fn wake(&self, worker: usize);

    /// It has been woken by another worker.
    fn was_called(&self);
}

fn searchers(word: usize) -> usize {
    word % SLEEPER
}

fn sleepers(word: usize) -> usize {
    word / SLEEPER
}

impl Idle {
    pub(super) fn new(workers: usize) -> Idle {
        Idle { word: AtomicUsize::new(0), sleepers: Mutex::new(Vec::with_capacity(workers)), workers }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        // Nothing panics under this lock.
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds something to do, or sleeps until there is. For a worker that has nothing.
    pub(super) fn rest(&self, worker: usize, work: &mut impl Work) -> io::Result<()> {
        let searching = self.start_searching();
        if searching && work.search() {
            self.hand_on(work);
            return Ok(());
        }
        self.fall_asleep(worker, searching);
        // What has come up to now is seen here; for what comes from now on we are woken.
        let seen = work.is_left();
        let slept = if seen { Ok(()) } else { work.sleep() };
        if self.wake_up(worker) {
            work.was_called();
            work.search();
            self.hand_on(work);
        } else if seen && work.search() && work.is_left() {
            self.call(work);
        }
        slept
    }

    /// Ends a search. The last to do so has another worker woken if there is more.
    fn hand_on(&self, work: &impl Work) {
        if self.stop_searching() && work.is_left() {
            self.call(work);
        }
    }

    fn call(&self, work: &impl Work) {
        if let Some(worker) = self.to_wake() {
            work.wake(worker);
        }
    }

    /// Says which worker is to be woken, after a task has been added. It counts as searching from now on.
    pub(super) fn to_wake(&self) -> Option<usize> {
        // The left fence of the table.
        fence(Ordering::SeqCst);
        if !is_one_wanted(self.word.load(Ordering::Relaxed)) {
            return None;
        }
        let mut asleep = self.lock();
        // Somebody else may have been here before.
        if !is_one_wanted(self.word.load(Ordering::Relaxed)) {
            return None;
        }
        let worker = asleep.pop()?;
        // Relaxed: the fences order it.
        self.word.fetch_sub(SLEEPER - SEARCHER, Ordering::Relaxed);
        Some(worker)
    }

    /// Whether the caller, who has nothing to do, may search.
    fn start_searching(&self) -> bool {
        let may = |word: usize| (2 * searchers(word) < self.workers).then_some(word + SEARCHER);
        // Relaxed: it only holds others back, and who stops has the fence.
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may).is_ok()
    }

    /// The caller does not search any more. `true` if it was the last, who has to look whether something lies anywhere.
    fn stop_searching(&self) -> bool {
        let before = self.word.fetch_sub(SEARCHER, Ordering::Relaxed);
        // The right fence of the table.
        fence(Ordering::SeqCst);
        searchers(before) == 1
    }

    /// The worker goes to sleep, and does not search any more if it did. Before it sleeps it looks at all lists again.
    fn fall_asleep(&self, worker: usize, searching: bool) {
        let mut asleep = self.lock();
        asleep.push(worker);
        let change = if searching { SLEEPER - SEARCHER } else { SLEEPER };
        self.word.fetch_add(change, Ordering::Relaxed);
        drop(asleep);
        // The right fence of the table.
        fence(Ordering::SeqCst);
    }

    /// The worker does not sleep any more. `true` if it was woken to search, as which it counts already.
    fn wake_up(&self, worker: usize) -> bool {
        let mut asleep = self.lock();
        match asleep.iter().rposition(|other| *other == worker) {
            Some(place) => {
                asleep.swap_remove(place);
                self.word.fetch_sub(SLEEPER, Ordering::Relaxed);
                false
            }
            None => true,
        }
    }
}

fn is_one_wanted(word: usize) -> bool {
    searchers(word) == 0 && sleepers(word) != 0
}

/// `RUSTFLAGS="--cfg loom" cargo test -p switchback-runtime --release --lib model`
#[cfg(all(test, loom))]
mod model {
    use loom::sync::{Arc, Condvar};
    use loom::thread;

    use super::*;

    /// Lists of tasks of which only the number matters, and workers that sleep until they are signalled. Loom finds it if all
    /// of them sleep although there is work.
    struct Model {
        idle: Idle,
        lists: Vec<(Mutex<usize>, AtomicUsize)>,
        signals: Vec<(Mutex<bool>, Condvar)>,
        /// Tasks not begun yet.
        left: AtomicUsize,
        /// Whether all have begun.
        met: (Mutex<bool>, Condvar),
    }

    impl Model {
        fn new(workers: usize, tasks: usize) -> Arc<Model> {
            Arc::new(Model {
                idle: Idle::new(workers),
                lists: (0..workers).map(|_| (Mutex::new(0), AtomicUsize::new(0))).collect(),
                signals: (0..workers).map(|_| (Mutex::new(false), Condvar::new())).collect(),
                left: AtomicUsize::new(tasks),
                met: (Mutex::new(false), Condvar::new()),
            })
        }

        fn change(&self, list: usize, by: impl Fn(usize) -> usize) -> usize {
            let (list, len) = &self.lists[list];
            let mut list = list.lock().unwrap();
            let before = *list;
            *list = by(before);
            len.store(*list, Ordering::Relaxed);
            before
        }

        fn pop(&self, list: usize) -> bool {
            self.change(list, |len| len.saturating_sub(1)) != 0
        }

        fn spawn(&self, list: usize) {
            self.change(list, |len| len + 1);
            if let Some(worker) = self.idle.to_wake() {
                self.signal(worker);
            }
        }

        fn signal(&self, worker: usize) {
            let (signal, changed) = &self.signals[worker];
            *signal.lock().unwrap() = true;
            changed.notify_one();
        }

        /// Runs one task, which keeps its worker until all tasks have begun: so each needs a worker of its own. The last one
        /// ends all workers.
        fn run(&self) {
            let (met, changed) = &self.met;
            if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                *met.lock().unwrap() = true;
                changed.notify_all();
                (0..self.signals.len()).for_each(|worker| self.signal(worker));
            }
            let mut met = met.lock().unwrap();
            while !*met {
                met = changed.wait(met).unwrap();
            }
        }

        fn work(&self, worker: usize) {
            let mut me = Worker { model: self, worker, taken: false };
            while self.left.load(Ordering::Acquire) != 0 {
                if std::mem::take(&mut me.taken) || self.pop(worker) {
                    self.run();
                } else {
                    self.idle.rest(worker, &mut me).unwrap();
                }
            }
        }
    }

    struct Worker<'a> {
        model: &'a Model,
        worker: usize,
        taken: bool,
    }

    impl Work for Worker<'_> {
        fn search(&mut self) -> bool {
            let others = (0..self.model.lists.len()).filter(|other| *other != self.worker);
            for other in others {
                if self.model.lists[other].1.load(Ordering::Relaxed) != 0 && self.model.pop(other) {
                    self.taken = true;
                    return true;
                }
            }
            self.model.lists[self.worker].1.load(Ordering::Relaxed) != 0
        }

        fn is_left(&self) -> bool {
            self.model.lists.iter().any(|(_, len)| len.load(Ordering::Relaxed) != 0)
        }

        fn sleep(&mut self) -> io::Result<()> {
            let (signal, changed) = &self.model.signals[self.worker];
            let mut signal = signal.lock().unwrap();
            while !*signal {
                signal = changed.wait(signal).unwrap();
            }
            // The signal that ends all stays.
            *signal = self.model.left.load(Ordering::Acquire) == 0;
            Ok(())
        }

        fn wake(&self, worker: usize) {
            self.model.signal(worker);
        }

        fn was_called(&self) {}
    }

    fn check(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(f);
    }

    #[test]
    fn model_of_a_task_that_comes_while_workers_fall_asleep() {
        check(3, || {
            let model = Model::new(2, 1);
            // Worker 0 is busy: it has spawned, and goes on computing.
            let other = thread::spawn({
                let model = model.clone();
                move || model.work(1)
            });
            model.spawn(0);
            other.join().unwrap();
        });
    }

    #[test]
    fn model_of_tasks_each_of_which_needs_a_worker_of_its_own() {
        check(2, || {
            let model = Model::new(3, 2);
            let others: Vec<_> = [1, 2]
                .map(|worker| {
                    let model = model.clone();
                    thread::spawn(move || model.work(worker))
                })
                .into();
            model.spawn(0);
            model.spawn(0);
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    }
}
