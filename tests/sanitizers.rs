//! AddressSanitizer and ThreadSanitizer understand coroutines: they find planted errors, say where, and say nothing else.
//!
//! `.ci/sanitizers` builds and runs this with each of them; without one it is empty.
#![cfg(all(feature = "std", switchback_sanitizer))]

use std::env;
use std::hint::black_box;
use std::process::{Command, Output};

use switchback::{Coroutine, Resumed, Yielder};

/// Runs `body` in a process of its own, under the sanitizer's `options`: the answer is how that ended. There it is None.
fn in_a_child(test: &str, options: &str, body: fn()) -> Option<Output> {
    const CHILD: &str = "SWITCHBACK_CHILD";
    if env::var_os(CHILD).is_some_and(|child| child == test) {
        // A sanitizer that lost count can hang.
        // SAFETY: no preconditions.
        unsafe { libc::alarm(300) };
        body();
        return None;
    }
    let output = Command::new(env::current_exe().expect("the path of the running program"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, test)
        .env("ASAN_OPTIONS", options)
        .env("TSAN_OPTIONS", options)
        .output()
        .expect("the program can be started again");
    Some(output)
}

/// The sanitizer has reported `error`, and its report has all of the `names`, in this order.
#[track_caller]
fn reported(child: &Output, error: &str, names: &[&str]) {
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success(), "{said}");
    let mut rest = &*said;
    for name in [error].iter().chain(names) {
        let Some(at) = rest.find(name) else { panic!("no {name:?} at its place in: {said}") };
        rest = &rest[at + name.len()..];
    }
}

/// The sanitizer has said nothing.
#[track_caller]
fn silent(child: &Output) {
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && !said.contains("Sanitizer") && !said.contains("ASan"), "{said}");
}

/// The name that a report must lead to.
#[inline(never)]
fn the_function_that_resumes<Y: 'static, R: 'static>(coroutine: &mut Coroutine<(), Y, R>) -> Resumed<Y, R> {
    black_box(coroutine.resume(()))
}

fn coroutine<Y: 'static, R: 'static>(f: impl FnOnce(&Yielder<(), Y>, ()) -> R + 'static) -> Coroutine<(), Y, R> {
    Coroutine::new(f).expect("a stack")
}

#[cfg(switchback_sanitizer = "address")]
mod address {
    use std::panic::{self, AssertUnwindSafe};

    use switchback::on_stack;
    use switchback::stack::{DEFAULT_RESERVE, Mapped};

    use super::*;

    #[inline(never)]
    fn the_function_that_reads(pointer: *const u8) -> u8 {
        // SAFETY: none, on purpose.
        unsafe { black_box(pointer.read_volatile()) }
    }

    #[test]
    fn a_use_after_free_in_a_coroutine_is_reported_with_its_stack() {
        let child = in_a_child("address::a_use_after_free_in_a_coroutine_is_reported_with_its_stack", "", || {
            let mut coroutine = coroutine(|yielder: &Yielder<(), ()>, ()| {
                let freed = Box::new([1_u8; 100]);
                let pointer = &raw const freed[3];
                yielder.suspend(());
                drop(freed);
                the_function_that_reads(pointer)
            });
            assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
            the_function_that_resumes(&mut coroutine);
        });
        let Some(child) = child else { return };
        reported(
            &child,
            "heap-use-after-free",
            &["the_function_that_reads", "trampoline", "the_function_that_resumes", "freed by", "allocated by"],
        );
    }

    /// Reads one byte behind a variable.
    #[inline(never)]
    fn one_too_far() -> u8 {
        let buffer = black_box([1_u8; 40]);
        the_function_that_reads(black_box(&raw const buffer).cast::<u8>().wrapping_add(40))
    }

    #[test]
    fn an_overflow_of_a_variable_on_a_coroutines_stack_is_reported_by_the_variables_name() {
        let child = in_a_child(
            "address::an_overflow_of_a_variable_on_a_coroutines_stack_is_reported_by_the_variables_name",
            "detect_stack_use_after_return=0",
            || {
                let mut coroutine = coroutine(|yielder: &Yielder<(), ()>, ()| {
                    yielder.suspend(());
                    one_too_far()
                });
                assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
                the_function_that_resumes(&mut coroutine);
            },
        );
        let Some(child) = child else { return };
        // It looks a stack's addresses up in the bounds it knows.
        reported(
            &child,
            "stack-buffer-overflow",
            &["one_too_far", "the_function_that_resumes", "is located in stack of thread", "'buffer'"],
        );
    }

