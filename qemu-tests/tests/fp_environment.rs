//! Whose the floating-point environment is: the thread's, unless a coroutine has one of its own.
//!
//! Each side sets a pattern of its own, which differs from the others in every register, and notes by name which
//! registers do not hold it later. What was noted is asserted at the end, under the environment that Rust assumes.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::rc::Rc;

use qemu_tests::fp_environment::{DEFAULT, PATTERNS, lost, registers, set, thirds};
use qemu_tests::registers_kept;
use switchback::context::{Context, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Yielder, fp};

/// What both sides of a switch have seen.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Seen>>>);

/// A place, and the registers that did not hold there what they should.
type Seen = (&'static str, Vec<&'static str>);

impl Log {
    /// Notes whether the running environment is the pattern.
    fn check(&self, place: &'static str, pattern: u32) {
        let lost = lost(pattern);
        self.0.borrow_mut().push((place, lost));
    }

    /// Goes back to the default environment. All places must have been passed, in this order and with nothing lost.
    #[track_caller]
    fn finish(self, places: &[&str]) {
        set(DEFAULT);
        let seen = self.0.borrow();
        let lost: Vec<_> = seen.iter().filter(|(_, lost)| !lost.is_empty()).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert_eq!(seen.iter().map(|(place, _)| *place).collect::<Vec<_>>(), places);
    }
}

