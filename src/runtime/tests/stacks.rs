//! Stacks: as deep as asked for, acquired late, and missed without harm.

mod common;

use std::error::Error;
use std::hint::black_box;

use common::{run, run_in_order};
use switchback::stack::{DEFAULT_RESERVE, Pool};
use switchback_runtime as rt;

/// Uses at least a kilobyte of stack a level.
#[inline(never)]
fn deep(levels: usize) -> usize {
    let frame = black_box([1_u8; 1024]);
    if levels == 0 { 0 } else { usize::from(frame[levels % 1024]) + deep(levels - 1) }
}

#[test]
fn a_task_can_recurse_as_deep_as_its_stack_size() {
    run(|| {
        // A debug frame is a few kilobytes here.
        let task = rt::Builder::new().stack_size(16 << 20).spawn(|| deep(2000)).unwrap();
        assert_eq!(task.join().unwrap(), 2000);
    });
}

#[test]
fn the_first_task_can_have_a_stack_size_too() {
    assert_eq!(rt::Runtime::builder().stack_size(16 << 20).run(|| deep(2000)).unwrap(), 2000);
}

#[test]
fn a_stack_that_cannot_be_had_is_an_error_of_that_task_alone() {
    run_in_order(|| {
        for absurd in [usize::MAX, usize::MAX / 2, 0] {
            let dropped = std::sync::Arc::new(());
            let held = dropped.clone();
            let task = rt::Builder::new().stack_size(absurd).spawn(move || drop(held)).unwrap();
            let error = task.join().unwrap_err();
            assert!(!error.is_panic() && !error.is_cancelled(), "{error}");
            assert!(error.to_string().starts_with("task could not get a stack: "), "{error}");
            assert!(error.source().is_some());
            assert_eq!(std::sync::Arc::strong_count(&dropped), 1, "the closure was not dropped");
        }
        let after = rt::metrics().unwrap();
        assert_eq!((after.tasks, after.stacks, after.completed), (1, 1, 3));
        assert_eq!(rt::spawn(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn a_first_task_without_a_stack_is_an_error_of_run() {
    let error = rt::Runtime::builder().stack_size(usize::MAX).run(|| unreachable!()).unwrap_err();
    assert!(error.to_string().contains("stack"), "{error}");
    assert_eq!(rt::run(|| 1).unwrap(), 1);
}

#[test]
fn stacks_of_a_size_of_their_own_are_given_back() {
    run_in_order(|| {
        for _ in 0..10 {
            rt::Builder::new().stack_size(2 * DEFAULT_RESERVE).spawn(|| ()).unwrap().join().unwrap();
        }
        assert_eq!(rt::metrics().unwrap().stacks, 1);
        // No other test has tasks of this size.
        let stats = Pool::of(2 * DEFAULT_RESERVE).unwrap().stats();
        assert_eq!((stats.in_use, stats.peak <= 16), (0, true), "each used that of the one before: {stats:?}");
    });
}
