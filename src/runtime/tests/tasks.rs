//! Spawning, joining, taking turns, and where a runtime may be started.

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{ends, run, run_in_order, scaled};
use switchback_runtime as rt;

#[test]
fn join_returns_what_each_task_returned() {
    let count = scaled(5000, 200);
    let sum: usize = run(move || {
        let tasks: Vec<_> = (0..count).map(|number| rt::spawn(move || number)).collect();
        tasks.into_iter().map(|task| task.join().unwrap()).sum()
    });
    assert_eq!(sum, count * (count - 1) / 2);
}

#[test]
fn join_waits_for_a_task_that_is_not_over() {
    let value = run(|| {
        let inner = rt::spawn(|| {
            for _ in 0..10 {
                rt::yield_now();
            }
            "late"
        });
        let outer = rt::spawn(move || inner.join().unwrap());
        outer.join().unwrap()
    });
    assert_eq!(value, "late");
}

#[test]
fn the_root_task_may_borrow() {
    let mut words = vec!["one".to_owned()];
    let length = rt::run(|| {
        words.push("two".to_owned());
        rt::yield_now();
        words.len()
    });
    assert_eq!(length.unwrap(), 2);
    assert_eq!(words, ["one", "two"]);
}

#[test]
fn a_panic_is_an_error_with_its_payload_and_the_others_go_on() {
    run(|| {
        let other = rt::spawn(|| {
            rt::yield_now();
            rt::yield_now();
            7
        });
        let error = rt::spawn(|| -> () { panic!("number {}", std::hint::black_box(5)) }).join().unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert_eq!(error.to_string(), "task panicked: number 5");
        assert_eq!(error.into_panic().downcast_ref::<String>().unwrap(), "number 5");
        assert_eq!(other.join().unwrap(), 7);
    });
}

