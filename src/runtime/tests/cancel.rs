//! Cancellation, timeouts, shields, and joins with a deadline.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use switchback::{Coroutine, Resumed, Yielder};
use switchback_runtime::net::{TcpListener, TcpStream};
use switchback_runtime::time::{Duration, Instant, sleep};
use switchback_runtime::{self as rt, Cancelled, task};

mod common;
use common::{ends, run, run_in_order, scaled};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

#[test]
fn a_sleeping_task_is_cancelled_by_any_thread_and_stays_so() {
    for from_outside in [false, true] {
        run(move || {
            let (begun, begins) = mpsc::channel();
            let task = rt::spawn(move || {
                begun.send(()).unwrap();
                let first = sleep(LONG);
                // Sticky: every wait answers with it, a read of the flag too.
                (first, sleep(LONG), rt::check_cancelled(), task::park_cancellable(None))
            });
            while begins.try_recv().is_err() {
                rt::yield_now();
            }
            if from_outside {
                thread::scope(|scope| scope.spawn(|| task.cancel()).join().unwrap());
            } else {
                task.cancel();
            }
            task.cancel();
            let (first, second, third, fourth) = task.join().unwrap();
            for answer in [first, second, third, fourth] {
                assert!(!answer.unwrap_err().is_timeout());
            }
        });
    }
}

