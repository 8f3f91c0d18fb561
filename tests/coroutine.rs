//! What a coroutine does on every architecture alike.
#![cfg(feature = "std")]

mod common;

use std::array;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::NonNull;
use std::rc::Rc;

use common::{emulated, in_a_child, leak};
use switchback::stack::{Borrowed, Mapped, Stack};
use switchback::{Coroutine, Resumed, Yielder};

fn coroutine<I: 'static, Y: 'static, R: 'static>(
    body: impl FnOnce(&Yielder<I, Y>, I) -> R + 'static,
) -> Coroutine<I, Y, R> {
    Coroutine::new(body).expect("a stack for the coroutine")
}

/// Sends each value in and gets it back, by a yield and by the return.
fn carry<T: Clone + PartialEq + Debug + 'static>(first: T, second: T) {
    let mut echo = coroutine(|yielder: &Yielder<T, T>, value| yielder.suspend(value));
    assert_eq!(echo.resume(first.clone()), Resumed::Yielded(first));
    assert_eq!(echo.resume(second.clone()), Resumed::Returned(second));
}

fn bytes<const N: usize>(first: usize) -> [u8; N] {
    array::from_fn(|n| ((first + n) * 31 % 251) as u8)
}

#[test]
fn values_of_any_size_arrive_in_both_directions() {
    carry((), ());
    carry(true, false);
    carry(0xa5_u8, 0x5a);
    carry(0x0123_4567_89ab_cdef_u64, u64::MAX);
    carry(1.5_f64, -2.5);
    carry(1.5_f32, -2.5);
    carry(bytes::<3>(1), bytes(2));
    carry(bytes::<7>(3), bytes(4));
    carry(u128::MAX - 1, 2);
    carry([1_u64, 2, 3], [4, 5, 6]);
    carry(bytes::<4096>(5), bytes(6));
    carry(Some(Box::new(1)), None);
    carry("first".to_string(), "second".to_string());
}

#[test]
fn an_over_aligned_value_arrives_aligned_in_both_directions() {
    #[derive(Clone, PartialEq, Debug)]
    #[repr(align(64))]
    struct Line([u8; 64]);

    fn is_aligned(line: &Line) -> bool {
        // The compiler may take alignment for granted and must not see where the address comes from.
        black_box(&raw const *line).addr().is_multiple_of(64)
    }

    carry(Line(bytes(1)), Line(bytes(2)));
    let mut echo = coroutine(|yielder: &Yielder<Line, Line>, line| {
        assert!(is_aligned(&line));
        let line = yielder.suspend(line);
        assert!(is_aligned(&line));
        line
    });
    let Resumed::Yielded(line) = echo.resume(Line(bytes(3))) else { panic!("it yields first") };
    assert!(is_aligned(&line));
    let Resumed::Returned(line) = echo.resume(Line(bytes(4))) else { panic!("it returns then") };
    assert!(is_aligned(&line));
}

#[test]
fn a_closure_larger_than_a_page_arrives_whole() {
    let captured: [u8; 10_000] = bytes(7);
    let body = move |yielder: &Yielder<(), usize>, ()| {
        for (n, byte) in captured.iter().enumerate().step_by(1_000) {
            assert_eq!(*byte, bytes::<1>(7 + n)[0]);
            yielder.suspend(n);
        }
        captured
    };
    // Debug builds copy it a dozen times on its way in and out: more than the default stack of a 32-bit target.
    let stack = Mapped::new(1 << 20).expect("a stack");
    let mut coroutine = Coroutine::with_stack(stack, body).expect("the closure fits");
    for n in (0..10_000).step_by(1_000) {
        assert_eq!(coroutine.resume(()), Resumed::Yielded(n));
    }
    assert_eq!(coroutine.resume(()), Resumed::Returned(captured));
}

/// Debug builds check the alignment of every pointer that is read or written through.
#[test]
fn an_over_aligned_closure_is_aligned_wherever_its_stack_ends() {
    #[repr(align(128))]
    struct Lines([u8; 128]);

    for unused in (0..256).step_by(16) {
        let memory = leak(vec![0; 256 << 10].into_boxed_slice());
        let end = memory.len() - unused;
        // SAFETY: the coroutine needs far less.
        let stack = unsafe { Borrowed::new(&mut memory[..end]) }.expect("memory between its ends");
        let captured = Lines(bytes(8));
        let body = move |yielder: &Yielder<(), usize>, ()| {
            let captured = captured;
            yielder.suspend(black_box(&raw const captured).addr() % 128);
            captured.0
        };
        let mut coroutine = Coroutine::with_stack(stack, body).expect("the closure fits");
        assert_eq!(coroutine.resume(()), Resumed::Yielded(0));
        assert_eq!(coroutine.resume(()), Resumed::Returned(bytes(8)));
    }
}

