//! The runtime beside tokio's single-threaded one.

use std::time::{Duration, Instant};

use switchback_benches::{Contender, Job, Work, repeat, timing};
use switchback_runtime as rt;

fn main() {
    timing::run(&[
        Job {
            name: "spawn + join",
            contenders: &[
                Contender { name: "switchback", prepare: spawn_and_join },
                Contender { name: "tokio", prepare: tokio_spawn_and_join },
            ],
        },
        Job {
            name: "yield between two tasks",
            contenders: &[
                Contender { name: "switchback", prepare: yield_now },
                Contender { name: "tokio", prepare: tokio_yield_now },
            ],
        },
    ]);
}

/// A task spawned by another and waited for.
fn spawn_and_join() -> Work {
    Box::new(|count| {
        rt::Runtime::builder()
            .workers(1)
            .run(move || repeat(count, || rt::spawn(|| ()).join().expect("it neither panics nor lacks a stack")))
            .expect("a runtime")
    })
}

fn tokio_spawn_and_join() -> Work {
    let runtime = tokio_runtime();
    Box::new(move |count| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..count {
                tokio::spawn(async {}).await.expect("it does not panic");
            }
            start.elapsed()
        })
    })
}

/// One way of a yield between two tasks that do nothing else.
fn yield_now() -> Work {
    Box::new(|count| {
        rt::Runtime::builder()
            .workers(1)
            .run(move || {
                let yields = move || repeat(count.div_ceil(2), rt::yield_now);
                let other = rt::spawn(yields);
                let elapsed = yields();
                other.join().expect("it neither panics nor lacks a stack");
                elapsed
            })
            .expect("a runtime")
    })
}

fn tokio_yield_now() -> Work {
    async fn yields(count: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..count.div_ceil(2) {
            tokio::task::yield_now().await;
        }
        start.elapsed()
    }
    let runtime = tokio_runtime();
    Box::new(move |count| {
        runtime.block_on(async {
            let (one, other) = (tokio::spawn(yields(count)), tokio::spawn(yields(count)));
            other.await.expect("it does not panic");
            one.await.expect("it does not panic")
        })
    })
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}
