//! Valgrind understands coroutines: it finds planted errors, says where, and says nothing else.
//!
//! Each test runs itself again under Valgrind. They are ignored because not every machine has it: `.ci/valgrind` runs
//! them.
#![cfg(feature = "std")]

use std::alloc::{self, Layout};
use std::env;
use std::hint::black_box;
use std::process::{Command, Output};

use switchback::stack::{Borrowed, DEFAULT_RESERVE, Mapped, Pooled, Slab, Stack};
use switchback::{Coroutine, Resumed, Yielder, on_stack};

/// Runs `body` in a process of its own under Valgrind: the answer is how that ended. There it is None.
fn under_valgrind(test: &str, body: fn()) -> Option<Output> {
    const CHILD: &str = "SWITCHBACK_CHILD";
    if env::var_os(CHILD).is_some_and(|child| child == test) {
        body();
        return None;
    }
    let output = Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=9"])
        .arg(env::current_exe().expect("the path of the running program"))
        .args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .expect("valgrind is installed");
    Some(output)
}

/// Valgrind has reported `error`, and its report has all of the `names`, in this order. They end at the coroutine's first
/// function: Valgrind does not follow a stack into another.
#[track_caller]
fn reported(child: &Output, error: &str, names: &[&str]) {
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(9), "{said}");
    let mut rest = &*said;
    for name in [error].iter().chain(names) {
        let Some(at) = rest.find(name) else { panic!("no {name:?} at its place in: {said}") };
        rest = &rest[at + name.len()..];
    }
    assert!(!said.contains("switching stacks"), "{said}");
}

/// Valgrind has said nothing, not even that it wonders whether stacks were switched.
#[track_caller]
fn silent(child: &Output) {
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && !said.contains("=="), "{said}");
}

fn coroutine<Y: 'static, R: 'static>(f: impl FnOnce(&Yielder<(), Y>, ()) -> R + 'static) -> Coroutine<(), Y, R> {
    Coroutine::new(f).expect("a stack")
}

#[test]
#[ignore = "needs Valgrind: .ci/valgrind runs it"]
fn a_write_behind_an_allocation_in_a_coroutine_is_reported_with_its_stack() {
    #[inline(never)]
    fn the_function_that_writes(place: *mut u8) {
        // SAFETY: none, on purpose.
        unsafe { place.write_volatile(1) }
    }
    let child = under_valgrind("a_write_behind_an_allocation_in_a_coroutine_is_reported_with_its_stack", || {
        let mut coroutine = coroutine(|yielder: &Yielder<(), ()>, ()| {
            let layout = Layout::new::<[u8; 10]>();
            // SAFETY: the layout is not empty.
            let place = unsafe { alloc::alloc(layout) };
            yielder.suspend(());
            the_function_that_writes(place.wrapping_add(10));
            // SAFETY: allocated above.
            unsafe { alloc::dealloc(place, layout) };
        });
        assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
        coroutine.resume(());
    });
    let Some(child) = child else { return };
    reported(
        &child,
        "Invalid write of size 1",
        &["the_function_that_writes", "coroutine::entry::entry", "trampoline", "0 bytes after a block of size 10"],
    );
}

#[inline(never)]
fn the_function_that_reads_what_nobody_wrote() -> bool {
    let nothing = std::mem::MaybeUninit::<[usize; 20]>::uninit();
    // SAFETY: none, on purpose.
    unsafe { black_box(&nothing).as_ptr().cast::<usize>().add(7).read_volatile() == 3 }
}

#[inline(never)]
fn fill() -> usize {
    black_box([1_usize; 100]).iter().sum()
}

#[test]
#[ignore = "needs Valgrind: .ci/valgrind runs it"]
fn a_variable_that_nobody_has_written_is_reported_on_a_stack_used_before() {
    let child = under_valgrind("a_variable_that_nobody_has_written_is_reported_on_a_stack_used_before", || {
        let mut coroutine = coroutine(|yielder: &Yielder<(), usize>, ()| {
            yielder.suspend(fill());
            if the_function_that_reads_what_nobody_wrote() {
                yielder.suspend(1);
            }
        });
        assert_eq!(coroutine.resume(()), Resumed::Yielded(100));
        coroutine.resume(());
    });
    let Some(child) = child else { return };
    reported(&child, "depends on uninitialised value", &["coroutine::entry::entry", "trampoline"]);
}

