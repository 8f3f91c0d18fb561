//! What every kind of stack must do, those of the crate and a user's own: the same tests for each of them.
#![cfg(feature = "std")]

mod common;

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::rc::Rc;

use common::{emulated, leak};
use switchback::stack::{Borrowed, Mapped, Named, Pooled, Slab, SlabStack, Stack};
use switchback::{Coroutine, Resumed, Yielder, on_stack};

/// What the tests ask for: as much as unoptimised code needs for a panic and its backtrace.
const SIZE: usize = 256 << 10;

fn mapped() -> Mapped {
    Mapped::new(SIZE).expect("a stack")
}

fn pooled() -> Pooled {
    Pooled::new(SIZE).expect("a stack")
}

/// The slab is gone by then, its stack is not.
fn of_a_slab() -> SlabStack {
    Slab::new(SIZE, 3).and_then(|slab| slab.take()).expect("a stack")
}

fn named() -> Named<Pooled> {
    Named::new(pooled(), "of a kind")
}

fn borrowed() -> Borrowed {
    let memory = leak(vec![0_u8; SIZE].into_boxed_slice());
    // SAFETY: what the tests run on it needs far less.
    unsafe { Borrowed::new(memory) }.expect("room")
}

/// Memory of the program's own, as a user may have it, with ends that are not aligned.
struct Own(NonNull<[u8]>);

fn own() -> Own {
    Own(NonNull::from(Box::leak(vec![0; SIZE].into_boxed_slice())))
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: it was leaked from a box.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

// SAFETY: the memory is the value's alone and stays where it is, and what the tests run on it needs far less.
unsafe impl Stack for Own {
    fn top(&self) -> NonNull<u8> {
        // SAFETY: within the memory.
        unsafe { self.limit().add(SIZE - 6) }
    }

    fn limit(&self) -> NonNull<u8> {
        // SAFETY: as above.
        unsafe { self.0.cast::<u8>().add(3) }
    }
}

/// Counts how often it is dropped.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn ends<S: Stack>(stack: &S) -> (usize, usize) {
    (stack.limit().addr().get(), stack.top().addr().get())
}

fn all_of_it_can_be_written_and_keeps_what_was<S: Stack>(stack: S) {
    let (limit, top) = ends(&stack);
    assert!(top - limit >= SIZE - 128, "as much as was asked for, but for a name: {}", top - limit);
    let step = if cfg!(miri) { 4001 } else { 1 };
    for byte in [1, 2] {
        // SAFETY: the stack's memory, on which nothing runs.
        unsafe {
            stack.limit().write_bytes(byte, top - limit);
            assert!((0..top - limit).step_by(step).all(|offset| stack.limit().add(offset).read() == byte));
        }
    }
}

fn stacks_that_live_at_once_do_not_overlap<S: Stack>(stack: fn() -> S) {
    let stacks: Vec<S> = (0..20).map(|_| stack()).collect();
    let mut ends: Vec<_> = stacks.iter().map(ends).collect();
    ends.sort_unstable();
    assert!(ends.is_sorted_by(|below, above| below.1 <= above.0), "{ends:x?}");
}

fn the_frames_of_a_coroutine_are_between_its_ends<S: Stack + 'static>(stack: S) {
    let (limit, top) = ends(&stack);
    let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<(), usize>, ()| {
        let local = black_box(0_u8);
        yielder.suspend((&raw const local).addr());
    })
    .expect("it fits");
    let Resumed::Yielded(local) = coroutine.resume(()) else { panic!("it suspends first") };
    // With a thread for each coroutine they are on the thread's stack.
    assert!(cfg!(any(miri, switchback_threads)) || (limit..top).contains(&local), "{limit:x} {local:x} {top:x}");
}

fn it_serves_one_coroutine_after_the_other<S: Stack + 'static>(mut stack: S) {
    let before = ends(&stack);
    for round in 0..if emulated() { 3 } else { 100_u32 } {
        let mut coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<u32, u32>, first| {
            let second = yielder.suspend(first + round);
            first * second
        })
        .expect("it fits");
        assert_eq!(coroutine.resume(7), Resumed::Yielded(7 + round));
        assert_eq!(coroutine.resume(6), Resumed::Returned(42));
        stack = coroutine.into_stack().expect("it has ended");
        assert_eq!(ends(&stack), before);
    }
}

fn a_panic_on_it_reaches_the_resumer_and_it_serves_again<S: Stack + 'static>(stack: S) {
    let mut coroutine =
        Coroutine::with_stack(stack, |_: &Yielder<(), ()>, ()| std::panic::resume_unwind(Box::new("a payload")))
            .expect("it fits");
    let payload = catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).map(drop).expect_err("it panics");
    assert_eq!(payload.downcast_ref(), Some(&"a payload"));
    let stack = coroutine.into_stack().expect("it has ended");
    it_serves_one_coroutine_after_the_other(stack);
}

fn a_coroutine_that_is_dropped_is_unwound_on_it<S: Stack + 'static>(stack: S) {
    let dropped = Rc::new(Cell::new(0));
    let counted = Counted(dropped.clone());
    let mut coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
        let _counted = counted;
        yielder.suspend(());
    })
    .expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    assert_eq!(dropped.get(), 0);
    drop(coroutine);
    assert_eq!(dropped.get(), 1);
}

fn a_call_runs_on_it_and_may_borrow<S: Stack>(mut stack: S) {
    let (limit, top) = ends(&stack);
    let numbers = [1, 2, 3];
    let (sum, local) = on_stack(&mut stack, || {
        let local = black_box(0_u8);
        (numbers.iter().sum::<i32>(), (&raw const local).addr())
    });
    assert_eq!(sum, 6);
    assert!(cfg!(any(miri, switchback_threads)) || (limit..top).contains(&local), "{limit:x} {local:x} {top:x}");
}

macro_rules! of_each_kind {
    ($($kind:ident),*) => { $(
        mod $kind {
            #[test]
            fn all_of_it_can_be_written_and_keeps_what_was() {
                super::all_of_it_can_be_written_and_keeps_what_was(super::$kind());
            }

            #[test]
            fn stacks_that_live_at_once_do_not_overlap() {
                super::stacks_that_live_at_once_do_not_overlap(super::$kind);
            }

            #[test]
            fn the_frames_of_a_coroutine_are_between_its_ends() {
                super::the_frames_of_a_coroutine_are_between_its_ends(super::$kind());
            }

            #[test]
            fn it_serves_one_coroutine_after_the_other() {
                super::it_serves_one_coroutine_after_the_other(super::$kind());
            }

            #[test]
            fn a_panic_on_it_reaches_the_resumer_and_it_serves_again() {
                super::a_panic_on_it_reaches_the_resumer_and_it_serves_again(super::$kind());
            }

            #[test]
            fn a_coroutine_that_is_dropped_is_unwound_on_it() {
                super::a_coroutine_that_is_dropped_is_unwound_on_it(super::$kind());
            }

            #[test]
            fn a_call_runs_on_it_and_may_borrow() {
                super::a_call_runs_on_it_and_may_borrow(super::$kind());
            }
        }
    )* };
}

of_each_kind!(mapped, pooled, of_a_slab, named, borrowed, own);