/// Checks a pattern when it is dropped.
struct CheckOnDrop(Log, &'static str, u32);

impl Drop for CheckOnDrop {
    fn drop(&mut self) {
        self.0.check(self.1, self.2);
    }
}

fn coroutine<Y: 'static, R: 'static>(body: impl FnOnce(&Yielder<(), Y>) -> R + 'static) -> Coroutine<(), Y, R> {
    Coroutine::new(|yielder: &Yielder<(), Y>, ()| body(yielder)).expect("a stack for the coroutine")
}

#[test]
fn the_fixture_sets_every_register_and_they_decide_how_a_quotient_is_rounded() {
    let lost_in: Vec<Vec<usize>> = (0..PATTERNS)
        .map(|now| {
            set(now);
            (0..PATTERNS).map(|pattern| lost(pattern).len()).collect()
        })
        .collect();
    let rounded: Vec<Vec<u64>> = (0..PATTERNS)
        .map(|pattern| {
            set(pattern);
            thirds()
        })
        .collect();
    set(DEFAULT);
    for (now, lost) in lost_in.iter().enumerate() {
        for (pattern, &lost) in lost.iter().enumerate() {
            assert_eq!(lost, if now == pattern { 0 } else { registers() }, "set {now}, compared with {pattern}");
        }
    }
    for unit in 0..rounded[0].len() {
        let of_unit = |pattern: usize| rounded[pattern][unit];
        assert!((1..rounded.len()).any(|pattern| of_unit(pattern) != of_unit(0)), "unit {unit}: {rounded:x?}");
    }
}

#[test]
fn a_coroutine_shares_the_fp_environment_of_its_resumer() {
    let log = Log::default();
    let inside = log.clone();
    set(1);
    let mut shared = coroutine(move |yielder| {
        inside.check("first resume", 1);
        set(2);
        yielder.suspend(());
        inside.check("second resume", 3);
        let _guard = CheckOnDrop(inside.clone(), "unwound", 2);
        set(1);
        yielder.suspend(());
    });
    let _ = shared.resume(());
    log.check("suspended", 2);
    set(3);
    let _ = shared.resume(());
    log.check("suspended again", 1);
    set(2);
    drop(shared);
    log.check("dropped", 2);
    let mut returns = coroutine(|_: &Yielder<(), ()>| set(3));
    let _ = returns.resume(());
    log.check("returned", 3);
    let mut panics = coroutine(|_: &Yielder<(), ()>| {
        set(1);
        panic::resume_unwind(Box::new(()));
    });
    let _ = panic::catch_unwind(AssertUnwindSafe(|| panics.resume(())));
    log.check("panicked", 1);
    log.finish(&[
        "first resume",
        "suspended",
        "second resume",
        "suspended again",
        "unwound",
        "dropped",
        "returned",
        "panicked",
    ]);
}

#[test]
fn a_coroutine_with_its_own_fp_environment_and_its_resumer_keep_theirs() {
    let log = Log::default();
    let inside = log.clone();
    set(1);
    let mut own = coroutine(move |yielder| {
        inside.check("first resume: the environment it was given", 1);
        set(3);
        yielder.suspend(());
        inside.check("second resume", 3);
        yielder.suspend(());
        inside.check("third resume", 3);
        set(0);
    })
    .with_own_fp_environment();
    set(2);
    let _ = own.resume(());
    log.check("suspended", 2);
    set(1);
    let _ = own.resume(());
    log.check("suspended again", 1);
    set(2);
    let _ = own.resume(());
    log.check("returned", 2);
    log.finish(&[
        "first resume: the environment it was given",
        "suspended",
        "second resume",
        "suspended again",
        "third resume",
        "returned",
    ]);
}

/// By results: what the registers say is not asked.
#[test]
fn a_coroutine_with_its_own_fp_environment_rounds_its_own_way() {
    let expected: Vec<Vec<u64>> = (0..PATTERNS)
        .map(|pattern| {
            set(pattern);
            thirds()
        })
        .collect();
    set(DEFAULT);
    for (outer, inner) in (0..PATTERNS).flat_map(|outer| (0..PATTERNS).map(move |inner| (outer, inner))) {
        let mut own = coroutine(move |yielder| {
            set(inner);
            loop {
                yielder.suspend(thirds());
            }
        })
        .with_own_fp_environment();
        set(outer);
        let seen: Vec<_> = (0..3).map(|_| (own.next(), thirds())).collect();
        set(DEFAULT);
        for (inside, outside) in seen {
            assert_eq!(inside.as_ref(), Some(&expected[inner as usize]), "{inner} inside {outer}");
            assert_eq!(outside, expected[outer as usize], "{outer} around {inner}");
        }
    }
}

#[test]
fn nested_coroutines_each_keep_their_own_fp_environment() {
    let log = Log::default();
    let (outside, inside) = (log.clone(), log.clone());
    let mut outer = coroutine(move |yielder| {
        set(1);
        let within = inside.clone();
        let mut inner = coroutine(move |yielder| {
            within.check("inner starts", 1);
            set(2);
            yielder.suspend(());
            within.check("inner goes on", 2);
        })
        .with_own_fp_environment();
        let _ = inner.resume(());
        inside.check("outer after inner", 1);
        yielder.suspend(());
        inside.check("outer goes on", 1);
        let _ = inner.resume(());
        inside.check("outer after inner's return", 1);
        // One that has none of its own changes the one it runs in: the outer's.
        let _ = coroutine(|_: &Yielder<(), ()>| set(3)).resume(());
        inside.check("outer after a sharing one", 3);
    })
    .with_own_fp_environment();
    let _ = outer.resume(());
    outside.check("outside", DEFAULT);
    let _ = outer.resume(());
    outside.check("outside at the end", DEFAULT);
    log.finish(&[
        "inner starts",
        "outer after inner",
        "outside",
        "outer goes on",
        "inner goes on",
        "outer after inner's return",
        "outer after a sharing one",
        "outside at the end",
    ]);
}

#[test]
fn a_panic_out_of_its_own_fp_environment_arrives_in_the_resumers() {
    let log = Log::default();
    let inside = log.clone();
    let mut own = coroutine(move |_: &Yielder<(), ()>| {
        let _guard = CheckOnDrop(inside, "unwound inside", 2);
        set(2);
        panic::resume_unwind(Box::new("carried"));
    })
    .with_own_fp_environment();
    set(1);
    let panic = panic::catch_unwind(AssertUnwindSafe(|| {
        let _guard = CheckOnDrop(log.clone(), "unwound outside", 1);
        own.resume(())
    }));
    log.check("caught", 1);
    log.finish(&["unwound inside", "unwound outside", "caught"]);
    assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&"carried"));
}

