//! Sleeping: never early, in order, and cheap enough for many.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{run, run_in_order, scaled};
use switchback_runtime as rt;
use switchback_runtime::time::{sleep, sleep_until};

#[test]
fn sleep_is_never_early() {
    run(|| {
        let naps = [0, 1, 10, 100, 999, 1000, 1001, 2500, 4999];
        let tasks: Vec<_> = naps
            .map(|microseconds| {
                rt::spawn(move || {
                    for _ in 0..5 {
                        let nap = Duration::from_micros(microseconds);
                        let start = Instant::now();
                        sleep(nap).unwrap();
                        assert!(start.elapsed() >= nap, "{:?} of {nap:?}", start.elapsed());
                    }
                })
            })
            .into_iter()
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    run_in_order(|| {
        let mut ahead = Duration::from_millis(10);
        loop {
            let woken = Arc::new(Mutex::new(Vec::new()));
            let start = Instant::now() + ahead;
            let tasks: Vec<_> = [5, 2, 4, 1, 3, 2]
                .into_iter()
                .enumerate()
                .map(|(number, place)| {
                    let woken = woken.clone();
                    rt::spawn(move || {
                        let in_time = Instant::now() < start;
                        sleep_until(start + Duration::from_millis(place)).unwrap();
                        woken.lock().unwrap().push((place, number));
                        in_time
                    })
                })
                .collect();
            let in_time: Vec<bool> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
            if !in_time.contains(&false) {
                let woken = Arc::into_inner(woken).unwrap().into_inner().unwrap();
                assert_eq!(woken, [(1, 3), (2, 1), (2, 5), (3, 4), (4, 2), (5, 0)]);
                return;
            }
            // The machine was too busy for all to be asleep in time.
            ahead *= 2;
        }
    });
}

#[test]
fn many_sleep_at_once() {
    let count = scaled(5000, 200);
    run(move || {
        let tasks: Vec<_> = (0..count).map(|_| rt::spawn(|| sleep(Duration::from_millis(50)))).collect();
        for task in tasks {
            task.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_sleep_too_long_for_the_clock_ends_with_the_runtime() {
    run(|| {
        let task = rt::spawn(|| sleep(Duration::MAX));
        sleep(Duration::from_millis(5)).unwrap();
        assert!(!task.is_finished());
    });
}

#[test]
fn no_sleep_at_all_lets_the_others_run() {
    run_in_order(|| {
        let task = rt::spawn(|| ());
        sleep(Duration::ZERO).unwrap();
        assert!(task.is_finished());
        let task = rt::spawn(|| ());
        sleep_until(Instant::now() - Duration::from_millis(1)).unwrap();
        assert!(task.is_finished());
    });
}

#[test]
fn an_unpark_does_not_end_a_sleep() {
    run(|| {
        let me = rt::task::Unparker::current();
        rt::spawn(move || me.unpark());
        let start = Instant::now();
        sleep(Duration::from_millis(10)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(10));
    });
}

#[test]
fn plain_threads_sleep_too() {
    let start = Instant::now();
    sleep(Duration::from_millis(2)).unwrap();
    sleep_until(start + Duration::from_millis(4)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(4));
}
