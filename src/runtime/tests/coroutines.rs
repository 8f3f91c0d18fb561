//! The runtime and the primitive crate's coroutines in one program.

use std::io;
use std::time::{Duration, Instant};

use switchback::{Coroutine, Resumed, Yielder};
use switchback_runtime as rt;

#[test]
fn a_runtime_inside_a_coroutine_is_refused() {
    // The first task borrows the yielder of a coroutine around its runtime: suspending there would leave the runtime's
    // thread-locals behind on a thread that does not run it.
    let mut outer = Coroutine::new(|yielder: &Yielder<(), ()>, ()| rt::run(|| yielder.suspend(()))).expect("a stack");
    let Resumed::Returned(refused) = outer.resume(()) else { panic!("the task reached a yielder around its runtime") };
    let refused: io::Error = refused.expect_err("a runtime needs the thread's own stack");
    assert!(refused.to_string().contains("not inside a coroutine"), "{refused}");
    // The thread is as it was: neither a worker nor a task.
    assert!(rt::metrics().is_none());
    rt::yield_now();
    assert_eq!(rt::run(|| 1).expect("a runtime"), 1);
}

#[test]
fn a_task_waits_from_inside_a_coroutine_of_its_own() {
    let before = Instant::now();
    let values = rt::run(|| {
        let tasks: Vec<_> = (0..10)
            .map(|task| {
                rt::spawn(move || {
                    let mut generator = Coroutine::new(move |yielder: &Yielder<(), u32>, ()| {
                        for n in 0..5 {
                            rt::yield_now();
                            yielder.suspend(task * 10 + n);
                            rt::time::sleep(Duration::from_millis(1)).unwrap();
                        }
                    })
                    .expect("a stack");
                    let mut values = Vec::new();
                    while let Resumed::Yielded(value) = generator.resume(()) {
                        values.push(value);
                        rt::yield_now();
                    }
                    values
                })
            })
            .collect();
        tasks.into_iter().map(|task| task.join().expect("no task panics")).collect::<Vec<_>>()
    })
    .expect("a runtime");
    // Five sleeps of a millisecond each, never early.
    assert!(before.elapsed() >= Duration::from_millis(5));
    for (task, values) in (0..).zip(values) {
        assert_eq!(values, (0..5).map(|n| task * 10 + n).collect::<Vec<_>>());
    }
}

#[test]
fn a_runtime_in_the_destructor_of_a_thread_local_is_refused_or_runs() {
    struct RunsWhenDropped;
    impl Drop for RunsWhenDropped {
        fn drop(&mut self) {
            // Whether the runtime's own thread-locals are gone by now is the system's choice.
            match rt::run(|| 1) {
                Ok(value) => assert_eq!(value, 1),
                Err(error) => assert!(error.to_string().contains("ending"), "{error}"),
            }
        }
    }
    thread_local! {
        static LAST: RunsWhenDropped = const { RunsWhenDropped };
    }
    std::thread::spawn(|| {
        LAST.with(|_| ());
        assert_eq!(rt::run(|| 2).expect("a runtime"), 2);
    })
    .join()
    .expect("a destructor that panicked would have ended the process");
}
