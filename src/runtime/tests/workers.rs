//! Several workers: tasks that have not begun go anywhere, tasks that have stay, and nothing is lost on the way.

mod common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::{ends, scaled};
use switchback_runtime as rt;
use switchback_runtime::net::{TcpListener, TcpStream};
use switchback_runtime::task::{Unparker, park};
use switchback_runtime::time::sleep;

/// Runs the first task of a runtime with so many workers, and fails the test if it hangs.
fn run<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
    ends(move || rt::Runtime::builder().workers(workers).run(f).unwrap())
}

fn here() -> ThreadId {
    thread::current().id()
}

/// Counts when dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn tasks_run_on_all_workers_at_once() {
    run(3, || {
        for _ in 0..scaled(1000, 20) {
            // Each keeps its thread until all three are there; the first task is parked, so its thread can have one.
            let meet = Arc::new(Barrier::new(3));
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let meet = meet.clone();
                    rt::spawn(move || {
                        meet.wait();
                        here()
                    })
                })
                .collect();
            let threads: HashSet<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
            assert_eq!(threads.len(), 3);
        }
    });
}

#[test]
fn a_task_that_has_begun_never_changes_its_thread() {
    let (tasks, rounds) = (scaled(60, 12), scaled(60, 12));
    let threads = run(3, move || {
        let tasks: Vec<_> = (0..tasks)
            .map(|number| {
                rt::spawn(move || {
                    let home = here();
                    for round in 0..rounds {
                        match (number + round) % 4 {
                            0 => sleep(Duration::from_micros(100)).unwrap(),
                            1 => {
                                let me = Unparker::current();
                                rt::spawn(move || me.unpark());
                                park();
                            }
                            2 => assert_eq!(rt::spawn(move || round).join().unwrap(), round),
                            _ => rt::yield_now(),
                        }
                        assert_eq!(here(), home);
                    }
                    home
                })
            })
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect::<HashSet<_>>()
    });
    assert!(threads.len() <= 3);
}

/// Computes until it is told to stop: the thread does nothing else.
fn computes_until(stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        thread::yield_now();
    }
}

#[test]
fn a_task_whose_spawner_goes_on_computing_is_run_by_another_worker() {
    run(2, || {
        for _ in 0..scaled(200, 20) {
            let stop = Arc::new(AtomicBool::new(false));
            let stops = stop.clone();
            rt::spawn(move || stops.store(true, Ordering::Release));
            computes_until(&stop);
        }
    });
}

#[test]
fn it_is_also_run_if_all_other_workers_are_busy_with_tasks_that_yield() {
    run(2, || {
        let over = Arc::new(AtomicBool::new(false));
        let yields = over.clone();
        let busy = rt::Builder::new()
            .on(1)
            .spawn(move || {
                while !yields.load(Ordering::Relaxed) {
                    rt::yield_now();
                }
            })
            .unwrap();
        for _ in 0..scaled(50, 5) {
            let stop = Arc::new(AtomicBool::new(false));
            let stops = stop.clone();
            rt::spawn(move || stops.store(true, Ordering::Release));
            computes_until(&stop);
        }
        over.store(true, Ordering::Relaxed);
        busy.join().unwrap();
    });
}

#[test]
fn tasks_that_yield_keep_none_waiting_that_has_not_begun_and_the_other_way_round() {
    run(2, || {
        // The other worker computes, so everything happens on this one.
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let begun = Arc::new(AtomicBool::new(false));
        let flag = begun.clone();
        let computes = move || {
            flag.store(true, Ordering::Release);
            computes_until(&stopped);
        };
        let busy = rt::Builder::new().on(1).spawn(computes).unwrap();
        while !begun.load(Ordering::Acquire) {
            rt::yield_now();
        }
        for _ in 0..20 {
            let task = rt::spawn(|| ());
            rt::yield_now();
            rt::yield_now();
            assert!(task.is_finished(), "it begins before we have had a second turn");
        }
        // Each spawns the next for ever, and yet we go on.
        fn again(stop: Arc<AtomicBool>) {
            if !stop.load(Ordering::Relaxed) {
                rt::spawn(move || again(stop));
            }
        }
        let chain = stop.clone();
        rt::spawn(move || again(chain));
        for _ in 0..10 {
            rt::yield_now();
        }
        stop.store(true, Ordering::Release);
        busy.join().unwrap();
    });
}

#[test]
fn many_tasks_of_one_spawner_all_run_and_can_be_joined() {
    let count = scaled(10_000, 300);
    for workers in [1, 2, 5] {
        let sum: usize = run(workers, move || {
            let tasks: Vec<_> = (0..count).map(|number| rt::spawn(move || number)).collect();
            tasks.into_iter().map(|task| task.join().unwrap()).sum()
        });
        assert_eq!(sum, count * (count - 1) / 2);
    }
}

