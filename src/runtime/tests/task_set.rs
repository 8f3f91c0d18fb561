//! Sets of tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use switchback_runtime::time::{Duration, sleep};
use switchback_runtime::{self as rt, Builder, SetError, TaskSet};

mod common;
use common::{ends, run, run_in_order, scaled};

const LONG: Duration = Duration::from_secs(3600);

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn results_come_in_the_order_in_which_the_tasks_end() {
    run_in_order(|| {
        let mut set = TaskSet::new();
        for turns in [3, 1, 2] {
            let task = move || {
                for _ in 0..2 * turns {
                    rt::yield_now();
                }
                turns
            };
            set.spawn(task).unwrap();
        }
        assert_eq!(set.len(), 3);
        // All are over before the first is asked for.
        for _ in 0..10 {
            rt::yield_now();
        }
        let order: Vec<_> = std::iter::from_fn(|| set.join_next().unwrap()).map(Result::unwrap).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(set.is_empty());
    });
}

#[test]
fn every_result_comes_once_however_many_there_are() {
    let count = scaled(5000, 300);
    run(move || {
        let mut set = TaskSet::new();
        let mut seen = vec![0; count];
        for place in 0..count {
            set.spawn(move || place).unwrap();
            // Places are used again.
            if place % 3 == 0 {
                seen[set.join_next().unwrap().unwrap().unwrap()] += 1;
            }
        }
        while let Some(place) = set.join_next().unwrap() {
            seen[place.unwrap()] += 1;
        }
        assert!(seen.iter().all(|times| *times == 1));
    });
}

#[test]
fn a_panic_and_a_refusal_are_results_as_well() {
    run_in_order(|| {
        let mut set = TaskSet::new();
        set.spawn(|| std::panic::resume_unwind(Box::new(()))).unwrap();
        assert!(set.join_next().unwrap().unwrap().unwrap_err().is_panic());
        set.spawn_with(Builder::new().stack_size(usize::MAX), || ()).unwrap();
        let error = set.join_next().unwrap().unwrap().unwrap_err();
        assert!(!error.is_panic() && !error.is_cancelled());
        // What was never spawned leaves no trace.
        assert!(set.spawn_with(Builder::new().on(99), || ()).is_err());
        assert_eq!(set.len(), 0);
        // The place of that is taken by a task that is not over when another is.
        let (first, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (waits, ends) = (second.clone(), first.clone());
        let slow = move || {
            while waits.load(Ordering::SeqCst) == 0 {
                rt::yield_now();
            }
        };
        set.spawn(slow).unwrap();
        set.spawn(move || ends.store(1, Ordering::SeqCst)).unwrap();
        set.join_next().unwrap().unwrap().unwrap();
        assert_eq!(first.load(Ordering::SeqCst), 1);
        second.store(1, Ordering::SeqCst);
        set.join_next().unwrap().unwrap().unwrap();
        assert!(set.join_next().unwrap().is_none());
    });
}

#[test]
fn the_first_failure_ends_the_others_which_are_waited_for() {
    run(|| {
        let over = Arc::new(AtomicUsize::new(0));
        let mut set = TaskSet::new();
        for _ in 0..10 {
            let over = over.clone();
            let task = move || {
                let _counted = OnDrop(|| {
                    over.fetch_add(1, Ordering::SeqCst);
                });
                let slept = sleep(LONG).map_err(|_| "cancelled");
                // The end takes a while.
                rt::shield(|| sleep(Duration::from_millis(1))).unwrap();
                slept
            };
            set.spawn(task).unwrap();
        }
        // In the middle of it.
        rt::yield_now();
        set.spawn(|| Err("failed")).unwrap();
        assert!(matches!(set.try_join_all(), Err(SetError::Failed("failed"))));
        // One that had not begun was dropped, closure and all, and never counted.
        assert!(over.load(Ordering::SeqCst) <= 10);
        assert_eq!(Arc::strong_count(&over), 1, "one of them is not over");
    });
}

#[test]
fn if_all_succeed_their_values_are_there() {
    run(|| {
        let mut set = TaskSet::new();
        for n in 0..20 {
            set.spawn(move || Ok::<_, ()>(n)).unwrap();
        }
        let mut values = set.try_join_all().unwrap();
        values.sort_unstable();
        assert_eq!(values, (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_cancelled_owner_loses_no_result() {
    run_in_order(|| {
        let mut set = TaskSet::new();
        set.spawn(|| sleep(Duration::from_millis(3)).map(|()| 4)).unwrap();
        let waited = rt::timeout(Duration::from_millis(1), || set.join_next().map(|_| ()));
        assert!(waited.unwrap_err().into_inner().unwrap_err().is_timeout());
        assert_eq!(set.len(), 1);
        assert_eq!(set.join_next().unwrap().unwrap().unwrap(), Ok(4));
    });
}

#[test]
fn a_dropped_set_cancels_its_tasks() {
    run(|| {
        let (gone, mut set) = (Arc::new(()), TaskSet::new());
        for _ in 0..5 {
            let gone = gone.clone();
            let task = move || {
                let slept = sleep(LONG);
                drop(gone);
                slept
            };
            set.spawn(task).unwrap();
        }
        rt::yield_now();
        drop(set);
        while Arc::strong_count(&gone) > 1 {
            rt::yield_now();
        }
    });
}

#[test]
fn a_plain_thread_takes_results_too() {
    run(|| {
        let mut set = TaskSet::new();
        for n in 0..50 {
            set.spawn(move || n).unwrap();
        }
        let sum: i32 =
            thread::spawn(move || set.join_all().unwrap().into_iter().map(Result::unwrap).sum()).join().unwrap();
        assert_eq!(sum, 1225);
    });
}

#[test]
fn outside_a_runtime_nothing_is_spawned() {
    ends(|| {
        let mut set = TaskSet::new();
        assert!(set.spawn(|| ()).is_err());
        assert!(set.join_next().unwrap().is_none());
    });
}
