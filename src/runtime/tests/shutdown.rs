//! What becomes of the tasks that are left when the first one is over.

mod common;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{ends, scaled};
use switchback_runtime as rt;
use switchback_runtime::net::{TcpListener, TcpStream};
use switchback_runtime::task::{Unparker, park};
use switchback_runtime::time::sleep;

/// Calls its function when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn add_one(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Runs, with one worker, a first task that starts what `f` starts, lets it begin, and ends.
fn leave<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    ends(|| {
        rt::Runtime::builder()
            .workers(1)
            .run(|| {
                let value = f();
                for _ in 0..3 {
                    rt::yield_now();
                }
                value
            })
            .unwrap()
    })
}

#[test]
fn tasks_that_wait_in_any_way_are_unwound() {
    let count = scaled(300, 30);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = dropped.clone();
    leave(move || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        for number in 0..count {
            let (counter, listener) = (counter.clone(), listener.clone());
            rt::spawn(move || {
                let _outer = OnDrop(|| add_one(&counter));
                let _inner = OnDrop(|| add_one(&counter));
                match number % 5 {
                    0 => park(),
                    1 => drop(sleep(Duration::from_secs(3600))),
                    2 => drop(listener.accept()),
                    3 => drop(rt::spawn(park).join()),
                    _ => loop {
                        rt::yield_now();
                    },
                }
            });
        }
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 2 * count);
}

#[test]
fn tasks_that_have_not_begun_are_dropped_without_being_run() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = dropped.clone();
    ends(move || {
        rt::Runtime::builder()
            .workers(1)
            .run(|| {
                for _ in 0..10 {
                    let held = OnDrop({
                        let counter = counter.clone();
                        move || add_one(&counter)
                    });
                    rt::spawn(move || {
                        let _held = held;
                        panic!("it must not run");
                    });
                }
            })
            .unwrap();
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 10);
}

#[test]
fn their_handles_say_cancelled_also_to_plain_threads() {
    let (begun, take, thread) = leave(|| {
        let begun = rt::spawn(park);
        let joined = rt::spawn(park);
        let thread = thread::spawn(move || joined.join().unwrap_err().is_cancelled());
        // Not begun when the root ends: it is spawned at the last moment.
        let (give, take) = mpsc::channel();
        rt::spawn(move || {
            for _ in 0..2 {
                rt::yield_now();
            }
            give.send(rt::spawn(|| ())).unwrap();
        });
        (begun, take, thread)
    });
    assert!(thread.join().unwrap());
    let error = begun.join().unwrap_err();
    assert!(error.is_cancelled() && !error.is_panic());
    assert_eq!(error.to_string(), "task was cancelled");
    assert!(take.recv().unwrap().join().unwrap_err().is_cancelled());
}

#[test]
fn destructors_may_sleep_park_use_sockets_and_threads() {
    let (say, said) = mpsc::channel();
    let start = Instant::now();
    leave(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        rt::spawn(move || {
            let _talks = OnDrop(|| {
                sleep(Duration::from_millis(5)).unwrap();
                rt::yield_now();
                let me = rt::task::Unparker::current();
                let peer = thread::spawn(move || {
                    let mut text = String::new();
                    std::net::TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
                    me.unpark();
                    text
                });
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"farewell").unwrap();
                drop(stream);
                park();
                say.send(peer.join().unwrap()).unwrap();
            });
            park();
        });
    });
    assert_eq!(said.recv().unwrap(), "farewell");
    assert!(start.elapsed() >= Duration::from_millis(5));
}

#[test]
fn a_destructor_that_joins_a_sibling_is_told_that_it_would_wait_for_ever() {
    let (say, said) = mpsc::channel();
    leave(move || {
        let (give, take) = mpsc::channel();
        rt::spawn(move || {
            let _joins = OnDrop(|| {
                let sibling: rt::JoinHandle<()> = take.recv().unwrap();
                say.send(sibling.join().unwrap_err().to_string()).unwrap();
            });
            park();
        });
        give.send(rt::spawn(park)).unwrap();
    });
    assert!(said.recv().unwrap().contains("cannot be waited for"));
}

#[test]
fn what_a_destructor_spawns_is_cancelled() {
    let (say, said) = mpsc::channel();
    leave(move || {
        rt::spawn(move || {
            let _spawns = OnDrop(|| {
                let task = rt::spawn(|| -> () { panic!("it must not run") });
                say.send(task.join().unwrap_err().is_cancelled()).unwrap();
            });
            park();
        });
    });
    assert!(said.recv().unwrap());
}