#[test]
fn a_task_cancelled_before_it_begins_never_runs_and_what_it_owns_is_dropped() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    run_in_order(|| {
        let (ran, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (owned, runs) = (Dropped(dropped.clone()), ran.clone());
        let task = rt::spawn(move || {
            runs.store(true, Ordering::SeqCst);
            drop(owned);
        });
        task.cancel();
        assert!(task.join().unwrap_err().is_cancelled());
        assert!(!ran.load(Ordering::SeqCst));
        assert!(dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn a_task_that_is_over_keeps_its_result_when_it_is_cancelled() {
    run_in_order(|| {
        let task = rt::spawn(|| 7);
        while !task.is_finished() {
            rt::yield_now();
        }
        task.cancel();
        assert_eq!(task.join().unwrap(), 7);
    });
}

#[test]
fn what_a_cancelled_task_returns_all_the_same_is_its_result() {
    run_in_order(|| {
        let task = rt::spawn(|| sleep(LONG).map_or("in spite of it", |()| "slept"));
        rt::yield_now();
        task.cancel();
        assert_eq!(task.join().unwrap(), "in spite of it");
    });
}

#[test]
fn a_shield_holds_it_back_and_lets_it_through_afterwards() {
    run_in_order(|| {
        let done = Arc::new(AtomicUsize::new(0));
        let counts = done.clone();
        let task = rt::spawn(move || {
            let shielded = rt::shield(|| {
                let slept = sleep(SHORT);
                counts.fetch_add(1, Ordering::SeqCst);
                (slept, rt::check_cancelled())
            });
            (shielded, rt::check_cancelled().is_err())
        });
        rt::yield_now();
        task.cancel();
        assert_eq!(task.join().unwrap(), ((Ok(()), Ok(())), true));
        assert_eq!(done.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_timeout_inside_a_shield_counts_and_one_outside_does_not() {
    for on_thread in [false, true] {
        let test = || {
            let outer = rt::timeout(SHORT, || {
                rt::shield(|| {
                    // Beyond the outer one; that no sleep which succeeds is short is shown in `sleep.rs`.
                    let slept = sleep(2 * SHORT);
                    let inner = rt::timeout(SHORT, || sleep(LONG));
                    (slept, inner.unwrap_err().into_inner())
                })
            });
            // Nothing was ended by the outer one.
            let (slept, inner) = outer.unwrap();
            assert_eq!(slept, Ok(()));
            assert!(inner.unwrap_err().is_timeout());
        };
        if on_thread { test() } else { run_in_order(test) }
    }
}

#[test]
fn of_several_timeouts_the_first_to_end_counts_and_the_outermost_of_those_that_have_says_so() {
    for on_thread in [false, true] {
        let test = || {
            let outer = rt::timeout(LONG, || rt::timeout(SHORT, || sleep(LONG)));
            assert!(outer.unwrap().unwrap_err().into_inner().unwrap_err().is_timeout());
            let outer = rt::timeout(SHORT, || rt::timeout(LONG, || sleep(LONG)));
            let inner = outer.unwrap_err().into_inner();
            assert!(inner.unwrap().unwrap_err().is_timeout());
            let now = Instant::now();
            let outer = rt::timeout_at(now, || rt::timeout_at(now, || sleep(LONG)));
            assert!(outer.unwrap_err().into_inner().is_ok(), "the inner one was not the one that was met");
            // Over, they bound nothing.
            assert_eq!(sleep(SHORT), Ok(()));
            assert_eq!(rt::check_cancelled(), Ok(()));
        };
        if on_thread { test() } else { run_in_order(test) }
    }
}

#[test]
fn code_that_does_not_wait_beyond_the_time_is_not_ended_by_it() {
    let value = rt::timeout(Duration::ZERO, || {
        thread::sleep(SHORT);
        3
    });
    assert_eq!(value, Ok(3));
}

#[test]
fn a_timeout_that_unwinds_bounds_nothing_afterwards() {
    run_in_order(|| {
        let unwound =
            std::panic::catch_unwind(|| rt::timeout(Duration::ZERO, || std::panic::resume_unwind(Box::new(()))));
        assert!(unwound.is_err());
        assert_eq!(rt::check_cancelled(), Ok(()));
        assert_eq!(sleep(SHORT), Ok(()));
    });
}

#[test]
fn limits_that_end_in_another_order_than_they_began_leave_nothing_behind() {
    let test = || {
        let mut inside = Coroutine::new(|yielder: &Yielder<(), ()>, ()| {
            rt::timeout(Duration::ZERO, || {
                yielder.suspend(());
                rt::timeout(LONG, || yielder.suspend(())).unwrap();
                rt::check_cancelled()
            })
        })
        .unwrap();
        // Suspended in limits of its own, it leaves the one around it behind.
        rt::timeout(LONG, || assert!(matches!(inside.resume(()), Resumed::Yielded(())))).unwrap();
        assert!(rt::check_cancelled().is_err(), "it is not over");
        rt::shield(|| {
            assert_eq!(rt::check_cancelled(), Ok(()));
            // From within a shield that began later, it puts in another, and leaves it there as the innermost.
            assert!(matches!(inside.resume(()), Resumed::Yielded(())));
        });
        match inside.resume(()) {
            Resumed::Returned(ended) => assert!(ended.unwrap_err().into_inner().is_err()),
            Resumed::Yielded(()) => panic!("it was to return"),
        }
        assert_eq!(rt::check_cancelled(), Ok(()));
        assert_eq!(sleep(SHORT), Ok(()));
    };
    test();
    run_in_order(test);
}

#[test]
fn a_limit_may_outlive_the_task_that_it_was_begun_in() {
    run_in_order(|| {
        let left: Rc<Cell<Option<Coroutine<(), (), ()>>>> = Rc::default();
        let leaves = left.clone();
        let task = rt::spawn_local(move || {
            let mut inside = Coroutine::new(|yielder: &Yielder<(), ()>, ()| {
                let _ = rt::timeout(Duration::ZERO, || yielder.suspend(()));
            })
            .unwrap();
            inside.resume(());
            leaves.set(Some(inside));
        });
        task.join().unwrap();
        let mut inside = left.take().unwrap();
        assert!(matches!(inside.resume(()), Resumed::Returned(())));
        assert_eq!(rt::check_cancelled(), Ok(()));
    });
}

#[test]
fn reads_and_accepts_end_by_cancellation_and_by_timeout_and_lose_nothing() {
    run(|| -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let elapsed = rt::timeout(SHORT, || listener.accept().map(|_| ())).unwrap_err();
        assert_eq!(elapsed.into_inner().unwrap_err().kind(), ErrorKind::TimedOut);

        let mut client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        let server = Arc::new(server);
        let reads = server.clone();
        let (begun, begins) = mpsc::channel();
        let reader = rt::spawn(move || {
            begun.send(()).unwrap();
            let error = (&*reads).read(&mut [0; 8]).unwrap_err();
            let again = (&*reads).read(&mut [0; 8]).unwrap_err();
            (error, again)
        });
        while begins.try_recv().is_err() {
            rt::yield_now();
        }
        reader.cancel();
        let (error, again) = reader.join().unwrap();
        for error in [error, again] {
            assert_eq!(error.kind(), ErrorKind::Other);
            assert!(error.get_ref().unwrap().downcast_ref::<Cancelled>().is_some_and(|it| !it.is_timeout()));
        }
        client.write_all(b"whole")?;
        // Also where there is something to be had at once.
        server.peek(&mut [0])?;
        assert!(rt::timeout(Duration::ZERO, || (&*server).read(&mut [0; 8])).is_err());
        let mut found = [0; 5];
        (&*server).read_exact(&mut found)?;
        assert_eq!(&found, b"whole");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_plain_threads_read_is_bounded_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // The outer one is the first to end; the stream's own timeout is not what says so.
    stream.set_read_timeout(Some(LONG)).unwrap();
    let read = || (&stream).read(&mut [0; 8]).map_err(|error| error.kind());
    assert_eq!(rt::timeout(SHORT, read).unwrap_err().into_inner(), Err(ErrorKind::TimedOut));
    stream.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(rt::timeout(LONG, read).unwrap(), Err(ErrorKind::TimedOut));
}

#[test]
fn a_join_with_a_deadline_gives_the_handle_back() {
    for outside in [false, true] {
        run(move || {
            let release = Arc::new(AtomicBool::new(false));
            let waits = release.clone();
            let task = rt::spawn(move || {
                while !waits.load(Ordering::SeqCst) {
                    sleep(SHORT).unwrap();
                }
                5
            });
            let join = move || {
                let task = task.join_timeout(SHORT).unwrap_err();
                let task = task.join_until(Instant::now()).unwrap_err();
                release.store(true, Ordering::SeqCst);
                task.join_timeout(Duration::MAX).unwrap().unwrap()
            };
            let joined = if outside { thread::spawn(join).join().unwrap() } else { join() };
            assert_eq!(joined, 5);
        });
    }
}

#[test]
fn a_cancelled_joiner_stops_waiting_and_the_task_goes_on() {
    run_in_order(|| {
        let ended = Arc::new(AtomicBool::new(false));
        let ends = ended.clone();
        let joiner = rt::spawn(move || {
            let task = rt::spawn(move || {
                rt::yield_now();
                rt::yield_now();
                rt::yield_now();
                ends.store(true, Ordering::SeqCst);
            });
            task.join().unwrap_err()
        });
        rt::yield_now();
        joiner.cancel();
        let error = joiner.join().unwrap();
        assert!(error.is_interrupted() && !error.is_cancelled() && !error.is_panic());
        while !ended.load(Ordering::SeqCst) {
            rt::yield_now();
        }
    });
}

#[test]
fn cancels_race_with_the_end_of_the_wait_and_with_that_of_the_task() {
    let rounds = scaled(2000, 100);
    ends(move || {
        rt::Runtime::builder().workers(2).run(move || {
            for round in 0..rounds {
                let task = rt::spawn(move || {
                    for _ in 0..round % 7 {
                        rt::yield_now();
                    }
                    let me = task::Unparker::current();
                    let waker = rt::spawn(move || me.unpark());
                    let parked = task::park_cancellable(None);
                    drop(waker);
                    parked
                });
                for _ in 0..round % 5 {
                    rt::yield_now();
                }
                task.cancel();
                match task.join() {
                    Ok(_) => {}
                    Err(error) => assert!(error.is_cancelled()),
                }
            }
        })
    })
    .unwrap();
}