#[test]
fn a_dropped_coroutine_is_unwound_in_its_own_fp_environment() {
    let log = Log::default();
    for into_stack in [false, true] {
        let inside = log.clone();
        let mut own = coroutine(move |yielder: &Yielder<(), Option<CheckOnDrop>>| {
            let _guard = CheckOnDrop(inside.clone(), "unwound", 2);
            set(2);
            // Swallowed, so that it suspends once more, with a value that the dropper drops.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| yielder.suspend(None)));
            inside.check("swallowed", 2);
            yielder.suspend(Some(CheckOnDrop(inside.clone(), "yielded to the dropper", 1)));
        })
        .with_own_fp_environment();
        set(1);
        let _ = own.resume(());
        if into_stack {
            let _ = own.into_stack();
        } else {
            drop(own);
        }
        log.check("over", 1);
    }
    let once = ["swallowed", "yielded to the dropper", "unwound", "over"];
    log.finish(&[once, once].concat());
}

#[test]
fn a_function_that_never_ran_is_dropped_in_the_droppers_fp_environment() {
    let log = Log::default();
    let guard = CheckOnDrop(log.clone(), "dropped", 1);
    let own = coroutine(move |_: &Yielder<(), ()>| drop(guard)).with_own_fp_environment();
    set(1);
    drop(own);
    log.check("after", 1);
    log.finish(&["dropped", "after"]);
}

#[test]
fn a_scoped_coroutine_with_its_own_fp_environment_keeps_it_to_the_end_of_its_scope() {
    let log = Log::default();
    let stack = Mapped::new(DEFAULT_RESERVE).expect("a stack");
    set(1);
    let body = |yielder: &Yielder<(), ()>, ()| {
        log.check("first resume", 1);
        let _guard = CheckOnDrop(log.clone(), "unwound", 3);
        set(3);
        yielder.suspend(());
        log.check("second resume", 3);
        yielder.suspend(());
    };
    fp::scoped(stack, body, |mut coroutine| {
        set(2);
        coroutine.next();
        log.check("suspended", 2);
        coroutine.next();
        log.check("suspended again", 2);
    })
    .expect("it fits");
    log.check("after", 2);
    log.finish(&["first resume", "suspended", "second resume", "suspended again", "unwound", "after"]);
}

/// A resume with another environment goes through a function of its own, which must keep what the ABI says as well.
#[test]
fn a_resume_into_its_own_fp_environment_keeps_the_resumers_registers() {
    let mut own = coroutine(|yielder| {
        set(2);
        for seed in 1..4 {
            let _ = registers_kept(seed, || yielder.suspend(()));
        }
    })
    .with_own_fp_environment();
    for seed in 10..14 {
        assert_eq!(registers_kept(seed, || _ = own.resume(())), Ok(()));
    }
    assert!(own.is_finished());
}

/// What a scheduler on contexts does for itself.
#[test]
fn an_fp_environment_is_restored_by_hand_between_contexts() {
    unsafe extern "C" fn entry(log: *mut (), running: Running) -> *mut () {
        // SAFETY: the log outlives the context. Nothing here computes.
        unsafe {
            let log = &*log.cast::<Log>();
            set(2);
            let own = fp::Environment::current();
            running.leave(ptr::null_mut());
            log.check("a context shares its root's", 1);
            own.restore();
            log.check("restored", 2);
        }
        ptr::null_mut()
    }
    let log = Log::default();
    let stack = Mapped::new(DEFAULT_RESERVE).expect("a stack");
    set(1);
    let root = fp::Environment::current();
    // SAFETY: stack and log outlive the context, which ends here. Nothing here computes.
    unsafe {
        let context = Context::new(&stack, entry).expect("it fits");
        let Left::Suspended(context, _) = context.enter((&raw const log).cast_mut().cast()) else { unreachable!() };
        log.check("a root shares its context's", 2);
        root.restore();
        log.check("the root's", 1);
        assert!(matches!(context.enter(ptr::null_mut()), Left::Ended(_)));
        root.restore();
    }
    log.check("the root's again", 1);
    log.finish(&[
        "a root shares its context's",
        "the root's",
        "a context shares its root's",
        "restored",
        "the root's again",
    ]);
}