    #[test]
    fn an_overflow_of_a_variable_on_a_stack_that_is_called_on_is_reported() {
        let child = in_a_child(
            "address::an_overflow_of_a_variable_on_a_stack_that_is_called_on_is_reported",
            "detect_stack_use_after_return=0",
            || {
                on_stack(&mut Mapped::new(DEFAULT_RESERVE).expect("a stack"), one_too_far);
            },
        );
        let Some(child) = child else { return };
        reported(&child, "stack-buffer-overflow", &["one_too_far", "is located in stack of thread", "'buffer'"]);
    }

    #[test]
    fn an_overflow_of_a_variable_on_the_threads_stack_is_reported_after_switches() {
        let child = in_a_child(
            "address::an_overflow_of_a_variable_on_the_threads_stack_is_reported_after_switches",
            "detect_stack_use_after_return=0",
            || {
                on_stack(&mut Mapped::new(DEFAULT_RESERVE).expect("a stack"), || ());
                let mut coroutine = coroutine(|yielder: &Yielder<(), ()>, ()| yielder.suspend(()));
                assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
                assert_eq!(coroutine.resume(()), Resumed::Returned(()));
                one_too_far();
            },
        );
        let Some(child) = child else { return };
        reported(&child, "stack-buffer-overflow", &["one_too_far", "is located in stack of thread", "'buffer'"]);
    }

    #[test]
    fn a_use_after_return_is_reported_although_stacks_were_switched_in_between() {
        #[inline(never)]
        fn dangling() -> *const u8 {
            let local = black_box([1_u8; 40]);
            black_box(&raw const local).cast()
        }
        let child = in_a_child(
            "address::a_use_after_return_is_reported_although_stacks_were_switched_in_between",
            "detect_stack_use_after_return=1",
            || {
                let mut coroutine = coroutine(|yielder: &Yielder<(), ()>, ()| {
                    let pointer = dangling();
                    yielder.suspend(());
                    the_function_that_reads(pointer)
                });
                assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
                the_function_that_resumes(&mut coroutine);
            },
        );
        let Some(child) = child else { return };
        reported(
            &child,
            "stack-use-after-return",
            &["the_function_that_reads", "the_function_that_resumes", "dangling"],
        );
    }

    #[test]
    fn nothing_is_said_about_panics_switches_and_coroutines_dropped_at_any_time() {
        #[inline(never)]
        fn deep(yielder: &Yielder<(), usize>, depth: usize) -> usize {
            let frame = black_box([depth; 20]);
            if depth == 0 {
                yielder.suspend(frame[3]);
                panic::resume_unwind(Box::new(1_u8));
            }
            deep(yielder, depth - 1) + frame[depth % 20]
        }
        for fake_stacks in ["detect_stack_use_after_return=0", "detect_stack_use_after_return=1"] {
            let child = in_a_child(
                "address::nothing_is_said_about_panics_switches_and_coroutines_dropped_at_any_time",
                fake_stacks,
                || {
                    let mut stack = Some(Mapped::new(DEFAULT_RESERVE).expect("a stack"));
                    for round in 0..30 {
                        let mut coroutine = Coroutine::with_stack(
                            stack.take().expect("it was given back"),
                            move |yielder: &Yielder<(), usize>, ()| deep(yielder, 50 - round),
                        )
                        .expect("it fits");
                        if round % 3 != 0 {
                            assert_eq!(coroutine.resume(()), Resumed::Yielded(0));
                        }
                        if round % 3 == 2 {
                            panic::catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).expect_err("it panics");
                        }
                        stack = coroutine.into_stack();
                    }
                },
            );
            let Some(child) = child else { return };
            silent(&child);
        }
    }

    /// A pointer that the compiler cannot keep anywhere but on the stack.
    fn hold<T>(value: T, meanwhile: impl FnOnce()) {
        let mut held = Box::new(value);
        black_box(&mut held);
        meanwhile();
        black_box(&mut held);
    }

    #[test]
    fn what_only_a_suspended_coroutine_or_its_resumer_holds_is_no_leak() {
        let child = in_a_child(
            "address::what_only_a_suspended_coroutine_or_its_resumer_holds_is_no_leak",
            "detect_leaks=1:detect_stack_use_after_return=0",
            || {
                let mut suspended = coroutine(|yielder: &Yielder<(), ()>, ()| {
                    hold([1_u8; 1000], || yielder.suspend(()));
                });
                the_function_that_resumes(&mut suspended);
                hold([2_u8; 2000], || {
                    let mut exits = coroutine(|_: &Yielder<(), ()>, ()| std::process::exit(0));
                    the_function_that_resumes(&mut exits);
                });
                drop(suspended);
            },
        );
        let Some(child) = child else { return };
        silent(&child);
    }

    #[test]
    fn what_a_coroutine_leaks_is_reported() {
        let child = in_a_child("address::what_a_coroutine_leaks_is_reported", "detect_leaks=1", || {
            #[inline(never)]
            fn leak() {
                std::mem::forget(black_box(Box::new([1_u8; 1000])));
            }
            let mut leaks = coroutine(|_: &Yielder<(), ()>, ()| {
                leak();
                // So that no copy of the pointer remains below the frames in use.
                black_box([0_usize; 1000]);
            });
            the_function_that_resumes(&mut leaks);
        });
        let Some(child) = child else { return };
        reported(&child, "detected memory leaks", &["leak of 1000 byte(s)", "leak"]);
    }
}

