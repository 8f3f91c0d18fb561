//! The runtime beside tokio's single-threaded one.

use std::time::Instant;

use criterion::Criterion;
use switchback_benches::OURS;
use switchback_runtime as rt;

fn main() {
    switchback_benches::run(env!("CARGO_TARGET_TMPDIR"), &[spawn_and_join, yield_now]);
}

/// A task spawned by another and waited for.
fn spawn_and_join(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spawn + join");
    group.bench_function(OURS, |bencher| {
        bencher.iter_custom(|count| {
            rt::run(|| {
                let start = Instant::now();
                for _ in 0..count {
                    rt::spawn(|| ()).join().expect("it neither panics nor lacks a stack");
                }
                start.elapsed()
            })
            .expect("a runtime")
        });
    });
    group.bench_function("tokio", |bencher| {
        let runtime = tokio_runtime();
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..count {
                    tokio::spawn(async {}).await.expect("it does not panic");
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// One way of a yield between two tasks that do nothing else.
fn yield_now(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("yield between two tasks");
    group.bench_function(OURS, |bencher| {
        bencher.iter_custom(|count| {
            rt::run(move || {
                let yields = move || (0..count.div_ceil(2)).for_each(|_| rt::yield_now());
                let start = Instant::now();
                let other = rt::spawn(yields);
                yields();
                other.join().expect("it neither panics nor lacks a stack");
                start.elapsed()
            })
            .expect("a runtime")
        });
    });
    group.bench_function("tokio", |bencher| {
        let runtime = tokio_runtime();
        bencher.iter_custom(|count| {
            runtime.block_on(async move {
                async fn yields(count: u64) {
                    for _ in 0..count {
                        tokio::task::yield_now().await;
                    }
                }
                let start = Instant::now();
                let (one, other) = (tokio::spawn(yields(count.div_ceil(2))), tokio::spawn(yields(count.div_ceil(2))));
                one.await.expect("it does not panic");
                other.await.expect("it does not panic");
                start.elapsed()
            })
        });
    });
    group.finish();
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}
