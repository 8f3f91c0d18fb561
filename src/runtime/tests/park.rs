//! Parking and unparking, in tasks and plain threads.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{ends, run, run_in_order, scaled};
use switchback_runtime as rt;
use switchback_runtime::task::{Unparker, park, park_until};

#[test]
fn an_unpark_before_the_park_is_not_lost() {
    run(|| {
        Unparker::current().unpark();
        park();
        let me = Unparker::current();
        thread::spawn(move || me.unpark()).join().unwrap();
        park();
    });
}

#[test]
fn many_unparks_before_the_park_count_as_one() {
    run(|| {
        let me = Unparker::current();
        (0..5).for_each(|_| me.unpark());
        park();
        let start = Instant::now();
        let deadline = start + Duration::from_millis(5);
        // A park may end without cause, but not for ever.
        while Instant::now() < deadline {
            park_until(deadline);
        }
    });
}

#[test]
fn a_task_unparks_another() {
    run_in_order(|| {
        let ready = Arc::new(AtomicBool::new(false));
        let flag = ready.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let sleeper = rt::spawn(move || {
            tell.send(Unparker::current()).unwrap();
            while !flag.load(Ordering::Acquire) {
                park();
            }
        });
        rt::yield_now();
        ready.store(true, Ordering::Release);
        told.try_recv().unwrap().unpark();
        sleeper.join().unwrap();
    });
}

/// Each task and a plain thread pass a counter to and fro; a lost unpark would hang them.
#[test]
fn no_unpark_is_lost_between_many_tasks_and_plain_threads() {
    let (pairs, rounds) = (scaled(8, 3), scaled(2000, 60));
    run(move || {
        let tasks: Vec<_> = (0..pairs)
            .map(|_| {
                rt::spawn(move || {
                    let counter = Arc::new(AtomicUsize::new(0));
                    let (task, shared) = (Unparker::current(), counter.clone());
                    let thread = thread::spawn(move || {
                        for round in 0..rounds {
                            while shared.load(Ordering::Acquire) != 2 * round + 1 {
                                park();
                            }
                            shared.store(2 * round + 2, Ordering::Release);
                            task.unpark();
                        }
                    });
                    let other = thread.thread().clone();
                    for round in 0..rounds {
                        counter.store(2 * round + 1, Ordering::Release);
                        other.unpark();
                        while counter.load(Ordering::Acquire) != 2 * round + 2 {
                            park();
                        }
                    }
                    thread.join().unwrap();
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

/// Wakers that race with each other, with deadlines and with yields for the same tasks.
#[test]
fn a_task_hit_by_wakers_from_everywhere_is_never_run_twice_nor_forgotten() {
    let (threads, unparks) = (scaled(4, 2), scaled(5000, 300));
    run_in_order(move || {
        let running = Arc::new(AtomicBool::new(true));
        let inside = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let (goes_on, flag) = (running.clone(), inside.clone());
        let target = rt::spawn(move || {
            tell.send(Unparker::current()).unwrap();
            let mut turns = 0_usize;
            while goes_on.load(Ordering::Acquire) {
                assert!(!flag.swap(true, Ordering::Relaxed));
                flag.store(false, Ordering::Relaxed);
                match turns % 3 {
                    0 => park(),
                    1 => park_until(Instant::now() + Duration::from_micros(50)),
                    _ => rt::yield_now(),
                }
                turns += 1;
            }
        });
        rt::yield_now();
        let unparker = told.try_recv().unwrap();
        let wakers: Vec<_> = (0..threads)
            .map(|_| {
                let unparker = unparker.clone();
                thread::spawn(move || (0..unparks).for_each(|_| unparker.unpark()))
            })
            .collect();
        for _ in 0..unparks {
            unparker.unpark();
            rt::yield_now();
        }
        while !wakers.iter().all(|waker| waker.is_finished()) {
            rt::yield_now();
        }
        running.store(false, Ordering::Release);
        unparker.unpark();
        target.join().unwrap();
        assert_eq!(rt::metrics().unwrap().tasks, 1);
    });
}

#[test]
fn a_deadline_ends_a_park_but_not_before_it_has_come() {
    run(|| {
        for milliseconds in 0..10 {
            let deadline = Instant::now() + Duration::from_millis(milliseconds);
            while Instant::now() < deadline {
                park_until(deadline);
            }
        }
    });
}

#[test]
fn a_deadline_that_is_not_reached_leaves_nothing_behind() {
    run_in_order(|| {
        let soon = Instant::now() + Duration::from_millis(20);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                rt::spawn(move || {
                    let me = Unparker::current();
                    rt::spawn(move || me.unpark());
                    park_until(soon);
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(rt::metrics().unwrap().timers, 0);
        // Their places are taken by others when their deadlines come: these must not be woken by them, nor must the
        // worker look for tasks that are over.
        let others: Vec<_> = (0..10).map(|_| rt::spawn(park)).collect();
        rt::time::sleep(Duration::from_millis(40)).unwrap();
        assert!(others.iter().all(|other| !other.is_finished()));
    });
}

#[test]
fn plain_threads_use_the_same_functions() {
    ends(|| {
        let main = Unparker::current();
        let flag = Arc::new(AtomicBool::new(false));
        let shared = flag.clone();
        let thread = thread::spawn(move || {
            shared.store(true, Ordering::Release);
            main.unpark();
        });
        while !flag.load(Ordering::Acquire) {
            park();
        }
        thread.join().unwrap();
        let deadline = Instant::now() + Duration::from_millis(5);
        while Instant::now() < deadline {
            park_until(deadline);
        }
    });
}

#[test]
fn an_unparker_outlives_its_task_and_its_runtime() {
    ends(|| {
        let unparker = rt::run(|| {
            let unparker = rt::spawn(Unparker::current).join().unwrap();
            unparker.unpark();
            rt::yield_now();
            unparker
        })
        .unwrap();
        unparker.unpark();
        rt::run(|| unparker.unpark()).unwrap();
        thread::spawn(move || unparker.unpark()).join().unwrap();
    });
}
