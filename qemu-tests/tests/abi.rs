//! What the ABI promises to the caller of a function holds for `resume`, `suspend` and the drop of a coroutine: every
//! callee-saved register is kept, though the other side has overwritten it.
//!
//! Each side of a switch fills all registers from a seed of its own. The seeds of a test differ, so that a register
//! which keeps the value of the other side, or of an earlier switch, is seen.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::rc::Rc;

use qemu_tests::{emulated, live_values_kept, registers_kept};
use switchback::context::{Context, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Resumed, Yielder, on_stack};

type Kept = Result<(), Vec<&'static str>>;

/// Resumes once more with all registers filled.
fn resume_filled<Y: 'static, R: 'static>(coroutine: &mut Coroutine<(), Y, R>, seed: u64) -> Resumed<Y, R> {
    let mut resumed = None;
    let kept = registers_kept(seed, || resumed = Some(coroutine.resume(())));
    assert_eq!(kept, Ok(()), "lost by the resumer");
    resumed.expect("the fixture called back")
}

/// Suspends once with all registers filled.
fn suspend_filled(yielder: &Yielder<(), ()>, seed: u64) {
    let kept = registers_kept(seed, || yielder.suspend(()));
    assert_eq!(kept, Ok(()), "lost by the coroutine");
}

/// The same for a test of the resumer's registers alone: whether the coroutine finds its own again is not asked.
///
/// On its way out the fixture puts back what it found in the registers, so the coroutine goes on with the values of an
/// earlier resumer.
fn suspend_overwriting(yielder: &Yielder<(), ()>, seed: u64) {
    let _ = registers_kept(seed, || yielder.suspend(()));
}

fn coroutine<Y: 'static, R: 'static>(body: impl FnOnce(&Yielder<(), Y>) -> R + 'static) -> Coroutine<(), Y, R> {
    Coroutine::new(|yielder: &Yielder<(), Y>, ()| body(yielder)).expect("a stack for the coroutine")
}

#[test]
fn the_first_resume_keeps_the_resumers_registers() {
    let mut coroutine = coroutine(|yielder| suspend_overwriting(yielder, 1));
    assert_eq!(resume_filled(&mut coroutine, 2), Resumed::Yielded(()));
    assert_eq!(coroutine.resume(()), Resumed::Returned(()));
}

#[test]
fn a_first_resume_that_is_also_the_last_keeps_the_resumers_registers() {
    let mut coroutine = coroutine(|_: &Yielder<(), ()>| registers_kept(1, || ()));
    assert_eq!(resume_filled(&mut coroutine, 2), Resumed::Returned(Ok(())));
}

#[test]
fn a_later_resume_keeps_the_resumers_registers() {
    let mut coroutine = coroutine(|yielder| {
        suspend_overwriting(yielder, 1);
        suspend_overwriting(yielder, 2);
    });
    assert_eq!(resume_filled(&mut coroutine, 3), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut coroutine, 4), Resumed::Yielded(()));
    assert_eq!(coroutine.resume(()), Resumed::Returned(()));
}

/// The coroutine returns with the values of its first resumer in the registers.
#[test]
fn the_final_return_keeps_the_resumers_registers() {
    let mut coroutine = coroutine(|yielder| suspend_overwriting(yielder, 3));
    assert_eq!(resume_filled(&mut coroutine, 1), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut coroutine, 2), Resumed::Returned(()));
}

#[test]
fn a_suspend_keeps_the_coroutines_registers() {
    let mut coroutine = coroutine(|yielder: &Yielder<(), ()>| registers_kept(1, || yielder.suspend(())));
    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    let mut resumed = None;
    let _ = registers_kept(2, || resumed = Some(coroutine.resume(())));
    assert_eq!(resumed, Some(Resumed::Returned(Ok(()))));
}

#[test]
fn a_panic_carried_to_the_resumer_keeps_its_registers() {
    let mut coroutine = coroutine(|yielder| {
        suspend_overwriting(yielder, 1);
        panic::resume_unwind(Box::new("carried"));
    });
    assert_eq!(resume_filled(&mut coroutine, 2), Resumed::<(), ()>::Yielded(()));
    let kept = registers_kept(3, || {
        let payload =
            panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).expect_err("the panic is raised again");
        assert_eq!(payload.downcast_ref(), Some(&"carried"));
    });
    assert_eq!(kept, Ok(()));
}

/// The panic starts below the fixture's frame on the coroutine's stack and goes through it.
#[test]
fn a_panic_through_filled_registers_in_a_coroutine_keeps_the_resumers() {
    let mut coroutine = coroutine(|yielder: &Yielder<(), ()>| {
        registers_kept(1, || {
            yielder.suspend(());
            panic::resume_unwind(Box::new("carried"));
        })
    });
    assert_eq!(resume_filled(&mut coroutine, 2), Resumed::<(), Kept>::Yielded(()));
    let kept = registers_kept(3, || {
        let payload =
            panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).expect_err("the panic is raised again");
        assert_eq!(payload.downcast_ref(), Some(&"carried"));
    });
    assert_eq!(kept, Ok(()));
}