#[cfg(switchback_sanitizer = "thread")]
mod thread {
    use std::cell::Cell;
    use std::ptr;
    use std::rc::Rc;
    use std::sync::Barrier;

    use switchback::context::{Context, Left, Running};
    use switchback::on_stack;
    use switchback::stack::{DEFAULT_RESERVE, Mapped};

    use super::*;

    /// A crash ends the process, where its analysis could hang.
    const DIE: &str = "handle_segv=0:handle_sigbus=0";

    #[test]
    fn a_race_between_coroutines_of_two_threads_is_reported_with_both_stacks() {
        static mut SHARED: usize = 0;
        static BARRIER: Barrier = Barrier::new(2);

        #[inline(never)]
        fn the_function_that_races() {
            // SAFETY: none, on purpose.
            unsafe { (&raw mut SHARED).write(black_box((&raw const SHARED).read() + 1)) }
        }
        let child =
            in_a_child("thread::a_race_between_coroutines_of_two_threads_is_reported_with_both_stacks", "", || {
                let thread = || {
                    let mut coroutine = coroutine(|yielder: &Yielder<(), ()>, ()| {
                        yielder.suspend(());
                        the_function_that_races();
                    });
                    coroutine.resume(());
                    // Nothing orders what comes after.
                    BARRIER.wait();
                    the_function_that_resumes(&mut coroutine);
                };
                std::thread::scope(|scope| {
                    scope.spawn(thread);
                    scope.spawn(thread);
                });
            });
        let Some(child) = child else { return };
        let coroutine = ["the_function_that_races", "switchback::coroutine::entry::entry"];
        reported(&child, "data race", &[&coroutine[..], &["Previous"], &coroutine].concat());
    }

    #[test]
    fn coroutines_of_one_thread_share_data_across_switches() {
        let child = in_a_child("thread::coroutines_of_one_thread_share_data_across_switches", "", || {
            // Made and dropped by threads that come and go, so that the sanitizer's fibers are used again.
            for _ in 0..3 {
                let thread = || {
                    let shared = Rc::new(Cell::new(0));
                    let count = |shared: Rc<Cell<usize>>| {
                        coroutine(move |yielder: &Yielder<(), usize>, ()| {
                            for _ in 0..100 {
                                shared.set(shared.get() + 1);
                                yielder.suspend(shared.get());
                            }
                            let mut stack = Mapped::new(DEFAULT_RESERVE).expect("a stack");
                            on_stack(&mut stack, || {
                                shared.set(shared.get() + 1);
                                yielder.suspend(shared.get());
                            });
                        })
                    };
                    let (mut one, mut other) = (count(shared.clone()), count(shared.clone()));
                    for n in 0..101 {
                        assert_eq!(one.resume(()), Resumed::Yielded(3 * n + 1));
                        assert_eq!(other.resume(()), Resumed::Yielded(3 * n + 2));
                        shared.set(shared.get() + 1);
                    }
                    assert_eq!(one.resume(()), Resumed::Returned(()));
                };
                std::thread::scope(|scope| {
                    scope.spawn(thread);
                    scope.spawn(thread);
                });
            }
        });
        let Some(child) = child else { return };
        silent(&child);
    }

