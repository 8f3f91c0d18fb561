//! Calls on another stack.
#![cfg(feature = "std")]

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::hint::black_box;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use switchback::stack::{DEFAULT_RESERVE, Mapped, Stack};
use switchback::{Coroutine, Resumed, Yielder, on_stack};

fn stack() -> Mapped {
    Mapped::new(DEFAULT_RESERVE).expect("a stack")
}

fn is_on(stack: (usize, usize)) -> bool {
    let local = 0_u8;
    (stack.0..stack.1).contains(&black_box(&raw const local).addr())
}

fn bounds(stack: &impl Stack) -> (usize, usize) {
    (stack.limit().addr().get(), stack.top().addr().get())
}

#[test]
fn the_function_runs_on_the_other_stack_and_may_borrow() {
    let mut stack = stack();
    let bounds = bounds(&stack);
    let mut log = vec![is_on(bounds)];
    let length = on_stack(&mut stack, || {
        log.push(is_on(bounds));
        log.len()
    });
    log.push(is_on(bounds));
    // With threads for coroutines it is a plain call.
    let there = !cfg!(any(miri, switchback_threads));
    assert_eq!((length, log), (2, vec![false, there, false]));
}

#[test]
fn calls_on_other_stacks_nest() {
    let sum = on_stack(&mut stack(), || 1 + on_stack(&mut stack(), || 2 + on_stack(&mut stack(), || 3)));
    assert_eq!(sum, 6);
}

#[test]
fn a_panic_on_the_other_stack_reaches_the_caller() {
    let mut stack = stack();
    for n in 0..3 {
        let panic =
            panic::catch_unwind(AssertUnwindSafe(|| on_stack(&mut stack, || panic::resume_unwind(Box::new(n)))));
        assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&n));
    }
}

#[test]
fn a_coroutine_suspends_from_another_stack_and_is_unwound_from_there() {
    struct SetOnDrop(Rc<Cell<bool>>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let seen = dropped.clone();
    let mut coroutine = Coroutine::new(move |yielder: &Yielder<u32, u32>, n| {
        let n = on_stack(&mut stack(), || yielder.suspend(n + 1));
        let _guard = SetOnDrop(seen);
        on_stack(&mut stack(), || yielder.suspend(n + 1));
    })
    .expect("a stack");
    assert_eq!(coroutine.resume(1), Resumed::Yielded(2));
    assert_eq!(coroutine.resume(3), Resumed::Yielded(4));
    drop(coroutine);
    assert!(dropped.get());
}

#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "there is no other stack for it to lead through")]
fn a_backtrace_leads_through_to_the_caller() {
    #[inline(never)]
    fn the_function_that_calls(stack: &mut Mapped) -> String {
        black_box(on_stack(stack, || Backtrace::force_capture().to_string()))
    }
    // Symbolizing takes more stack than usual in debug builds.
    let trace = the_function_that_calls(&mut Mapped::new(1 << 20).expect("a stack"));
    assert!(trace.contains("the_function_that_calls"), "{trace}");
    assert!(trace.contains("a_backtrace_leads_through_to_the_caller"), "{trace}");
}
