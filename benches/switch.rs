//! The primitive crate beside corosensei: the switch, and the life of a coroutine.

use std::hint::black_box;
use std::time::Instant;

use corosensei::stack::DefaultStack;
use criterion::Criterion;
use switchback::stack::Mapped;
use switchback_benches::OURS;

/// Bytes of the stacks of both, so that neither maps more than the other.
const RESERVE: usize = 256 * 1024;

fn main() {
    switchback_benches::run(
        env!("CARGO_TARGET_TMPDIR"),
        &[resume_and_suspend, symmetric, ring, live_and_die, live_and_die_fresh],
    );
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

/// One switch between two contexts, straight, against half a resume and suspend, which is one switch as well.
fn symmetric(criterion: &mut Criterion) {
    use switchback::context::{Context, Left, Running};

    struct Pair {
        contexts: [Context; 2],
        left: u64,
    }

    /// Switches to the other one until there is nothing left to count.
    unsafe extern "C" fn back_and_forth(pair: *mut (), running: &Running) -> *mut () {
        // SAFETY: the word is the benchmark's pair, which only the context that runs uses.
        unsafe {
            let pair = pair.cast::<Pair>();
            let [first, second] = (*pair).contexts;
            let other = if running.context() == first { second } else { first };
            while (*pair).left > 0 {
                (*pair).left -= 1;
                running.switch_to(other, pair.cast());
            }
        }
        std::ptr::null_mut()
    }

    let mut group = criterion.benchmark_group("symmetric switch");
    group.bench_function(OURS, |bencher| {
        let stacks = [Mapped::new(RESERVE).expect("a stack"), Mapped::new(RESERVE).expect("a stack")];
        bencher.iter_custom(|count| {
            // SAFETY: the stacks and the pair outlive the contexts, of which one ends and the other is not continued.
            unsafe {
                let contexts = stacks.each_ref().map(|stack| Context::new(stack, back_and_forth).expect("it fits"));
                let mut pair = Pair { contexts, left: count };
                let start = Instant::now();
                assert!(matches!(contexts[0].enter((&raw mut pair).cast()), Left::Ended(_)));
                start.elapsed()
            }
        });
    });
    group.bench_function("half a resume + suspend of corosensei", |bencher| {
        bencher.iter_custom(|count| {
            let mut coroutine = corosensei::Coroutine::<usize, usize, ()>::new(|yielder, mut word| {
                loop {
                    word = yielder.suspend(word);
                }
            });
            let start = Instant::now();
            for _ in 0..count.div_ceil(2) {
                black_box(coroutine.resume(black_box(1)));
            }
            start.elapsed()
        });
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