#[test]
fn tasks_spawned_one_by_one_to_idle_workers_are_never_left_lying() {
    let rounds = scaled(3000, 100);
    run(3, move || {
        for round in 0..rounds {
            let (tell, told) = mpsc::channel();
            rt::spawn(move || tell.send(round).unwrap());
            // This blocks the thread, so that another worker has to come.
            assert_eq!(told.recv().unwrap(), round);
        }
    });
}

#[test]
fn plain_threads_spawn_into_a_runtime_until_it_ends_and_are_refused_afterwards() {
    let (threads, each) = (scaled(4, 2), scaled(500, 40));
    for workers in [1, 3] {
        ends(move || {
            let runtime = rt::Runtime::builder().workers(workers).start().unwrap();
            let ran = Arc::new(AtomicUsize::new(0));
            let dropped = Arc::new(AtomicUsize::new(0));
            let joined = Arc::new(AtomicUsize::new(0));
            let spawners: Vec<_> = (0..threads)
                .map(|_| {
                    let (handle, ran, dropped) = (runtime.clone(), ran.clone(), dropped.clone());
                    let joined = joined.clone();
                    thread::spawn(move || {
                        let spawn = || {
                            let (ran, counted) = (ran.clone(), Counted(dropped.clone()));
                            handle.spawn(move || {
                                ran.fetch_add(1, Ordering::Relaxed);
                                drop(counted);
                            })
                        };
                        for _ in 0..each {
                            spawn().join().unwrap();
                        }
                        joined.fetch_add(1, Ordering::Relaxed);
                        // And now without looking, until the end has been seen.
                        let mut spawned = each;
                        loop {
                            spawned += 1;
                            let task = spawn();
                            if spawned % 16 == 0 && task.join().is_err_and(|error| error.is_cancelled()) {
                                return spawned;
                            }
                        }
                    })
                })
                .collect();
            while joined.load(Ordering::Relaxed) < threads {
                thread::yield_now();
            }
            let handle = runtime.clone();
            runtime.shutdown().unwrap();
            let spawned: usize = spawners.into_iter().map(|spawner| spawner.join().unwrap()).sum();
            assert_eq!(dropped.load(Ordering::Relaxed), spawned, "each closure was run or dropped");
            assert!(ran.load(Ordering::Relaxed) < spawned);
            let metrics = handle.metrics();
            assert_eq!((metrics.tasks, metrics.stacks, metrics.timers), (0, 0, 0), "{metrics:?}");
            assert!(handle.spawn(|| ()).join().unwrap_err().is_cancelled());
        });
    }
}

#[test]
fn no_unpark_and_no_join_is_lost_between_workers() {
    let (tasks, rounds) = (scaled(32, 6), scaled(300, 20));
    run(4, move || {
        // A ring: each waits for its number and hands on, so a lost unpark would hang all.
        let turn = Arc::new(AtomicUsize::new(0));
        let known: Arc<Vec<Mutex<Option<Unparker>>>> = Arc::new((0..tasks).map(|_| Mutex::default()).collect());
        let all_known = Arc::new(AtomicUsize::new(0));
        let ring: Vec<_> = (0..tasks)
            .map(|number| {
                let (turn, known, all_known) = (turn.clone(), known.clone(), all_known.clone());
                let task = rt::Builder::new().on(number % 4).spawn(move || {
                    *known[number].lock().unwrap() = Some(Unparker::current());
                    all_known.fetch_add(1, Ordering::AcqRel);
                    while all_known.load(Ordering::Acquire) < tasks {
                        rt::yield_now();
                    }
                    for round in 0..rounds {
                        while turn.load(Ordering::Acquire) != round * tasks + number {
                            park();
                        }
                        turn.fetch_add(1, Ordering::AcqRel);
                        let next = known[(number + 1) % tasks].lock().unwrap().clone().unwrap();
                        next.unpark();
                        assert_eq!(rt::spawn(move || round).join().unwrap(), round);
                    }
                });
                task.unwrap()
            })
            .collect();
        ring.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(turn.load(Ordering::Relaxed), rounds * tasks);
    });
}