#[test]
fn a_panic_while_ending_loses_none_of_the_others() {
    let count = scaled(30, 12);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = dropped.clone();
    ends(move || {
        rt::Runtime::builder()
            .workers(1)
            .run(|| {
                let counted = || {
                    let counter = counter.clone();
                    OnDrop(move || add_one(&counter))
                };
                for _ in 0..count {
                    let counted = counted();
                    rt::spawn(move || {
                        let _counted = counted;
                        catch_unwind(park).unwrap_err();
                        panic!("in the place of the unwinding");
                    });
                }
                rt::yield_now();
                for _ in 0..count {
                    let (counted, bomb) = (counted(), OnDrop(|| panic!("as a destructor of what a task captured")));
                    rt::spawn(move || (counted, bomb));
                }
            })
            .unwrap();
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 2 * count);
}

#[test]
fn a_task_that_swallows_its_unwinding_for_ever_keeps_neither_run_nor_whoever_joins_it() {
    let tasks = leave(|| {
        let sleeps = || {
            loop {
                let _ = catch_unwind(|| sleep(Duration::from_secs(3600)));
            }
        };
        let yields = || {
            loop {
                let _ = catch_unwind(rt::yield_now);
            }
        };
        [rt::spawn(sleeps), rt::spawn(yields)]
    });
    for task in tasks {
        assert!(task.join().unwrap_err().is_cancelled());
    }
}

#[test]
fn a_result_achieved_in_spite_of_the_ending_is_reported() {
    let task = leave(|| {
        rt::spawn(|| {
            let caught = catch_unwind(AssertUnwindSafe(park)).is_err();
            (caught, 4)
        })
    });
    assert_eq!(task.join().unwrap(), (true, 4));
}

#[test]
fn sockets_survive_their_runtime() {
    let (listener, mut client) = leave(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Registered with the runtime that ends.
        client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        client.read(&mut [0]).unwrap_err();
        client.set_read_timeout(None).unwrap();
        (listener, client)
    });
    ends(move || {
        rt::run(|| {
            let (mut server, _) = listener.accept().unwrap();
            let echo = rt::spawn(move || {
                let mut byte = [0];
                server.read_exact(&mut byte).unwrap();
                server.write_all(&byte).unwrap();
            });
            rt::yield_now();
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            echo.join().unwrap();
        })
        .unwrap();
    });
}

/// Whoever has found a task parked is on the way to queue it; the task, its worker and the runtime may be over by then.
#[test]
fn wakers_may_come_at_any_time_while_a_runtime_ends() {
    let (runtimes, tasks, wakers) = (scaled(100, 20), 20, 2);
    ends(move || {
        let mut before: Option<(Arc<AtomicBool>, Vec<thread::JoinHandle<()>>)> = None;
        for _ in 0..runtimes {
            let over = Arc::new(AtomicBool::new(false));
            let wakers = rt::Runtime::builder()
                .workers(1)
                .run(|| {
                    let (tell, told) = mpsc::channel();
                    for _ in 0..tasks {
                        let tell = tell.clone();
                        rt::spawn(move || {
                            tell.send(Unparker::current()).unwrap();
                            loop {
                                park();
                            }
                        });
                    }
                    rt::yield_now();
                    let unparkers: Arc<Vec<Unparker>> = Arc::new(told.try_iter().collect());
                    assert_eq!(unparkers.len(), tasks);
                    let wake = || {
                        let (unparkers, over) = (unparkers.clone(), over.clone());
                        thread::spawn(move || {
                            while !over.load(Ordering::Relaxed) {
                                unparkers.iter().for_each(Unparker::unpark);
                            }
                        })
                    };
                    let wakers: Vec<_> = (0..wakers).map(|_| wake()).collect();
                    // Long enough for those who are late for the runtime before.
                    sleep(Duration::from_millis(1)).unwrap();
                    wakers
                })
                .unwrap();
            // Those who come late find the next runtime in the place of theirs.
            if let Some((over, wakers)) = before.replace((over, wakers)) {
                over.store(true, Ordering::Relaxed);
                wakers.into_iter().for_each(|waker| waker.join().unwrap());
            }
        }
        if let Some((over, _)) = before {
            over.store(true, Ordering::Relaxed);
        }
    });
}
