//! Work that blocks its thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use switchback_runtime::time::Duration;
use switchback_runtime::{self as rt, block_in_place, spawn_blocking};

mod common;
use common::{ends, run, run_in_order, scaled};

#[test]
fn the_worker_goes_on_while_the_work_blocks() {
    run_in_order(|| {
        let worker = thread::current().id();
        for in_place in [false, true] {
            let (go, goes) = mpsc::channel();
            let waits = move || {
                goes.recv().unwrap();
                thread::current().id()
            };
            // Only another task of the same worker can end it.
            rt::spawn(move || go.send(()).unwrap());
            let there = if in_place { block_in_place(waits) } else { spawn_blocking(waits).join().unwrap() };
            assert_ne!(there, worker);
        }
    });
}

#[test]
fn all_that_block_do_so_at_the_same_time() {
    let count = scaled(100, 10);
    run(move || {
        let all = Arc::new(Barrier::new(count));
        let work: Vec<_> = (0..count)
            .map(|n| {
                let all = all.clone();
                spawn_blocking(move || {
                    all.wait();
                    n
                })
            })
            .collect();
        let sum: usize = work.into_iter().map(|work| work.join().unwrap()).sum();
        assert_eq!(sum, count * (count - 1) / 2);
    });
}

#[test]
fn work_in_place_borrows_and_its_panic_comes_back() {
    run_in_order(|| {
        let mut words = vec!["b".to_owned(), "a".to_owned()];
        block_in_place(|| words.sort());
        assert_eq!(words, ["a", "b"]);
        let panicked = std::panic::catch_unwind(|| block_in_place(|| std::panic::resume_unwind(Box::new("payload"))));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"payload"));
        let work = spawn_blocking(|| std::panic::resume_unwind(Box::new("payload")));
        assert_eq!(work.join().unwrap_err().into_panic().downcast_ref(), Some(&"payload"));
        // The threads have outlived it.
        assert_eq!(block_in_place(|| 1), 1);
    });
}

#[test]
fn a_cancelled_task_waits_for_its_work_in_place_all_the_same() {
    run_in_order(|| {
        let (go, goes) = mpsc::channel::<()>();
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let task = rt::spawn(move || {
            block_in_place(move || {
                goes.recv().unwrap();
                ends.store(true, Ordering::SeqCst);
            });
            (over.load(Ordering::SeqCst), rt::check_cancelled().is_err())
        });
        rt::yield_now();
        task.cancel();
        rt::yield_now();
        assert!(!task.is_finished());
        go.send(()).unwrap();
        assert_eq!(task.join().unwrap(), (true, true));
    });
}

#[test]
fn a_runtime_that_ends_waits_for_work_in_place_that_borrows_from_its_tasks() {
    for workers in [1, 2] {
        ends(move || {
            let (begun, begins) = mpsc::channel();
            let (go, goes) = mpsc::channel::<()>();
            let found = Arc::new(AtomicUsize::new(0));
            let finds = found.clone();
            let releaser = thread::spawn(move || {
                begins.recv().unwrap();
                // Long enough for the runtime to be ending, as a rule.
                thread::sleep(Duration::from_millis(20));
                go.send(()).unwrap();
            });
            rt::Runtime::builder()
                .workers(workers)
                .run(move || {
                    let (here, root_may_end) = mpsc::channel();
                    let task = move || {
                        // On the stack of a task that is unwound while the work looks at it.
                        let bytes = &[7_u8; 64];
                        block_in_place(move || {
                            begun.send(()).unwrap();
                            here.send(()).unwrap();
                            goes.recv().unwrap();
                            finds.store(bytes.iter().map(|byte| usize::from(*byte)).sum(), Ordering::SeqCst);
                        });
                    };
                    rt::spawn(task);
                    while root_may_end.try_recv().is_err() {
                        rt::yield_now();
                    }
                })
                .unwrap();
            assert_eq!(found.load(Ordering::SeqCst), 7 * 64, "the runtime has not waited");
            releaser.join().unwrap();
        });
    }
}

#[test]
fn plain_threads_have_work_done_as_well() {
    ends(|| {
        let here = thread::current().id();
        assert_ne!(spawn_blocking(|| thread::current().id()).join().unwrap(), here);
        assert_eq!(block_in_place(|| thread::current().id()), here);
    });
}
