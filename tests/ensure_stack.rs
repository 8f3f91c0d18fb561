//! Growing on demand, and what it rests on: how much is left of whatever stack is running.
#![cfg(feature = "std")]

mod common;

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc;
use std::thread;

use common::{emulated, in_a_child};
use switchback::stack::{Borrowed, DEFAULT_RESERVE, Error, Mapped, Stack, remaining};
use switchback::{Coroutine, Resumed, Yielder, ensure_stack, on_stack};

const KIB: usize = 1024;
/// Enough for the frames of a test between two calls, a panic's backtrace included.
const RED_ZONE: usize = 64 * KIB;

fn mapped(size: usize) -> Mapped {
    Mapped::new(size).expect("a stack")
}

fn bounds(stack: &impl Stack) -> (usize, usize) {
    (stack.limit().addr().get(), stack.top().addr().get())
}

fn here() -> usize {
    let local = 0_u8;
    black_box(&raw const local).addr()
}

/// Whether what is said to be left is what is left down to `limit`, but for the frames of this call.
#[track_caller]
fn assert_left_above(limit: usize) {
    let left = remaining().expect("the stack is known");
    let expected = here() - limit;
    assert!(left.abs_diff(expected) < 2 * KIB, "{left} bytes are said to be left, {expected} are");
}

/// Needs some hundred bytes a level, more without optimisations.
#[inline(never)]
fn depth(levels: usize) -> Result<usize, Error> {
    let frame = black_box([levels; 32]);
    if levels == 0 {
        return Ok(0);
    }
    Ok(1 + ensure_stack(RED_ZONE, 256 * KIB, || depth(levels - 1))?? + frame[levels % 32] - levels)
}