#[test]
fn a_panic_caught_inside_a_coroutine_keeps_the_coroutines_registers() {
    let mut coroutine = coroutine(|yielder: &Yielder<(), ()>| {
        registers_kept(1, || {
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                suspend_filled(yielder, 2);
                panic::resume_unwind(Box::new("caught"));
            }));
            assert!(caught.is_err());
        })
    });
    assert_eq!(resume_filled(&mut coroutine, 3), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut coroutine, 4), Resumed::Returned(Ok(())));
}

#[test]
fn nested_coroutines_keep_all_registers_on_every_level() {
    let mut outer = coroutine(|yielder: &Yielder<(), ()>| {
        let mut middle = coroutine(|yielder: &Yielder<(), ()>| {
            let mut inner = coroutine(|yielder| {
                suspend_filled(yielder, 1);
                suspend_filled(yielder, 2);
            });
            assert_eq!(resume_filled(&mut inner, 3), Resumed::Yielded(()));
            suspend_filled(yielder, 4);
            assert_eq!(resume_filled(&mut inner, 5), Resumed::Yielded(()));
            suspend_filled(yielder, 6);
            assert_eq!(resume_filled(&mut inner, 7), Resumed::Returned(()));
        });
        assert_eq!(resume_filled(&mut middle, 8), Resumed::Yielded(()));
        suspend_filled(yielder, 9);
        assert_eq!(resume_filled(&mut middle, 10), Resumed::Yielded(()));
        suspend_filled(yielder, 11);
        assert_eq!(resume_filled(&mut middle, 12), Resumed::Returned(()));
    });
    assert_eq!(resume_filled(&mut outer, 13), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut outer, 14), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut outer, 15), Resumed::Returned(()));
}

/// Sets the flag when it is dropped, on the way out of a forced unwind.
struct Unwound(Rc<Cell<bool>>);

impl Drop for Unwound {
    fn drop(&mut self) {
        // A destructor is code like any other, it may use all registers.
        assert_eq!(registers_kept(100, || ()), Ok(()));
        self.0.set(true);
    }
}

#[test]
fn dropping_an_unfinished_coroutine_keeps_the_droppers_registers() {
    let unwound = Rc::new(Cell::new(false));
    let guard = Unwound(unwound.clone());
    let mut coroutine = coroutine(move |yielder| {
        let _guard = guard;
        suspend_overwriting(yielder, 1);
    });
    assert_eq!(resume_filled(&mut coroutine, 2), Resumed::Yielded(()));
    assert_eq!(registers_kept(3, || drop(coroutine)), Ok(()));
    assert!(unwound.get());
}

/// The destructors that run when a coroutine is unwound find what the compiler kept in registers, those that the switch
/// saves by hand among them.
#[test]
fn an_unwound_coroutine_finds_its_own_registers() {
    /// Tells its number when it is dropped.
    struct Telling<'a>(u64, &'a RefCell<Vec<u64>>);
    impl Drop for Telling<'_> {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }

    let told = Rc::new(RefCell::new(Vec::new()));
    let log = told.clone();
    let mut coroutine = coroutine(move |yielder| {
        let log: &RefCell<_> = black_box(&log);
        // All are computed from one value that is alive meanwhile, and used again after.
        let seed = black_box(1_u64);
        let _first = Telling(seed, log);
        let _second = Telling(black_box(seed) * 2, log);
        let _third = Telling(black_box(seed) * 3, log);
        let _fourth = Telling(black_box(seed) * 4, log);
        suspend_overwriting(yielder, 5);
        let _fifth = Telling(black_box(seed) * 5, log);
        yielder.suspend(());
        black_box(seed);
    });
    assert_eq!(resume_filled(&mut coroutine, 1), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut coroutine, 2), Resumed::Yielded(()));
    assert_eq!(registers_kept(3, || drop(coroutine)), Ok(()));
    assert_eq!(*told.borrow(), [5, 4, 3, 2, 1]);
}

#[test]
fn dropping_a_coroutine_that_never_ran_keeps_the_droppers_registers() {
    let unwound = Rc::new(Cell::new(false));
    let guard = Unwound(unwound.clone());
    let coroutine = coroutine(move |_: &Yielder<(), ()>| drop(guard));
    assert_eq!(registers_kept(1, || drop(coroutine)), Ok(()));
    assert!(unwound.get());
}

