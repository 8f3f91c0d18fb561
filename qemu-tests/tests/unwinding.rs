//! Panics and drops that meet at the border of a coroutine.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::thread;

use qemu_tests::in_a_child;
use switchback::stack::{Mapped, Stack};
use switchback::{Coroutine, Resumed, Yielder};

fn coroutine<Y: 'static, R: 'static>(body: impl FnOnce(&Yielder<(), Y>) -> R + 'static) -> Coroutine<(), Y, R> {
    Coroutine::new(|yielder: &Yielder<(), Y>, ()| body(yielder)).expect("a stack for the coroutine")
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// A stack that tells whether it was given back.
struct Told(Mapped, Rc<Cell<bool>>);

impl Drop for Told {
    fn drop(&mut self) {
        self.1.set(true);
    }
}

// SAFETY: the inner stack keeps the contract, and lives as long.
unsafe impl Stack for Told {
    fn top(&self) -> std::ptr::NonNull<u8> {
        self.0.top()
    }
    fn limit(&self) -> std::ptr::NonNull<u8> {
        self.0.limit()
    }
}

fn told() -> (Told, Rc<Cell<bool>>) {
    told_with(256 << 10)
}

fn told_with(reserve: usize) -> (Told, Rc<Cell<bool>>) {
    let given_back = Rc::new(Cell::new(false));
    (Told(Mapped::new(reserve).expect("a stack"), given_back.clone()), given_back)
}

#[test]
fn a_finished_coroutine_refuses_to_be_resumed() {
    let mut coroutine = coroutine(|_: &Yielder<(), ()>| 1);
    assert_eq!(coroutine.resume(()), Resumed::Returned(1));
    let panic = panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).expect_err("it is finished");
    assert_eq!(panic.downcast_ref(), Some(&"resumed a coroutine that has finished"));
}

#[test]
fn a_stack_is_given_back_once_in_every_way_a_coroutine_can_end() {
    let body = |yielder: &Yielder<bool, ()>, panics| {
        if panics {
            panic::resume_unwind(Box::new(()));
        }
        yielder.suspend(());
    };
    let (stack, given_back) = told();
    drop(Coroutine::with_stack(stack, body).expect("it fits"));
    assert!(given_back.get(), "never ran");

    let (stack, given_back) = told();
    let mut coroutine = Coroutine::with_stack(stack, body).expect("it fits");
    assert_eq!(coroutine.resume(false), Resumed::Yielded(()));
    assert!(!given_back.get());
    drop(coroutine);
    assert!(given_back.get(), "suspended");

    let (stack, given_back) = told();
    let mut coroutine = Coroutine::with_stack(stack, body).expect("it fits");
    panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(true))).expect_err("it panics");
    assert!(!given_back.get());
    drop(coroutine);
    assert!(given_back.get(), "panicked");

    let (stack, given_back) = told();
    let mut coroutine = Coroutine::with_stack(stack, body).expect("it fits");
    assert_eq!(coroutine.resume(false), Resumed::Yielded(()));
    let stack = coroutine.into_stack().expect("it can be unwound");
    assert!(!given_back.get());
    drop(stack);
    assert!(given_back.get(), "asked for while suspended");
}

#[test]
fn a_stack_that_does_not_fit_is_refused_and_nothing_is_lost() {
    let captured = Rc::new(());
    let held = captured.clone();
    let (stack, given_back) = told_with(16 << 10);
    let size = stack.0.reserve();
    // A closure as large as its stack.
    let large = [0_u8; 16 << 10];
    let refused = Coroutine::with_stack(stack, move |_: &Yielder<(), ()>, ()| (held, large.len()));
    let message = refused.expect_err("it cannot fit").to_string();
    assert!(message.starts_with(&format!("a stack of {size} bytes is too small")), "{message}");
    assert!(given_back.get());
    assert_eq!(Rc::strong_count(&captured), 1);
}

#[test]
fn a_coroutine_dropped_while_its_owner_panics_is_unwound() {
    let dropped = Rc::new(Cell::new(false));
    let seen = dropped.clone();
    let mut inner = coroutine(move |yielder| {
        let _guard = OnDrop(move || seen.set(true));
        yielder.suspend(());
    });
    assert_eq!(inner.resume(()), Resumed::Yielded(()));
    let panic = panic::catch_unwind(AssertUnwindSafe(move || {
        let _inner = inner;
        panic::resume_unwind(Box::new(5));
    }));
    assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&5));
    assert!(dropped.get());
    assert!(!thread::panicking());
}