    #[test]
    fn coroutines_suspended_deep_have_call_stacks_of_their_own() {
        #[inline(never)]
        fn deep(yielder: &Yielder<(), usize>, depth: usize) {
            if depth == 0 {
                yielder.suspend(0);
            } else {
                deep(yielder, black_box(depth - 1));
            }
            black_box(depth);
        }
        let child = in_a_child("thread::coroutines_suspended_deep_have_call_stacks_of_their_own", DIE, || {
            // Ten times what the sanitizer keeps of one thread's call stack, which it does not check.
            let mut suspended: Vec<_> =
                (0..1_000).map(|_| coroutine(|yielder: &Yielder<(), usize>, ()| deep(yielder, 650))).collect();
            for coroutine in &mut suspended {
                assert_eq!(coroutine.resume(()), Resumed::Yielded(0));
            }
            // And as often the other way: they return, or are unwound.
            let rest = suspended.split_off(500);
            for mut coroutine in suspended {
                assert_eq!(coroutine.resume(()), Resumed::Returned(()));
            }
            drop(rest);
        });
        let Some(child) = child else { return };
        silent(&child);
    }

    #[test]
    fn a_coroutine_that_has_ended_leaves_nothing_behind() {
        let child = in_a_child("thread::a_coroutine_that_has_ended_leaves_nothing_behind", DIE, || {
            let mut stack = Mapped::new(DEFAULT_RESERVE).expect("a stack");
            // More than there can be fibers at once, for which the sanitizer maps memory, or frames in a call stack (65,536).
            for round in 0..100_000 {
                let mut coroutine =
                    Coroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| yielder.suspend(())).expect("it fits");
                assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
                if round % 4 == 0 {
                    assert_eq!(coroutine.resume(()), Resumed::Returned(()));
                }
                stack = coroutine.into_stack().expect("it has ended or can be unwound");
            }
        });
        let Some(child) = child else { return };
        silent(&child);
    }

    /// Two contexts that take turns.
    struct Pair {
        contexts: [Context; 2],
        turn: usize,
        rounds: usize,
    }
    // SAFETY: sent before either has run.
    unsafe impl Send for Pair {}

    unsafe extern "C" fn switches(pair: *mut (), running: Running) -> *mut () {
        let pair = pair.cast::<Pair>();
        // SAFETY: the word is the pair of the test below, of which one runs at a time.
        unsafe {
            while (*pair).rounds > 0 {
                (*pair).rounds -= 1;
                (*pair).turn = 1 - (*pair).turn;
                running.switch_to((*pair).contexts[(*pair).turn], pair.cast());
            }
        }
        ptr::null_mut()
    }

    #[test]
    fn contexts_made_on_one_thread_run_on_another_and_switch_there() {
        let child = in_a_child("thread::contexts_made_on_one_thread_run_on_another_and_switch_there", "", || {
            for _ in 0..100 {
                let stacks = [(); 2].map(|()| Mapped::new(DEFAULT_RESERVE).expect("a stack"));
                // SAFETY: the stacks outlive the thread.
                let contexts =
                    stacks.each_ref().map(|stack| unsafe { Context::new(stack, switches) }.expect("it fits"));
                let pair = Pair { contexts, turn: 0, rounds: 101 };
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        let mut pair = pair;
                        let data = (&raw mut pair).cast();
                        // SAFETY: as above. First one ends, then the one it last had its turn from.
                        unsafe {
                            assert!(matches!(contexts_of(data)[0].enter(data), Left::Ended(_)));
                            assert!(matches!(contexts_of(data)[0].enter(data), Left::Ended(_)));
                        }
                    });
                });
            }
        });
        let Some(child) = child else { return };
        silent(&child);
    }

    /// # Safety
    ///
    /// The word must be a pair's.
    unsafe fn contexts_of(pair: *mut ()) -> [Context; 2] {
        // SAFETY: the caller's promise.
        unsafe { (*pair.cast::<Pair>()).contexts }
    }
}