/// A coroutine resumed first outside of all others and then inside of another: the way back is that of the last
/// resumer, not of the first.
#[test]
fn a_coroutine_resumed_from_elsewhere_keeps_the_registers_of_that_resumer() {
    let mut moved = coroutine(|yielder| {
        suspend_filled(yielder, 1);
        suspend_filled(yielder, 2);
    });
    assert_eq!(resume_filled(&mut moved, 3), Resumed::Yielded(()));
    let mut host = coroutine(move |yielder| {
        suspend_filled(yielder, 4);
        assert_eq!(resume_filled(&mut moved, 5), Resumed::Yielded(()));
        suspend_filled(yielder, 6);
        assert_eq!(resume_filled(&mut moved, 7), Resumed::Returned(()));
    });
    assert_eq!(resume_filled(&mut host, 8), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut host, 9), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut host, 10), Resumed::Returned(()));
}

#[test]
fn a_call_on_another_stack_keeps_the_callers_registers() {
    let mut stack = Mapped::new(256 << 10).expect("a stack");
    let mut inside = None;
    let kept = registers_kept(1, || inside = Some(on_stack(&mut stack, || registers_kept(2, || ()))));
    assert_eq!((kept, inside), (Ok(()), Some(Ok(()))));

    let kept = registers_kept(3, || {
        let call = || on_stack(&mut stack, || registers_kept(4, || panic::resume_unwind(Box::new("carried"))));
        let payload = panic::catch_unwind(AssertUnwindSafe(call)).expect_err("the panic is raised again");
        assert_eq!(payload.downcast_ref(), Some(&"carried"));
    });
    assert_eq!(kept, Ok(()));
}

#[test]
fn a_suspend_from_another_stack_keeps_the_registers_of_both_sides() {
    let mut coroutine = coroutine(|yielder: &Yielder<(), ()>| {
        let mut stack = Mapped::new(256 << 10).expect("a stack");
        registers_kept(1, || on_stack(&mut stack, || suspend_filled(yielder, 2)))
    });
    assert_eq!(resume_filled(&mut coroutine, 3), Resumed::Yielded(()));
    assert_eq!(resume_filled(&mut coroutine, 4), Resumed::Returned(Ok(())));
}

/// Three contexts in a ring, each of which fills its registers around the switch to the next.
#[test]
fn contexts_that_switch_straight_to_another_keep_all_registers() {
    struct Ring {
        contexts: [Context; 3],
        next: usize,
    }

    unsafe extern "C" fn around(ring: *mut (), running: Running) -> *mut () {
        let ring = ring.cast::<Ring>();
        // SAFETY: the word is the ring below, and only one of its contexts runs at a time.
        unsafe {
            let me = (*ring).next;
            for round in 0..4 {
                (*ring).next = (me + 1) % 3;
                let next = (&(*ring).contexts)[(*ring).next];
                let kept = registers_kept(10 * round + me as u64, || {
                    assert_eq!(running.switch_to(next, ring.cast()), ring.cast());
                });
                assert_eq!(kept, Ok(()));
            }
        }
        ptr::null_mut()
    }

    let stacks = [(); 3].map(|()| Mapped::new(DEFAULT_RESERVE).expect("a stack"));
    // SAFETY: the stacks outlive the contexts, of which one ends and the others are not continued.
    let contexts = stacks.each_ref().map(|stack| unsafe { Context::new(stack, around) }.expect("it fits"));
    let mut ring = Ring { contexts, next: 0 };
    let mut left = None;
    let kept = registers_kept(99, || {
        // SAFETY: as above; the ring outlives this as well.
        left = Some(unsafe { contexts[0].enter((&raw mut ring).cast()) });
    });
    assert_eq!(kept, Ok(()));
    assert!(matches!(left, Some(Left::Ended(_))));
}

#[test]
fn many_switches_keep_all_registers_on_both_sides() {
    let rounds = if emulated() { 1_000 } else { 100_000 };
    let mut coroutine = coroutine(move |yielder| {
        for round in 0..rounds {
            suspend_filled(yielder, 2 * round);
        }
    });
    for round in 0..rounds {
        assert_eq!(resume_filled(&mut coroutine, 2 * round + 1), Resumed::Yielded(()));
    }
    assert_eq!(coroutine.resume(()), Resumed::Returned(()));
}

#[test]
fn values_live_in_compiled_c_are_kept_on_both_sides() {
    let mut coroutine = coroutine(|yielder: &Yielder<(), ()>| live_values_kept(1, || yielder.suspend(())));
    assert_eq!(live_values_kept(2, || assert_eq!(coroutine.resume(()), Resumed::Yielded(()))), Ok(()));
    assert_eq!(live_values_kept(3, || assert_eq!(coroutine.resume(()), Resumed::Returned(Ok(())))), Ok(()));
}