#[test]
fn a_panic_during_the_unwinding_reaches_whoever_drops() {
    let mut coroutine = coroutine(|yielder| {
        let unwound = panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(())));
        assert!(unwound.is_err());
        panic::resume_unwind(Box::new(6));
    });
    assert_eq!(coroutine.resume(()), Resumed::<(), ()>::Yielded(()));
    let panic = panic::catch_unwind(AssertUnwindSafe(|| drop(coroutine))).expect_err("the other panic comes out");
    assert_eq!(panic.downcast_ref(), Some(&6));
}

#[test]
fn a_coroutine_may_return_instead_of_passing_its_unwinding_on() {
    let (stack, given_back) = told();
    let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| {
        panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(()))).expect_err("it is dropped");
        vec![1, 2, 3]
    })
    .expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    drop(coroutine);
    assert!(given_back.get());
}

#[test]
fn a_coroutine_that_swallows_its_unwinding_for_ever_keeps_its_stack() {
    let (stack, given_back) = told();
    let attempts = Rc::new(Cell::new(0));
    let count = attempts.clone();
    let mut coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
        while panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(()))).is_err() {
            count.set(count.get() + 1);
        }
    })
    .expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    drop(coroutine);
    assert_eq!(attempts.get(), 100);
    assert!(!given_back.get());
}

#[test]
fn a_yielded_value_that_panics_when_dropped_does_not_free_a_stack_in_use() {
    type PanicsWhenDropped = OnDrop<fn()>;
    let (stack, given_back) = told();
    let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<(), Option<PanicsWhenDropped>>, ()| {
        let _ = panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(None)));
        yielder.suspend(Some(OnDrop(|| panic::resume_unwind(Box::new(7)))));
    })
    .expect("it fits");
    assert!(matches!(coroutine.resume(()), Resumed::Yielded(None)));
    let panic = panic::catch_unwind(AssertUnwindSafe(|| drop(coroutine))).expect_err("the value's drop panics");
    assert_eq!(panic.downcast_ref(), Some(&7));
    assert!(!given_back.get());
}

#[test]
fn a_destructor_that_suspends_during_unwinding_ends_the_process_with_a_message() {
    let child = in_a_child("a_destructor_that_suspends_during_unwinding_ends_the_process_with_a_message", || {
        let mut coroutine = coroutine(|yielder: &Yielder<(), ()>| {
            let _guard = OnDrop(|| yielder.suspend(()));
            yielder.suspend(());
        });
        let _ = coroutine.resume(());
        drop(coroutine);
    });
    let Some(child) = child else { return };
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(said.contains("suspended a coroutine while it is panicking"), "{said}");
}

#[test]
fn a_destructor_may_resume_a_coroutine_during_unwinding() {
    let values = Rc::new(Cell::new(0));
    let (sum, mut counter) = (
        values.clone(),
        coroutine(|yielder| {
            for n in 1..=3 {
                yielder.suspend(n);
            }
        }),
    );
    // Resumed before, while and after its owner panics.
    assert_eq!(counter.resume(()), Resumed::Yielded(1));
    let mut counter = Some(counter);
    let kept = Rc::new(Cell::new(None));
    let keep = kept.clone();
    let guard = OnDrop(move || {
        assert!(thread::panicking());
        let mut counter = counter.take().expect("dropped once");
        let Resumed::Yielded(value) = counter.resume(()) else { return };
        sum.set(value);
        keep.set(Some(counter));
    });
    panic::catch_unwind(AssertUnwindSafe(move || {
        let _guard = guard;
        panic::resume_unwind(Box::new(()));
    }))
    .expect_err("it panics");
    assert_eq!(values.get(), 2);
    let mut counter = kept.take().expect("the destructor kept it");
    assert_eq!(counter.resume(()), Resumed::Yielded(3));
    assert_eq!(counter.resume(()), Resumed::Returned(()));
}

#[test]
fn a_coroutine_first_resumed_while_its_owner_panics_can_suspend_to_it() {
    let seen = Rc::new(Cell::new(0));
    let log = seen.clone();
    let guard = OnDrop(move || {
        let mut inner = coroutine(|yielder| yielder.suspend(8));
        let Resumed::Yielded(value) = inner.resume(()) else { return };
        log.set(value);
        assert_eq!(inner.resume(()), Resumed::Returned(()));
    });
    panic::catch_unwind(AssertUnwindSafe(move || {
        let _guard = guard;
        panic::resume_unwind(Box::new(()));
    }))
    .expect_err("it panics");
    assert_eq!(seen.get(), 8);
}