#[test]
#[ignore = "needs Valgrind: .ci/valgrind runs it"]
fn a_variable_that_nobody_has_written_is_reported_on_a_stack_that_is_handed_out_again() {
    let child =
        under_valgrind("a_variable_that_nobody_has_written_is_reported_on_a_stack_that_is_handed_out_again", || {
            let slab = Slab::new(DEFAULT_RESERVE, 1).expect("a slab");
            let stack = || slab.take().expect("it is the only one");
            let mut first = Coroutine::with_stack(stack(), |_: &Yielder<(), ()>, ()| fill()).expect("it fits");
            assert_eq!(first.resume(()), Resumed::Returned(100));
            drop(first);
            let second = Coroutine::with_stack(stack(), |yielder: &Yielder<(), ()>, ()| {
                if the_function_that_reads_what_nobody_wrote() {
                    yielder.suspend(());
                }
            });
            second.expect("it fits").resume(());
        });
    let Some(child) = child else { return };
    reported(&child, "depends on uninitialised value", &["coroutine::entry::entry", "trampoline"]);
}

/// Runs coroutines on `stack`, from shallow to deep and back.
fn use_of<S: Stack + 'static>(stack: S) -> S {
    #[inline(never)]
    fn deep(yielder: &Yielder<(), usize>, depth: usize) -> usize {
        let frame = black_box([depth; 50]);
        if depth == 0 {
            yielder.suspend(frame[3]);
            return 0;
        }
        deep(yielder, depth - 1) + frame[depth % 50] - depth
    }
    let mut coroutine =
        Coroutine::with_stack(stack, |yielder: &Yielder<(), usize>, ()| deep(yielder, 100)).expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Yielded(0));
    assert_eq!(coroutine.resume(()), Resumed::Returned(0));
    let mut stack = coroutine.into_stack().expect("it has ended");
    on_stack(&mut stack, || {
        let mut inner = coroutine_on_memory();
        assert_eq!(inner.resume(()), Resumed::Yielded(0));
    });
    stack
}

/// As its owner may while nothing runs there: what the one before left, or zeros, is there to be read.
fn read_and_write_all_of(stack: impl Stack) {
    let bytes = stack.top().addr().get() - stack.limit().addr().get();
    for byte in [1, 2] {
        // SAFETY: the stack's memory, on which nothing runs.
        unsafe {
            let read = (0..bytes).filter(|&offset| stack.limit().add(offset).read() == byte).count();
            assert!(black_box(read) <= bytes);
            stack.limit().write_bytes(byte, bytes);
        }
    }
}

/// One on memory of the program's.
fn coroutine_on_memory() -> Coroutine<(), usize, (), Borrowed> {
    let memory = Box::leak(vec![0_u8; 64 * 1024].into_boxed_slice());
    // SAFETY: it needs far less.
    let stack = unsafe { Borrowed::new(memory) }.expect("room between the aligned ends");
    Coroutine::with_stack(stack, |yielder: &Yielder<(), usize>, ()| yielder.suspend(0)).expect("it fits")
}

#[test]
#[ignore = "needs Valgrind: .ci/valgrind runs it"]
fn nothing_is_said_about_switches_between_stacks_of_any_kind() {
    let child = under_valgrind("nothing_is_said_about_switches_between_stacks_of_any_kind", || {
        // Of several sizes, so that each comes to lie where others have been.
        for round in 0..50 {
            let stacks: Vec<_> =
                (0..4).map(|n| use_of(Mapped::new(DEFAULT_RESERVE << ((round + n) % 4)).expect("a stack"))).collect();
            drop(stacks);
        }
        // With neighbours in the same mapping.
        let slab = Slab::new(DEFAULT_RESERVE, 4).expect("a slab");
        let stacks: Vec<_> = (0..4).map(|_| use_of(slab.take().expect("not all are in use"))).collect();
        drop(stacks);
        // Handed out again, from the slab and from a pool, where the one before was down to another depth.
        for _ in 0..3 {
            drop(use_of(slab.take().expect("not all are in use")));
            drop(use_of(Pooled::new(DEFAULT_RESERVE).expect("a stack")));
            read_and_write_all_of(slab.take().expect("not all are in use"));
            read_and_write_all_of(Pooled::new(DEFAULT_RESERVE).expect("a stack"));
        }
        drop(slab);
        // Small ones where a large one has just been, inside the bounds it had.
        for reserve in [DEFAULT_RESERVE * 32, DEFAULT_RESERVE, DEFAULT_RESERVE] {
            drop(use_of(Mapped::new(reserve).expect("a stack")));
        }
        // Near one another: within what Valgrind takes for one frame.
        let mut near: Vec<_> = (0..20).map(|_| coroutine_on_memory()).collect();
        for coroutine in &mut near {
            assert_eq!(coroutine.resume(()), Resumed::Yielded(0));
        }
        for coroutine in near.iter_mut().rev() {
            assert_eq!(coroutine.resume(()), Resumed::Returned(()));
        }
    });
    let Some(child) = child else { return };
    silent(&child);
}