/// Tasks that are parked, asleep, running, in a run queue and not begun, on all workers, when the first task is over.
#[test]
fn at_the_end_every_task_of_every_worker_is_ended_and_its_destructors_have_run() {
    let each = scaled(40, 8);
    for _ in 0..scaled(30, 4) {
        let created = Arc::new(AtomicUsize::new(0));
        let dropped = Arc::new(AtomicUsize::new(0));
        let (made, gone) = (created.clone(), dropped.clone());
        let handle = run(3, move || {
            let counted = move || {
                made.fetch_add(1, Ordering::Relaxed);
                Counted(gone.clone())
            };
            for number in 0..3 * each {
                let (captured, counted) = (counted(), counted.clone());
                let spawns = move || {
                    let _captured = captured;
                    let _local = counted();
                    match number % 5 {
                        0 => park(),
                        1 => drop(sleep(Duration::from_secs(3600))),
                        2 => loop {
                            let counted = counted();
                            rt::spawn(move || drop(counted));
                            rt::yield_now();
                        },
                        3 => drop(rt::spawn(park).join()),
                        _ => loop {
                            rt::yield_now();
                        },
                    }
                };
                rt::Builder::new().on(number % 3).spawn(spawns).unwrap();
            }
            // Any moment is a good one.
            rt::yield_now();
            rt::Handle::current()
        });
        assert_eq!(created.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
        let metrics = handle.metrics();
        assert_eq!((metrics.tasks, metrics.stacks), (0, 0), "{metrics:?}");
        assert_eq!(metrics.spawned, metrics.completed);
    }
}

#[test]
fn a_destructor_may_join_what_has_not_begun_or_is_on_another_worker_while_the_runtime_ends() {
    struct Joins(Vec<rt::JoinHandle<()>>, mpsc::Sender<bool>);
    impl Drop for Joins {
        fn drop(&mut self) {
            // One that has begun on the worker of the destructor is not waited for, but is not over either.
            self.0.drain(..).for_each(|task| self.1.send(task.join().unwrap_err().is_cancelled()).unwrap());
        }
    }
    let (say, said) = mpsc::channel();
    run(2, move || {
        let begun = Arc::new(AtomicUsize::new(0));
        let far = rt::Builder::new().on(1).spawn({
            let begun = begun.clone();
            move || {
                begun.fetch_add(1, Ordering::Release);
                park();
            }
        });
        let far = far.unwrap();
        rt::spawn_local({
            let begun = begun.clone();
            move || {
                let _joins = Joins(vec![far, rt::spawn(park)], say);
                begun.fetch_add(1, Ordering::Release);
                loop {
                    park();
                }
            }
        });
        while begun.load(Ordering::Acquire) < 2 {
            rt::yield_now();
        }
    });
    assert!(said.iter().next().unwrap());
}

#[test]
fn a_local_task_stays_with_its_spawner_and_may_hold_what_cannot_be_sent() {
    run(3, || {
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                rt::spawn(move || {
                    let (home, shared) = (here(), Rc::new(number));
                    let local = rt::spawn_local({
                        let shared = shared.clone();
                        move || {
                            for _ in 0..5 {
                                rt::yield_now();
                                assert_eq!(here(), home);
                            }
                            shared
                        }
                    });
                    assert_eq!(*local.join().unwrap(), number);
                    assert_eq!(Rc::strong_count(&shared), 1);
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_task_runs_on_the_worker_that_it_is_placed_on() {
    run(3, || {
        let at = |worker| rt::Builder::new().on(worker).spawn(here).unwrap().join().unwrap();
        let threads: Vec<_> = (0..3).map(at).collect();
        assert_eq!(threads.iter().collect::<HashSet<_>>().len(), 3);
        assert_eq!(threads[0], here());
        for _ in 0..scaled(200, 20) {
            assert_eq!([0, 1, 2].map(at)[..], threads);
        }
        let error = rt::Builder::new().on(3).spawn(|| ()).unwrap_err();
        assert_eq!(error.to_string(), "there is no worker 3: the runtime has 3, counted from 0");
        let error = rt::Builder::new().on(1).spawn_local(|| ()).unwrap_err();
        assert!(error.to_string().contains("cannot be placed on worker 1"), "{error}");
        let workers = rt::Handle::current().worker_metrics();
        assert!(workers.iter().all(|worker| worker.begun > scaled(200, 20) as u64), "{workers:?}");
    });
}

#[test]
fn two_runtimes_with_two_workers_each_work_for_each_other() {
    let rounds = scaled(500, 30);
    ends(move || {
        let [one, two] = [(); 2].map(|()| rt::Runtime::builder().workers(2).start().unwrap());
        let (first, second) = (one.clone(), two.clone());
        let there_and_back = one.spawn(move || {
            let home = here();
            for round in 0..rounds {
                let back = first.clone();
                let there = second.spawn(move || back.spawn(move || round).join().unwrap());
                assert_eq!(there.join().unwrap(), round);
                assert_eq!(here(), home);
            }
        });
        there_and_back.join().unwrap();
        one.shutdown().unwrap();
        assert_eq!(two.spawn(|| 1).join().unwrap(), 1, "the other goes on");
    });
}

#[test]
fn sockets_serve_between_workers() {
    let (clients, rounds) = (scaled(20, 4), scaled(50, 5));
    run(3, move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        rt::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                rt::spawn(move || {
                    let mut byte = [0];
                    while stream.read(&mut byte).unwrap() == 1 {
                        stream.write_all(&byte).unwrap();
                    }
                });
            }
        });
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                rt::spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    // One half here, the other wherever it is begun.
                    let mut reads = stream.try_clone().unwrap();
                    let reader = rt::spawn(move || {
                        let mut bytes = vec![0; rounds];
                        reads.read_exact(&mut bytes).unwrap();
                        bytes
                    });
                    for round in 0..rounds {
                        stream.write_all(&[round as u8]).unwrap();
                        rt::yield_now();
                    }
                    assert_eq!(reader.join().unwrap(), (0..rounds).map(|round| round as u8).collect::<Vec<_>>());
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn the_names_of_the_threads_and_the_number_of_workers_are_as_asked_for() {
    let names: HashSet<_> = ends(|| {
        let runtime = rt::Runtime::builder().workers(2).name("crew").start().unwrap();
        assert_eq!(runtime.metrics().workers, 2);
        let name = || thread::current().name().map(str::to_owned).unwrap();
        [0, 1].map(|on| rt::Builder::new().on(on).spawn_on(&runtime, name).unwrap().join().unwrap()).into()
    });
    assert_eq!(names, HashSet::from(["crew-0".to_owned(), "crew-1".to_owned()]));
    for (builder, says) in [
        (rt::Runtime::builder().workers(0), "between 1 and"),
        (rt::Runtime::builder().workers(usize::MAX), "between 1 and"),
        (rt::Runtime::builder().name("a\0b"), "null byte"),
    ] {
        let error = builder.clone().run(|| unreachable!()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(builder.start().unwrap_err().to_string().contains(says));
    }
}

#[test]
fn a_limit_of_tasks_is_kept_and_what_is_over_makes_room() {
    for workers in [1, 3] {
        ends(move || {
            let ran = rt::Runtime::builder().workers(workers).max_tasks(4).run(|| {
                let tasks: Vec<_> = (0..5).map(|_| rt::spawn(park)).collect();
                assert_eq!(tasks.iter().filter(|task| task.is_finished()).count(), 2);
            });
            ran.unwrap();
            let error = rt::Runtime::builder().workers(workers).max_tasks(0).run(|| ()).unwrap_err();
            assert!(error.to_string().contains("max_tasks"), "{error}");
            rt::Runtime::builder()
                .workers(workers)
                .max_tasks(2)
                .run(|| {
                    for _ in 0..20 {
                        // The place of the one before is free a moment after it has been joined.
                        while let Err(error) = rt::spawn(|| ()).join() {
                            assert!(error.to_string().contains("2 tasks are alive"), "{error}");
                            rt::yield_now();
                        }
                    }
                })
                .unwrap();
        });
    }
}

#[test]
fn a_runtime_dropped_by_one_of_its_own_tasks_ends_without_waiting_for_itself() {
    ends(|| {
        let runtime = rt::Runtime::builder().workers(2).start().unwrap();
        let handle = runtime.clone();
        let (give, take) = mpsc::channel::<rt::Runtime>();
        let task = handle.spawn(move || drop(take.recv().unwrap()));
        give.send(runtime).unwrap();
        task.join().unwrap();
        assert!(handle.spawn(|| ()).join().unwrap_err().is_cancelled());
    });
}

#[test]
fn workers_without_work_sleep() {
    run(3, || {
        sleep(Duration::from_millis(20)).unwrap();
        let before: Vec<_> = rt::Handle::current().worker_metrics().iter().map(|worker| worker.sleeps).collect();
        sleep(Duration::from_millis(50)).unwrap();
        let after: Vec<_> = rt::Handle::current().worker_metrics().iter().map(|worker| worker.sleeps).collect();
        // Whoever looked again and again would have gone to sleep a thousand times.
        assert!(before.iter().zip(&after).all(|(before, after)| after - before < 20), "{before:?} {after:?}");
    });
}

#[test]
fn a_deadline_comes_on_every_worker() {
    run(3, || {
        let nap = Duration::from_millis(2);
        let tasks: Vec<_> = (0..30)
            .map(|number| {
                let sleeps = move || {
                    let start = Instant::now();
                    sleep(nap).unwrap();
                    start.elapsed()
                };
                rt::Builder::new().on(number % 3).spawn(sleeps).unwrap()
            })
            .collect();
        assert!(tasks.into_iter().all(|task| task.join().unwrap() >= nap));
    });
}
