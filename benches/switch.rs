//! The primitive crate beside corosensei: the switch, and the life of a coroutine.

use std::hint::black_box;

use corosensei::stack::DefaultStack;
use criterion::Criterion;
use switchback::stack::Mapped;
use switchback_benches::OURS;

/// Bytes of the stacks of both, so that neither maps more than the other.
const RESERVE: usize = 256 * 1024;

fn main() {
    switchback_benches::run(env!("CARGO_TARGET_TMPDIR"), &[resume_and_suspend, ring, live_and_die, live_and_die_fresh]);
}

/// One resume and the suspend that answers it, a word each way.
fn resume_and_suspend(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resume + suspend");
    group.bench_function(OURS, |bencher| {
        let mut coroutine = switchback::Coroutine::new(|yielder: &switchback::Yielder<usize, usize>, mut word| {
            loop {
                word = yielder.suspend(word);
            }
            #[expect(unreachable_code, reason = "gives the closure its return type")]
            ()
        })
        .expect("a stack");
        bencher.iter(|| coroutine.resume(black_box(1)));
    });
    group.bench_function("corosensei", |bencher| {
        let mut coroutine = corosensei::Coroutine::<usize, usize, ()>::new(|yielder, mut word| {
            loop {
                word = yielder.suspend(word);
            }
        });
        bencher.iter(|| coroutine.resume(black_box(1)));
    });
    group.finish();
}

/// One resume and suspend of another coroutine each time, around a ring: what caches and branch predictors make of it.
fn ring(criterion: &mut Criterion) {
    for count in [10, 1_000] {
        let mut group = criterion.benchmark_group(format!("ring of {count}"));
        group.bench_function(OURS, |bencher| {
            let mut ring: Vec<_> = (0..count)
                .map(|_| {
                    let stack = Mapped::new(RESERVE).expect("a stack");
                    switchback::Coroutine::with_stack(stack, |yielder: &switchback::Yielder<usize, usize>, mut word| {
                        loop {
                            word = yielder.suspend(word);
                        }
                        #[expect(unreachable_code, reason = "gives the closure its return type")]
                        ()
                    })
                    .expect("it fits")
                })
                .collect();
            let mut next = 0;
            bencher.iter(|| {
                next = if next + 1 == count { 0 } else { next + 1 };
                ring[next].resume(black_box(1))
            });
        });
        group.bench_function("corosensei", |bencher| {
            let mut ring: Vec<_> = (0..count)
                .map(|_| {
                    let stack = DefaultStack::new(RESERVE).expect("a stack");
                    corosensei::Coroutine::<usize, usize, (), DefaultStack>::with_stack(stack, |yielder, mut word| {
                        loop {
                            word = yielder.suspend(word);
                        }
                    })
                })
                .collect();
            let mut next = 0;
            bencher.iter(|| {
                next = if next + 1 == count { 0 } else { next + 1 };
                ring[next].resume(black_box(1))
            });
        });
        group.finish();
    }
}

/// A coroutine created, run to its end and dropped, on a stack that is used again and again.
fn live_and_die(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("create + run + drop, stack reused");
    group.bench_function(OURS, |bencher| {
        let mut stack = Some(Mapped::new(RESERVE).expect("a stack"));
        bencher.iter(|| {
            let mut coroutine = switchback::Coroutine::with_stack(
                stack.take().expect("it was put back"),
                |_: &switchback::Yielder<usize, ()>, word| word + 1,
            )
            .expect("it fits");
            let answer = coroutine.resume(black_box(1));
            stack = coroutine.into_stack();
            answer
        });
    });
    group.bench_function("corosensei", |bencher| {
        let mut stack = Some(DefaultStack::new(RESERVE).expect("a stack"));
        bencher.iter(|| {
            let mut coroutine = corosensei::Coroutine::<usize, (), usize, DefaultStack>::with_stack(
                stack.take().expect("it was put back"),
                |_, word| word + 1,
            );
            let answer = coroutine.resume(black_box(1));
            stack = Some(coroutine.into_stack());
            answer
        });
    });
    group.finish();
}

/// The same with a new mapping each time.
fn live_and_die_fresh(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("create + run + drop, fresh mapping");
    group.bench_function(OURS, |bencher| {
        bencher.iter(|| {
            switchback::Coroutine::with_stack(
                Mapped::new(RESERVE).expect("a stack"),
                |_: &switchback::Yielder<usize, ()>, word| word + 1,
            )
            .expect("it fits")
            .resume(black_box(1))
        });
    });
    group.bench_function("corosensei", |bencher| {
        bencher.iter(|| {
            corosensei::Coroutine::<usize, (), usize, DefaultStack>::with_stack(
                DefaultStack::new(RESERVE).expect("a stack"),
                |_, word| word + 1,
            )
            .resume(black_box(1))
        });
    });
    group.finish();
}