/// Far more levels than fit on any stack here: 256 bytes each at the least.
fn many_levels() -> usize {
    if emulated() { 20_000 } else { 200_000 }
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn recursion_that_would_overflow_a_threads_stack_passes() {
    let small = thread::Builder::new().stack_size(128 * KIB);
    let thread = small.spawn(|| depth(many_levels()).expect("stacks")).expect("a thread");
    assert_eq!(thread.join().expect("it does not overflow"), many_levels());
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn recursion_that_would_overflow_a_coroutines_stack_passes() {
    let mut coroutine = Coroutine::with_stack(mapped(96 * KIB), |yielder: &Yielder<(), _>, ()| {
        yielder.suspend(depth(many_levels()).expect("stacks"));
        depth(many_levels() / 10).expect("stacks")
    })
    .expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Yielded(many_levels()));
    assert_eq!(coroutine.resume(()), Resumed::Returned(many_levels() / 10));
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn a_function_runs_where_it_is_called_if_enough_is_left_and_elsewhere_if_not() {
    let mut stack = mapped(256 * KIB);
    let (limit, top) = bounds(&stack);
    on_stack(&mut stack, || {
        for red_zone in [0, 1, 64 * KIB, 250 * KIB] {
            let address = ensure_stack(red_zone, 1, here).expect("enough is left");
            assert!((limit..top).contains(&address), "{red_zone}");
        }
        for red_zone in [256 * KIB, 1 << 20, 100 << 20] {
            let (address, left) = ensure_stack(red_zone, 1, || (here(), remaining())).expect("a new stack");
            assert!(!(limit..top).contains(&address), "{red_zone}");
            assert!(left.expect("it is known") >= red_zone - 2 * KIB, "{left:?} of {red_zone}");
        }
        assert_left_above(limit);
    });
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn what_is_left_of_a_threads_stack_is_known_to_its_last_pages() {
    let size = 256 * KIB;
    let thread = thread::Builder::new().stack_size(size).spawn(move || {
        let left = remaining().expect("a thread's stack is known");
        assert!(left <= size + 64 * KIB && left > size / 2, "{left}");
        // Uses nearly all of it, which faults if it is not there.
        fn use_up(until: usize) -> usize {
            let frame = black_box([1_u8; KIB]);
            let left = remaining().expect("a thread's stack is known");
            if left < until { left } else { use_up(until) + usize::from(frame[0]) - 1 }
        }
        assert!(use_up(16 * KIB) < 16 * KIB);
    });
    thread.expect("a thread").join().expect("what is left is there");
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn nothing_is_known_of_memory_of_the_creators_and_a_new_stack_is_taken_there() {
    let memory = Box::leak(vec![0_u8; 256 * KIB].into_boxed_slice());
    // SAFETY: the function below needs far less.
    let mut stack = unsafe { Borrowed::new(memory) }.expect("room");
    let (limit, top) = bounds(&stack);
    on_stack(&mut stack, || {
        assert_eq!(remaining(), None);
        for _ in 0..3 {
            let address = ensure_stack(1, 64 * KIB, || {
                assert!(remaining().is_some());
                here()
            });
            assert!(!(limit..top).contains(&address.expect("a new stack")));
        }
    });
    assert!(remaining().is_some());
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn coroutines_on_stacks_of_different_sizes_take_turns_and_each_knows_what_it_has() {
    let sizes = [64 * KIB, 1 << 20, 128 * KIB, 4 << 20];
    let mut coroutines = sizes.map(|size| {
        let stack = mapped(size);
        let (limit, _) = bounds(&stack);
        Coroutine::with_stack(stack, move |yielder: &Yielder<(), bool>, ()| {
            loop {
                assert_left_above(limit);
                let here = ensure_stack(100 * KIB, 1 << 20, || here() >= limit && here() - limit < size);
                yielder.suspend(here.expect("a stack"));
            }
        })
        .expect("it fits")
    });
    for _ in 0..10 {
        for (coroutine, size) in coroutines.iter_mut().zip(sizes) {
            assert_eq!(coroutine.next(), Some(size > 100 * KIB), "on its own stack of {size}");
            assert!(remaining().is_some(), "the thread's own stack, between them");
        }
    }
}

/// What a thread remembers of a stack must not outlive it: another one is mapped over it, with its end elsewhere.
///
/// In a process of its own, where no other test maps something there. QEMU gives out other addresses each time for as
/// long as it has some; there it is left to the test in `src/stack/remaining.rs`.
#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn a_stack_mapped_where_another_was_is_not_taken_for_it() {
    passes_alone("a_stack_mapped_where_another_was_is_not_taken_for_it", map_stacks_where_others_were);
}

/// Runs a test's body in a process of its own.
fn passes_alone(test: &str, body: fn()) {
    if let Some(child) = in_a_child(test, body) {
        assert!(child.status.success(), "{child:?}");
    }
}

fn map_stacks_where_others_were() {
    /// Two: whether addresses are given out from above or from below, one of them ends within the gap.
    fn replace(stack: Mapped) -> [Mapped; 2] {
        drop(stack);
        [mapped(128 * KIB), mapped(128 * KIB)]
    }
    let (give, take) = mpsc::channel();
    let (give_back, take_back) = mpsc::channel();
    let other = thread::spawn(move || take.into_iter().try_for_each(|stack| give_back.send(replace(stack))));
    let mut overlapped = [0; 2];
    // What is mapped is kept, and so fills whatever holes the address space has (malloc leaves some of 64 MiB), until
    // the one that a large stack leaves behind is the first that the kernel finds.
    let mut kept = Vec::new();
    let rounds = if emulated() { 50 } else { 2000 };
    for round in 0..rounds {
        if overlapped.iter().all(|&times| times >= 10) {
            break;
        }
        let mut large = mapped(1 << 20);
        let (large_limit, large_top) = bounds(&large);
        on_stack(&mut large, || assert_left_above(large_limit));
        // Unmapped by this thread and by another, in turns.
        let small = if round % 2 == 0 {
            replace(large)
        } else {
            give.send(large).expect("somebody listens");
            take_back.recv().expect("it maps them")
        };
        for mut stack in small {
            let (limit, top) = bounds(&stack);
            overlapped[round % 2] += usize::from(large_limit < limit && top <= large_top);
            on_stack(&mut stack, || assert_left_above(limit));
            kept.push(stack);
        }
    }
    drop(give);
    other.join().expect("it replaces stacks").expect("somebody listens");
    let used_again = overlapped.iter().all(|&times| times > 0);
    assert!(used_again || emulated(), "the addresses were not used again: {overlapped:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn a_coroutine_suspends_on_a_new_stack_and_goes_on_there() {
    let coroutine = || {
        Coroutine::with_stack(mapped(96 * KIB), |yielder: &Yielder<(), usize>, ()| {
            fn down(yielder: &Yielder<(), usize>, levels: usize) -> usize {
                ensure_stack(RED_ZONE, 128 * KIB, || {
                    let _frame = black_box([0_u8; 8 * KIB]);
                    let before = remaining().expect("it is known");
                    yielder.suspend(levels);
                    assert!(before.abs_diff(remaining().expect("it is known")) < KIB, "another stack's answer");
                    if levels == 0 { 0 } else { 1 + down(yielder, levels - 1) }
                })
                .expect("a stack")
            }
            assert_eq!(down(yielder, 40), 40);
        })
        .expect("it fits")
    };
    let mut coroutines = [coroutine(), coroutine(), coroutine()];
    for level in (0..=40).rev() {
        for coroutine in &mut coroutines {
            assert_eq!(coroutine.next(), Some(level));
        }
    }
    assert!(coroutines.iter_mut().all(|coroutine| coroutine.next().is_none()));
    // One is dropped while it is suspended several stacks down.
    let mut dropped = coroutine();
    assert_eq!(dropped.by_ref().take(30).last(), Some(11));
    drop(dropped);
}

#[test]
fn a_panic_deep_down_unwinds_every_stack_to_the_caller() {
    struct Count<'a>(&'a Cell<usize>);
    impl Drop for Count<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    fn down(levels: usize, dropped: &Cell<usize>) {
        let _frame = black_box([0_u8; 4 * KIB]);
        let _count = Count(dropped);
        if levels == 0 {
            panic::resume_unwind(Box::new("deep down"));
        }
        ensure_stack(RED_ZONE, 128 * KIB, || down(levels - 1, dropped)).expect("a stack");
    }
    let dropped = Cell::new(0);
    for _ in 0..3 {
        dropped.set(0);
        let panic = panic::catch_unwind(AssertUnwindSafe(|| down(2_000, &dropped))).expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"deep down"));
        assert_eq!(dropped.get(), 2_001);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn a_stack_that_cannot_be_had_is_an_error_and_nothing_is_lost() {
    let kept = String::from("kept");
    for red_zone in [usize::MAX, isize::MAX as usize, usize::MAX / 2 + 1] {
        let mut runs = 0;
        let moved = String::from("dropped");
        let error = ensure_stack(red_zone, 1, || {
            runs += 1;
            (moved, kept.len())
        })
        .expect_err("there is no such stack");
        assert!(!error.to_string().is_empty());
        assert_eq!(runs, 0);
    }
    assert_eq!(kept, "kept");
    assert_eq!(depth(2_000).expect("stacks as before"), 2_000);
}

/// In a process of its own, where no other test needs the address space.
#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn recursion_that_runs_out_of_stacks_ends_with_an_error_and_all_goes_on() {
    passes_alone("recursion_that_runs_out_of_stacks_ends_with_an_error_and_all_goes_on", run_out_of_stacks);
}

fn run_out_of_stacks() {
    /// A stack at each level, few of which fit into the address space: 47 bits, or 32.
    fn endless(levels: &Cell<usize>) -> Result<(), Error> {
        const SIZE: usize = if cfg!(target_pointer_width = "32") { 512 << 20 } else { 1 << 45 };
        levels.set(levels.get() + 1);
        ensure_stack(SIZE, SIZE, || endless(levels))?
    }
    let mut before = None;
    for _ in 0..5 {
        let levels = Cell::new(0);
        let error = endless(&levels).expect_err("the address space ends");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::OutOfMemory, "{error}");
        assert_eq!(*before.get_or_insert(levels.get()), levels.get(), "not all was given back");
        assert_eq!(depth(2_000).expect("small ones are to be had"), 2_000);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri's stacks have no end, so no new one is taken")]
fn many_threads_grow_their_stacks_at_once() {
    let (threads, rounds) = if emulated() { (4, 5) } else { (8, 20) };
    thread::scope(|scope| {
        for n in 0..threads {
            let small = thread::Builder::new().stack_size(128 * KIB);
            let body = move || {
                for round in 0..rounds {
                    assert_eq!(depth(2_000).expect("stacks"), 2_000);
                    let stack = mapped((64 + 16 * ((n + round) % 7)) * KIB);
                    let (limit, _) = bounds(&stack);
                    let mut coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
                        for _ in 0..5 {
                            assert_left_above(limit);
                            yielder.suspend(());
                        }
                        depth(500).expect("stacks")
                    })
                    .expect("it fits");
                    while coroutine.resume(()) != Resumed::Returned(500) {}
                }
            };
            small.spawn_scoped(scope, body).expect("a thread");
        }
    });
    // Each gave back what it had.
    assert_eq!(on_stack(&mut mapped(DEFAULT_RESERVE), || depth(2_000)).expect("stacks"), 2_000);
}
