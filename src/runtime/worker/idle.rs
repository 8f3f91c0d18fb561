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
//! | 2. fence (in [`to_wake`](Idle::to_wake)) | 2. fence (in [`fall_asleep`](Idle::fall_asleep), [`stop_searching`](Idle::stop_searching)) |
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

use std::sync::{MutexGuard, PoisonError};

use crate::worker::sync::{AtomicUsize, Mutex, Ordering, fence};

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
    pub(super) fn start_searching(&self) -> bool {
        let may = |word: usize| (2 * searchers(word) < self.workers).then_some(word + SEARCHER);
        // Relaxed: it only holds others back, and who stops has the fence.
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may).is_ok()
    }

    /// The caller does not search any more. `true` if it was the last, who has to look whether something lies anywhere.
    pub(super) fn stop_searching(&self) -> bool {
        let before = self.word.fetch_sub(SEARCHER, Ordering::Relaxed);
        // The right fence of the table.
        fence(Ordering::SeqCst);
        searchers(before) == 1
    }

    /// The worker goes to sleep, and does not search any more if it did. Before it sleeps it looks at all lists again.
    pub(super) fn fall_asleep(&self, worker: usize, searching: bool) {
        let mut asleep = self.lock();
        asleep.push(worker);
        let change = if searching { SLEEPER - SEARCHER } else { SLEEPER };
        self.word.fetch_add(change, Ordering::Relaxed);
        drop(asleep);
        // The right fence of the table.
        fence(Ordering::SeqCst);
    }

    /// The worker does not sleep any more. `true` if it was woken to search, as which it counts already.
    pub(super) fn wake_up(&self, worker: usize) -> bool {
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