/// Types as aligned as the ABI's stack, so that the compiler relies on the stack pointer and does not align it itself.
#[cfg_attr(target_arch = "arm", repr(align(8)))]
#[cfg_attr(not(target_arch = "arm"), repr(align(16)))]
struct AsAlignedAsTheStack(#[expect(dead_code, reason = "only its address counts")] u8);

#[inline(never)]
fn distance_from_alignment() -> usize {
    let local = AsAlignedAsTheStack(0);
    black_box(&raw const local).addr() % align_of::<AsAlignedAsTheStack>()
}

#[test]
fn the_stack_is_aligned_at_entry_and_after_a_switch() {
    let mut coroutine = coroutine(|yielder: &Yielder<(), usize>, ()| {
        yielder.suspend(distance_from_alignment());
        distance_from_alignment()
    });
    assert_eq!(coroutine.resume(()), Resumed::Yielded(0));
    assert_eq!(distance_from_alignment(), 0);
    assert_eq!(coroutine.resume(()), Resumed::Returned(0));
    assert_eq!(distance_from_alignment(), 0);
}

#[test]
fn many_coroutines_are_alive_at_once() {
    const RESERVE: usize = 64 << 10;
    let count = if cfg!(miri) {
        50
    } else if emulated() {
        1_000
    } else {
        10_000
    };
    let mut coroutines: Vec<_> = (0..count)
        .map(|id| {
            let stack = Mapped::new(RESERVE).expect("a stack for each coroutine");
            Coroutine::with_stack(stack, move |yielder: &Yielder<usize, usize>, mut sum| {
                for _ in 0..3 {
                    sum += yielder.suspend(sum + id);
                }
                sum
            })
            .expect("a small closure fits")
        })
        .collect();
    for round in 1..=3 {
        for (id, coroutine) in coroutines.iter_mut().enumerate() {
            assert_eq!(coroutine.resume(id), Resumed::Yielded(round * id + id));
        }
    }
    // Half of them end, the others are dropped as they are.
    for (id, coroutine) in coroutines.iter_mut().enumerate().step_by(2) {
        assert_eq!(coroutine.resume(id), Resumed::Returned(4 * id));
        assert!(coroutine.is_finished());
    }
}

#[test]
fn coroutines_nest_deeply() {
    fn depth_reached(depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        let mut inner = coroutine(move |yielder: &Yielder<usize, usize>, depth| {
            let below = depth_reached(depth - 1);
            below + yielder.suspend(below)
        });
        let Resumed::Yielded(below) = inner.resume(depth) else { panic!("it yields first") };
        assert_eq!(below, depth - 1);
        let Resumed::Returned(reached) = inner.resume(1) else { panic!("it returns then") };
        reached
    }
    let depth = if cfg!(miri) { 10 } else { 100 };
    assert_eq!(depth_reached(depth), depth);
}

/// As many integers and floating-point numbers as no architecture has callee-saved registers for, live across a call.
macro_rules! live_across {
    ($call:expr) => {{
        let [a, b, c, d, e, f, g, h, i, j, k, l] = black_box([1_usize, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let [m, n, o, p, q, r, s, t, u, v, w, x] =
            black_box([0.5_f64, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5]);
        let answer = $call;
        assert_eq!([a, b, c, d, e, f, g, h, i, j, k, l], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(
            [m, n, o, p, q, r, s, t, u, v, w, x],
            [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5]
        );
        answer
    }};
}

#[test]
fn live_values_survive_switches_on_both_sides() {
    let rounds = if cfg!(miri) {
        10
    } else if emulated() {
        100
    } else {
        10_000
    };
    let mut coroutine = coroutine(move |yielder: &Yielder<u64, u64>, first| {
        let mut sum = first;
        for _ in 0..rounds {
            sum += live_across!(yielder.suspend(sum));
        }
        sum
    });
    let mut expected = 0;
    for round in 0..rounds {
        expected += round;
        assert_eq!(live_across!(coroutine.resume(round)), Resumed::Yielded(expected));
    }
    assert_eq!(live_across!(coroutine.resume(rounds)), Resumed::Returned(expected + rounds));
}

/// Writes its name to a list when it is dropped.
struct Guard(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

#[test]
fn dropping_an_unfinished_coroutine_drops_its_values_innermost_first() {
    #[inline(never)]
    fn inner(yielder: &Yielder<(), ()>, dropped: &Rc<RefCell<Vec<&'static str>>>) {
        let _third = Guard("third", dropped.clone());
        let _fourth = Guard("fourth", dropped.clone());
        yielder.suspend(());
        unreachable!("nobody resumes it");
    }

    let dropped = Rc::new(RefCell::new(Vec::new()));
    let captured = Guard("captured", dropped.clone());
    let log = dropped.clone();
    let mut coroutine = coroutine(move |yielder: &Yielder<(), ()>, ()| {
        let _captured = &captured;
        let _first = Guard("first", log.clone());
        let _second = Guard("second", log.clone());
        inner(yielder, &log);
    });
    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    assert_eq!(*dropped.borrow(), [""; 0]);
    drop(coroutine);
    assert_eq!(*dropped.borrow(), ["fourth", "third", "second", "first", "captured"]);
}

#[test]
fn dropping_a_coroutine_that_never_ran_drops_its_closure_and_runs_nothing() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let captured = Guard("captured", log.clone());
    drop(coroutine(move |_: &Yielder<(), ()>, ()| captured.1.borrow_mut().push("ran")));
    assert_eq!(*log.borrow(), ["captured"]);
}

#[test]
fn dropping_a_coroutine_unwinds_the_coroutines_it_owns() {
    let dropped = Rc::new(RefCell::new(Vec::new()));
    let log = dropped.clone();
    let mut outer = coroutine(move |yielder: &Yielder<(), ()>, ()| {
        let _outer = Guard("outer", log.clone());
        let mut inner = coroutine(move |yielder: &Yielder<(), ()>, ()| {
            let _inner = Guard("inner", log);
            yielder.suspend(());
        });
        assert_eq!(inner.resume(()), Resumed::Yielded(()));
        yielder.suspend(());
    });
    assert_eq!(outer.resume(()), Resumed::Yielded(()));
    drop(outer);
    assert_eq!(*dropped.borrow(), ["inner", "outer"]);
}

#[test]
fn a_panic_arrives_at_the_resumer_with_its_payload() {
    #[derive(PartialEq, Debug)]
    struct Payload([u64; 5]);

    let dropped = Rc::new(RefCell::new(Vec::new()));
    let guard = Guard("guard", dropped.clone());
    let mut coroutine = coroutine(move |yielder: &Yielder<(), ()>, ()| {
        let _guard = guard;
        yielder.suspend(());
        panic::panic_any(Payload([1, 2, 3, 4, 5]));
    });
    assert_eq!(coroutine.resume(()), Resumed::<(), ()>::Yielded(()));
    let payload =
        panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).expect_err("the panic is raised again");
    assert_eq!(payload.downcast_ref(), Some(&Payload([1, 2, 3, 4, 5])));
    assert_eq!(*dropped.borrow(), ["guard"]);
    assert!(coroutine.is_finished());
    assert!(coroutine.into_stack().is_some());
}

#[test]
fn a_panic_goes_through_nested_coroutines() {
    let mut outer = coroutine(|_: &Yielder<(), ()>, ()| {
        let mut inner = coroutine(|_: &Yielder<(), ()>, ()| panic::resume_unwind(Box::new(17)));
        let _: Resumed<(), ()> = inner.resume(());
    });
    let payload = panic::catch_unwind(AssertUnwindSafe(|| outer.resume(()))).expect_err("the panic is raised again");
    assert_eq!(payload.downcast_ref(), Some(&17));
    assert!(outer.is_finished());
}

#[test]
fn a_stack_serves_one_coroutine_after_another() {
    let mut stack = Mapped::new(64 << 10).expect("a stack");
    let turns = if cfg!(miri) { 5 } else { 100 };
    for id in 0..turns {
        let body = move |yielder: &Yielder<u32, u32>, input| yielder.suspend(input + id);
        let mut coroutine = Coroutine::with_stack(stack, body).expect("a small closure fits");
        assert_eq!(coroutine.resume(1), Resumed::Yielded(1 + id));
        assert_eq!(coroutine.resume(2), Resumed::Returned(2));
        stack = coroutine.into_stack().expect("it is finished");
    }
}

#[test]
fn the_whole_of_the_stack_can_be_used() {
    fn descend(depth: usize) -> usize {
        let page = black_box([depth as u8; 1024]);
        let below = if depth == 0 { 0 } else { descend(depth - 1) };
        below + usize::from(black_box(page)[depth % 1024] == depth as u8)
    }

    // Frames of debug builds are several times the array's size.
    let stack = Mapped::new(1 << 20).expect("a stack");
    let mut coroutine =
        Coroutine::with_stack(stack, |_: &Yielder<(), ()>, ()| descend(200)).expect("a small closure fits");
    assert_eq!(coroutine.resume(()), Resumed::Returned(201));
}

/// Every kind of end gives the stack back, once.
#[test]
fn a_stack_is_given_back_however_its_coroutine_ends() {
    struct Counted(Mapped, Rc<Cell<u32>>);

    // SAFETY: the addresses are those of the stack inside.
    unsafe impl Stack for Counted {
        fn top(&self) -> NonNull<u8> {
            self.0.top()
        }
        fn limit(&self) -> NonNull<u8> {
            self.0.limit()
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
        }
    }

    let given_back = Rc::new(Cell::new(0));
    let start = |resumes, body: fn(&Yielder<(), ()>, ())| {
        let stack = Counted(Mapped::new(256 << 10).expect("a stack"), given_back.clone());
        let mut coroutine = Coroutine::with_stack(stack, body).expect("a small closure fits");
        for _ in 0..resumes {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(())));
        }
        coroutine
    };
    let suspend_once: fn(&Yielder<(), ()>, ()) = |yielder, ()| yielder.suspend(());

    drop(start(0, suspend_once));
    assert_eq!(given_back.get(), 1, "never ran");
    drop(start(1, suspend_once));
    assert_eq!(given_back.get(), 2, "suspended");
    drop(start(2, suspend_once));
    assert_eq!(given_back.get(), 3, "returned");
    drop(start(1, |_, ()| panic::resume_unwind(Box::new(()))));
    assert_eq!(given_back.get(), 4, "panicked");
    let stack = start(2, suspend_once).into_stack().expect("it has returned");
    assert_eq!(given_back.get(), 4, "taken out");
    drop(stack);
    assert_eq!(given_back.get(), 5, "taken out and dropped");
}

#[test]
#[cfg_attr(miri, ignore = "there are no mappings to count; that nothing is leaked Miri checks everywhere")]
fn a_stack_given_back_leaves_no_mapping_behind() {
    // The other tests of this process map stacks too.
    let test = "a_stack_given_back_leaves_no_mapping_behind";
    let child = in_a_child(test, || {
        let mappings = || std::fs::read_to_string("/proc/self/maps").expect("the list of mappings").lines().count();
        let run = |count| {
            let stacks: Vec<_> = (0..count).map(|_| coroutine(|_: &Yielder<(), ()>, ()| ())).collect();
            stacks.into_iter().for_each(|mut coroutine| assert_eq!(coroutine.resume(()), Resumed::Returned(())));
        };
        // The allocator may map memory of its own at the first time.
        run(200);
        let before = mappings();
        run(200);
        let after = mappings();
        assert!(after < before + 100, "{before} mappings before, {after} after");
    });
    let Some(child) = child else { return };
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// Stops a little below the stack's limit: further than one guard page, and where without a guard the memory of a
/// neighbour would lie. The frames are small, so that none jumps over a page.
#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the frames of a coroutine are not on its stack")]
fn an_overflow_hits_the_guard_and_ends_the_process() {
    fn descend(until: usize) -> usize {
        let frame = black_box([1_u8; 1024]);
        if (&raw const frame).addr() < until {
            return 0;
        }
        descend(until) + usize::from(black_box(frame)[0])
    }

    let child = in_a_child("an_overflow_hits_the_guard_and_ends_the_process", || {
        let mut stacks: Vec<_> = (0..16).map(|_| Mapped::new(256 << 10).expect("a stack")).collect();
        stacks.sort_by_key(Mapped::top);
        let highest = stacks.pop().expect("there are 16");
        let until = highest.limit().addr().get() - (8 << 10);
        let mut coroutine = Coroutine::with_stack(highest, move |_: &Yielder<(), ()>, ()| descend(until))
            .expect("a small closure fits");
        coroutine.resume(());
    });
    let Some(child) = child else { return };
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.signal().is_some(), "{}: {said}", child.status);
}

#[test]
fn threads_switch_independently_of_each_other() {
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut counter = coroutine(move |yielder: &Yielder<u64, u64>, mut input| {
                    loop {
                        input = yielder.suspend(input * 4 + thread);
                    }
                });
                (0..if cfg!(miri) { 20 } else { 1_000 })
                    .all(|n| counter.resume(n) == Resumed::<u64, ()>::Yielded(n * 4 + thread))
            })
        })
        .collect();
    for thread in threads {
        assert!(thread.join().expect("no thread panics"));
    }
}

#[test]
fn a_coroutine_is_finished_once_it_has_returned() {
    let ended = Rc::new(Cell::new(false));
    let seen = ended.clone();
    let mut coroutine = coroutine(move |_: &Yielder<(), ()>, ()| seen.set(true));
    assert!(!coroutine.is_finished());
    assert_eq!(coroutine.resume(()), Resumed::Returned(()));
    assert!(coroutine.is_finished() && ended.get());
}
