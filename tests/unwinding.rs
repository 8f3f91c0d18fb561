//! Panics and drops that meet at the border of a coroutine.
#![cfg(feature = "std")]

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::thread;

use common::in_a_child;
use switchback::stack::{Mapped, Stack};
use switchback::{Coroutine, Resumed, Scoped, Yielder, scoped};

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
fn a_closure_that_fits_but_not_with_the_copies_it_makes_is_refused() {
    let large = [0_u8; 60 << 10];
    let stack = Mapped::new(128 << 10).expect("a stack");
    assert!(Coroutine::with_stack(stack, move |_: &Yielder<(), ()>, ()| large.len()).is_err());
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
#[cfg_attr(miri, ignore = "leaks a coroutine, so it needs -Zmiri-ignore-leaks: .ci/miri runs it")]
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
#[cfg_attr(miri, ignore = "leaks a coroutine, so it needs -Zmiri-ignore-leaks: .ci/miri runs it")]
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
#[cfg_attr(miri, ignore = "Miri starts no processes")]
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
    assert!(said.contains("suspended a coroutine while its thread is panicking"), "{said}");
}

/// Panics, and lets a destructor do something meanwhile.
fn while_panicking(f: impl FnOnce()) {
    let mut f = Some(f);
    let panic = panic::catch_unwind(AssertUnwindSafe(|| {
        let _guard = OnDrop(|| f.take().expect("dropped once")());
        panic::resume_unwind(Box::new("the first panic"));
    }));
    assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&"the first panic"));
    assert!(!thread::panicking());
}

#[test]
fn a_destructor_may_run_a_coroutine_to_its_end_during_unwinding() {
    let mut returned = None;
    while_panicking(|| returned = Some(coroutine(|_: &Yielder<(), ()>| 8).resume(())));
    assert_eq!(returned, Some(Resumed::Returned(8)));
}

#[test]
fn a_coroutine_that_a_destructor_resumes_during_unwinding_cannot_suspend() {
    // Were it allowed, a panic of the coroutine's own could be suspended with it, and be counted for ever.
    while_panicking(|| {
        let mut coroutine = coroutine(|yielder: &Yielder<(), ()>| yielder.suspend(()));
        let refused = panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).expect_err("it may not suspend");
        assert_eq!(refused.downcast_ref(), Some(&"suspended a coroutine while its thread is panicking"));
        assert!(coroutine.is_finished());
    });
}

#[test]
fn a_scoped_coroutine_that_leaves_a_bomb_during_a_panic_is_ended_once() {
    // Suspended before the panic, in a scope that ends during it: the bomb is dropped, and with it goes off, while the
    // scope ends its coroutine.
    let (stack, given_back) = told();
    let panic = panic::catch_unwind(AssertUnwindSafe(|| {
        scoped(
            stack,
            |yielder: &Yielder<(), ()>, ()| {
                panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(()))).expect_err("its scope ends");
                panic::resume_unwind(Box::new(BombWhenDropped));
            },
            |mut coroutine: Scoped<(), (), (), Told>| {
                assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
                panic::resume_unwind(Box::new("the first panic"));
            },
        )
    }));
    assert_eq!(panic.err().and_then(|panic| panic.downcast_ref().copied()), Some("the first panic"));
    assert!(given_back.get());
}

/// A panic's payload whose destructor panics.
struct BombWhenDropped;

impl Drop for BombWhenDropped {
    fn drop(&mut self) {
        panic::resume_unwind(Box::new(()));
    }
}

#[test]
fn a_coroutine_that_leaves_a_bomb_while_unwound_during_a_panic_is_over() {
    let (stack, given_back) = told();
    let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| {
        panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(()))).expect_err("it is dropped");
        panic::resume_unwind(Box::new(BombWhenDropped));
    })
    .expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::<(), ()>::Yielded(()));
    while_panicking(|| drop(coroutine));
    assert!(given_back.get());
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn a_running_coroutine_that_ends_its_process_is_left_alone() {
    thread_local! {
        static HELD: RefCell<Option<Coroutine<(), (), ()>>> = const { RefCell::new(None) };
    }
    for suspends in [0, 1] {
        let name = "a_running_coroutine_that_ends_its_process_is_left_alone";
        let Some(child) = in_a_child(name, || {
            let ending = coroutine(move |yielder| {
                (0..suspends).for_each(|_| yielder.suspend(()));
                std::process::exit(17);
            });
            HELD.set(Some(ending));
            loop {
                HELD.with_borrow_mut(|held| held.as_mut().expect("it was put here").resume(()));
            }
        }) else {
            return;
        };
        assert_eq!(child.status.code(), Some(17), "{child:?}");
    }
}

/// A coroutine can come across itself only through what shares it, which is borrowed while the coroutine runs.
#[test]
fn a_coroutine_can_neither_be_resumed_nor_dropped_from_inside_itself() {
    type Shared = Rc<RefCell<Option<Coroutine<(), &'static str, ()>>>>;
    let shared = Shared::default();
    let inside = shared.clone();
    let itself = coroutine(move |yielder| {
        let refused = inside.try_borrow_mut().err();
        yielder.suspend(if refused.is_some() { "refused" } else { "resumed or dropped" });
    });
    shared.replace(Some(itself));
    let resumed = shared.borrow_mut().as_mut().map(|itself| itself.resume(()));
    assert_eq!(resumed, Some(Resumed::Yielded("refused")));
    // It owns itself: what ends that is to take it out.
    drop(shared.take());
}

/// Behind the back of what shares it, the destructor of a thread-local comes across a coroutine that runs: the one that
/// ends the process.
#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn a_running_coroutine_is_not_resumed_by_a_destructor_at_the_end_of_its_process() {
    struct ResumedWhenDropped(Coroutine<(), (), ()>);
    impl Drop for ResumedWhenDropped {
        fn drop(&mut self) {
            self.0.resume(());
        }
    }
    thread_local! {
        static HELD: RefCell<Option<ResumedWhenDropped>> = const { RefCell::new(None) };
    }

    let name = "a_running_coroutine_is_not_resumed_by_a_destructor_at_the_end_of_its_process";
    let Some(child) = in_a_child(name, || {
        HELD.set(Some(ResumedWhenDropped(coroutine(|_| std::process::exit(17)))));
        HELD.with_borrow_mut(|held| held.as_mut().expect("it was put here").0.resume(()));
    }) else {
        return;
    };
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("resumed a coroutine that is running"), "{child:?}");
    assert!(!child.status.success());
}