#[test]
fn a_panic_of_the_root_is_raised_again_by_run() {
    ends(|| {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let payload = catch_unwind(AssertUnwindSafe(|| {
            rt::Runtime::builder().workers(1).run(move || {
                rt::spawn(move || {
                    let _flag = SetOnDrop(flag);
                    loop {
                        rt::yield_now();
                    }
                });
                rt::yield_now();
                panic!("root")
            })
        }))
        .unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"root"));
        assert!(ended.load(Ordering::Relaxed), "the other task was not ended first");
        assert_eq!(rt::Runtime::builder().workers(1).run(|| 1).unwrap(), 1, "the thread can run another");
    });
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn yielding_tasks_take_turns_in_order() {
    let said = run_in_order(|| {
        let said = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..3)
            .map(|name| {
                let said = said.clone();
                rt::spawn(move || {
                    for turn in 0..3 {
                        said.lock().unwrap().push((turn, name));
                        rt::yield_now();
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        Arc::into_inner(said).unwrap().into_inner().unwrap()
    });
    let expected: Vec<_> = (0..3).flat_map(|turn| (0..3).map(move |name| (turn, name))).collect();
    assert_eq!(said, expected);
}

#[test]
fn tasks_that_always_yield_keep_neither_timers_nor_other_threads_waiting() {
    run(|| {
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let done = done.clone();
            rt::spawn(move || {
                while done.load(Ordering::Relaxed) < 2 {
                    rt::yield_now();
                }
            });
        }
        let me = rt::task::Unparker::current();
        let from_thread = done.clone();
        let timer = done.clone();
        rt::spawn(move || {
            rt::time::sleep(Duration::from_millis(5)).unwrap();
            timer.fetch_add(1, Ordering::Relaxed);
        });
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            from_thread.fetch_add(1, Ordering::Relaxed);
            me.unpark();
        });
        while done.load(Ordering::Relaxed) < 2 {
            rt::task::park_until(rt::time::Instant::now() + Duration::from_millis(50));
        }
    });
}

#[test]
fn a_task_stays_on_its_thread_and_sees_one_set_of_thread_locals() {
    thread_local!(static LOCAL: Cell<usize> = const { Cell::new(0) });
    run_in_order(|| {
        let home = thread::current().id();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                rt::spawn(move || {
                    for _ in 0..10 {
                        assert_eq!(thread::current().id(), home);
                        LOCAL.set(LOCAL.get() + 1);
                        rt::yield_now();
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(LOCAL.get(), 500);
    });
}

#[test]
fn a_dropped_handle_leaves_the_task_running() {
    run(|| {
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        drop(rt::spawn(move || {
            rt::yield_now();
            flag.store(true, Ordering::Relaxed);
        }));
        while !done.load(Ordering::Relaxed) {
            rt::yield_now();
        }
    });
}

#[test]
fn a_result_whose_destructor_panics_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as a result nobody wants");
        }
    }
    run_in_order(|| {
        drop(rt::spawn(|| Bomb));
        rt::yield_now();
        assert_eq!(rt::spawn(|| 3).join().unwrap(), 3);
        assert_eq!(rt::metrics().unwrap().tasks, 1);
    });
}

#[test]
fn a_plain_thread_can_join_a_task() {
    let value = ends(|| {
        let (give, take) = mpsc::channel();
        let thread = thread::spawn(move || {
            let task: rt::JoinHandle<u32> = take.recv().unwrap();
            task.join().unwrap()
        });
        rt::run(move || {
            let task = rt::spawn(|| {
                rt::time::sleep(Duration::from_millis(10)).unwrap();
                11
            });
            give.send(task).unwrap();
            while !thread.is_finished() {
                rt::time::sleep(Duration::from_millis(1)).unwrap();
            }
            thread.join().unwrap()
        })
        .unwrap()
    });
    assert_eq!(value, 11);
}

#[test]
fn a_task_of_one_runtime_can_join_one_of_another() {
    ends(|| {
        let (give, take) = mpsc::channel::<rt::JoinHandle<u32>>();
        let (over, is_over) = mpsc::channel::<()>();
        let first = thread::spawn(move || {
            rt::run(|| {
                give.send(rt::spawn(|| {
                    rt::time::sleep(Duration::from_millis(10)).unwrap();
                    12
                }))
                .unwrap();
                while is_over.try_recv().is_err() {
                    rt::time::sleep(Duration::from_millis(1)).unwrap();
                }
            })
            .unwrap();
        });
        let value = rt::run(|| take.recv().unwrap().join().unwrap()).unwrap();
        over.send(()).unwrap();
        first.join().unwrap();
        assert_eq!(value, 12);
    });
}

#[test]
fn a_task_that_joins_itself_is_told_so() {
    run_in_order(|| {
        let (give, take) = mpsc::channel::<rt::JoinHandle<bool>>();
        let (say, said) = mpsc::channel();
        let task = rt::spawn(move || {
            let error = take.recv().unwrap().join().unwrap_err();
            say.send(error.to_string()).unwrap();
            true
        });
        give.send(task).unwrap();
        rt::yield_now();
        assert_eq!(said.try_recv().unwrap(), "task cannot be waited for: a task cannot join itself");
    });
}

#[test]
fn is_finished_tells_without_waiting() {
    run_in_order(|| {
        let task = rt::spawn(|| ());
        assert!(!task.is_finished());
        rt::yield_now();
        assert!(task.is_finished());
        task.join().unwrap();
    });
}

#[test]
fn a_name_shows_in_the_task_the_handle_and_the_error() {
    run(|| {
        let task = rt::Builder::new().name("fuse".into()).spawn(|| -> () { panic!("{}", rt::task::name().unwrap()) });
        let task = task.unwrap();
        assert_eq!(task.name(), Some("fuse"));
        assert_eq!(task.join().unwrap_err().to_string(), "task 'fuse' panicked: fuse");
        assert_eq!(rt::task::name(), None);
    });
    assert_eq!(rt::task::name(), None);
}

#[test]
fn outside_a_runtime_spawn_is_an_error_and_nothing_is_run() {
    let error = rt::Builder::new().spawn(|| ()).unwrap_err();
    assert!(error.to_string().contains("no runtime runs on this thread"), "{error}");
    assert!(catch_unwind(|| rt::spawn(|| ())).is_err());
    assert_eq!(rt::metrics(), None);
    rt::yield_now();
}

#[test]
fn run_inside_a_task_is_an_error_and_the_task_goes_on() {
    run(|| {
        let error = rt::run(|| unreachable!()).unwrap_err();
        assert!(error.to_string().contains("a runtime runs on this thread already"), "{error}");
        assert_eq!(rt::spawn(|| 2).join().unwrap(), 2);
    });
}

#[test]
fn run_during_a_panic_is_an_error() {
    struct RunsOnDrop(mpsc::Sender<String>);
    impl Drop for RunsOnDrop {
        fn drop(&mut self) {
            self.0.send(rt::run(|| ()).unwrap_err().to_string()).unwrap();
        }
    }
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let _runs = RunsOnDrop(say);
        panic!("so that the destructor runs meanwhile");
    })
    .join()
    .unwrap_err();
    let error = said.recv().unwrap();
    assert!(error.contains("panicking"), "{error}");
}

#[test]
fn several_runtimes_run_side_by_side() {
    ends(|| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                thread::spawn(move || {
                    rt::run(|| {
                        let tasks: Vec<_> = (0..20)
                            .map(|_| {
                                rt::spawn(move || {
                                    rt::time::sleep(Duration::from_millis(1)).unwrap();
                                    number
                                })
                            })
                            .collect();
                        tasks.into_iter().map(|task| task.join().unwrap()).sum::<u32>()
                    })
                    .unwrap()
                })
            })
            .collect();
        let sums: Vec<u32> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(sums, [0, 20, 40, 60]);
    });
}

#[test]
fn metrics_count_tasks_and_stacks() {
    run_in_order(|| {
        let tasks: Vec<_> = (0..10).map(|_| rt::spawn(|| rt::time::sleep(Duration::from_millis(5)))).collect();
        let waiting = rt::metrics().unwrap();
        assert_eq!((waiting.tasks, waiting.spawned, waiting.completed, waiting.stacks), (11, 11, 0, 1));
        rt::yield_now();
        assert_eq!(rt::metrics().unwrap().stacks, 11);
        tasks.into_iter().for_each(|task| task.join().unwrap().unwrap());
        let over = rt::metrics().unwrap();
        assert_eq!((over.tasks, over.completed, over.stacks), (1, 10, 1));
        assert!(over.stacks_cached >= 10, "the pool has them back, and more of other threads");
    });
}
