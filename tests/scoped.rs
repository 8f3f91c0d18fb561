//! Coroutines that borrow.
#![cfg(feature = "std")]

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use common::in_a_child;
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Resumed, Scoped, Yielder, scoped};

fn stack() -> Mapped {
    Mapped::new(DEFAULT_RESERVE).expect("a stack")
}

struct SetOnDrop<'a>(&'a Cell<u32>, u32);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

#[test]
fn a_scoped_coroutine_borrows_and_sends_borrows_both_ways() {
    let words = ["a", "bc", "def"].map(String::from);
    let mut seen = Vec::new();
    let log = &mut seen;
    let lengths = scoped(
        stack(),
        |yielder: &Yielder<&str, &str>, mut input: &str| {
            for word in &words {
                log.push(input);
                input = yielder.suspend(word);
            }
            input
        },
        |mut coroutine| ["x", "y", "z"].map(|input| coroutine.resume(input)),
    )
    .expect("it fits");
    assert_eq!(lengths, ["a", "bc", "def"].map(Resumed::Yielded));
    assert_eq!(seen, ["x", "y", "z"]);
}

#[test]
fn a_scoped_coroutine_is_over_when_its_scope_ends_however_it_ends() {
    let dropped = Cell::new(0);
    let body = |yielder: &Yielder<(), ()>, ()| {
        let _guard = SetOnDrop(&dropped, dropped.get() + 1);
        yielder.suspend(());
    };
    scoped(stack(), body, |_| ()).expect("it fits");
    assert_eq!(dropped.get(), 0, "never ran");
    scoped(stack(), body, |mut coroutine| coroutine.resume(())).expect("it fits");
    assert_eq!(dropped.get(), 1, "suspended");
    scoped(stack(), body, |mut coroutine| {
        let _ = coroutine.resume(());
        #[expect(clippy::forget_non_drop, reason = "that it has no destructor of its own is what is tested")]
        std::mem::forget(coroutine);
    })
    .expect("it fits");
    assert_eq!(dropped.get(), 2, "forgotten while suspended");
    scoped(stack(), body, |mut coroutine| {
        let _ = coroutine.resume(());
        assert_eq!(coroutine.resume(()), Resumed::Returned(()));
        assert!(coroutine.is_finished());
    })
    .expect("it fits");
    assert_eq!(dropped.get(), 3, "returned");
    let panic = panic::catch_unwind(AssertUnwindSafe(|| {
        scoped(stack(), body, |mut coroutine| {
            let _ = coroutine.resume(());
            panic::resume_unwind(Box::new(9));
        })
    }));
    assert_eq!(panic.err().and_then(|panic| panic.downcast_ref().copied()), Some(9));
    assert_eq!(dropped.get(), 4, "its scope panicked");
}

#[test]
fn a_panic_in_a_scoped_coroutine_reaches_its_resumer() {
    let caught = scoped(
        stack(),
        |_: &Yielder<(), ()>, ()| panic::resume_unwind(Box::new(5)),
        |mut coroutine: Scoped<(), (), (), _>| {
            panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).expect_err("it panics")
        },
    );
    assert_eq!(caught.expect("it fits").downcast_ref(), Some(&5));
}

#[test]
fn scopes_nest_and_an_inner_coroutine_suspends_the_outer_one() {
    let log = RefCell::new(Vec::new());
    scoped(
        stack(),
        |outer: &Yielder<u32, u32>, first| {
            log.borrow_mut().push(first);
            scoped(
                stack(),
                |inner: &Yielder<(), ()>, ()| {
                    log.borrow_mut().push(outer.suspend(10));
                    inner.suspend(());
                    log.borrow_mut().push(outer.suspend(20));
                },
                |mut coroutine| {
                    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
                    assert_eq!(coroutine.resume(()), Resumed::Returned(()));
                },
            )
            .expect("it fits");
            30
        },
        |mut coroutine| {
            assert_eq!(coroutine.resume(1), Resumed::Yielded(10));
            assert_eq!(coroutine.resume(2), Resumed::Yielded(20));
            assert_eq!(coroutine.resume(3), Resumed::Returned(30));
        },
    )
    .expect("it fits");
    assert_eq!(*log.borrow(), [1, 2, 3]);
}

#[test]
fn an_outer_coroutine_dropped_while_an_inner_one_suspended_it_unwinds_both() {
    let dropped = Rc::new(RefCell::new(Vec::new()));
    let log = dropped.clone();
    struct Push(Rc<RefCell<Vec<&'static str>>>, &'static str);
    impl Drop for Push {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }
    let mut outer = Coroutine::new(move |outer: &Yielder<(), ()>, ()| {
        let _outer = Push(log.clone(), "outer");
        scoped(
            stack(),
            |_: &Yielder<(), ()>, ()| {
                let _inner = Push(log.clone(), "inner");
                outer.suspend(());
            },
            |mut coroutine| coroutine.resume(()),
        )
        .expect("it fits");
    })
    .expect("a stack");
    assert_eq!(outer.resume(()), Resumed::Yielded(()));
    drop(outer);
    assert_eq!(*dropped.borrow(), ["inner", "outer"]);
}

#[test]
fn a_coroutine_is_an_iterator_that_stays_ended() {
    let mut values = Coroutine::new(|yielder: &Yielder<(), u8>, ()| (1..4).for_each(|n| yielder.suspend(n)))
        .expect("a stack")
        .map(|n| n * 2);
    assert_eq!(values.by_ref().collect::<Vec<_>>(), [2, 4, 6]);
    assert_eq!(values.next(), None);
    let sum = scoped(
        stack(),
        |yielder: &Yielder<(), u8>, ()| (1..4).for_each(|n| yielder.suspend(n)),
        |coroutine| coroutine.sum::<u8>(),
    );
    assert_eq!(sum, Ok(6));
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn a_scoped_coroutine_that_cannot_be_ended_ends_the_process_with_a_message() {
    let child = in_a_child("a_scoped_coroutine_that_cannot_be_ended_ends_the_process_with_a_message", || {
        let _ = scoped(
            stack(),
            |yielder: &Yielder<(), ()>, ()| {
                while panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(()))).is_err() {}
            },
            |mut coroutine| coroutine.resume(()),
        );
        println!("survived");
    });
    let Some(child) = child else { return };
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success() && !String::from_utf8_lossy(&child.stdout).contains("survived"));
    assert!(said.contains("still suspended at the end of its scope"), "{said}");
}
