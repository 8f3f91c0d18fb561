//! A backtrace taken inside a coroutine leads on to the code that resumed it.
#![cfg(feature = "std")]

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::ptr;

use switchback::context::{Context, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Resumed, Yielder, on_stack};

/// The name that the backtraces below must contain.
#[inline(never)]
fn the_function_that_resumes<Y: 'static, R: 'static>(coroutine: &mut Coroutine<(), Y, R>) -> Resumed<Y, R> {
    // Without this the call would be the function's last act, and could leave no frame.
    black_box(coroutine.resume(()))
}

#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the backtrace of a thread does not lead to another")]
fn a_backtrace_leads_from_the_coroutine_to_its_resumer() {
    let mut coroutine = Coroutine::new(|yielder: &Yielder<(), String>, ()| {
        yielder.suspend(Backtrace::force_capture().to_string());
        Backtrace::force_capture().to_string()
    })
    .expect("a stack for the coroutine");

    let Resumed::Yielded(first) = the_function_that_resumes(&mut coroutine) else { panic!("it yields first") };
    assert!(first.contains("the_function_that_resumes"), "{first}");
    // The way back is looked up anew for every resume.
    let Resumed::Returned(second) = coroutine.resume(()) else { panic!("it returns then") };
    assert!(!second.contains("the_function_that_resumes"), "{second}");
    assert!(second.contains("a_backtrace_leads_from_the_coroutine_to_its_resumer"), "{second}");
}

#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the backtrace of a thread does not lead to another")]
fn a_backtrace_leads_through_nested_coroutines() {
    let mut outer = Coroutine::new(|_: &Yielder<(), ()>, ()| {
        let mut inner =
            Coroutine::new(|_: &Yielder<(), ()>, ()| Backtrace::force_capture().to_string()).expect("a stack");
        the_function_that_resumes(&mut inner)
    })
    .expect("a stack for the coroutine");
    let Resumed::Returned(Resumed::Returned(backtrace)) = outer.resume(()) else { panic!("both return at once") };
    assert!(backtrace.contains("the_function_that_resumes"), "{backtrace}");
    assert!(backtrace.contains("a_backtrace_leads_through_nested_coroutines"), "{backtrace}");
}

/// Fails unless the names come in this order, innermost first.
#[track_caller]
fn assert_leads_through(backtrace: &str, names: &[&str]) {
    let mut rest = backtrace;
    for name in names {
        let Some(found) = rest.find(name) else { panic!("{name} is missing or out of order in\n{backtrace}") };
        rest = &rest[found + name.len()..];
    }
}

#[inline(never)]
fn on_the_other_stack() -> String {
    black_box(Backtrace::force_capture().to_string())
}

#[inline(never)]
fn in_the_inner_coroutine() -> String {
    let mut stack = Mapped::new(DEFAULT_RESERVE).expect("a stack");
    black_box(on_stack(&mut stack, on_the_other_stack))
}

#[inline(never)]
fn in_the_outer_coroutine() -> String {
    let mut inner = Coroutine::new(|_: &Yielder<(), ()>, ()| in_the_inner_coroutine()).expect("a stack");
    let Resumed::Returned(backtrace) = the_function_that_resumes(&mut inner) else { panic!("it returns at once") };
    black_box(backtrace)
}

#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the backtrace of a thread does not lead to another")]
fn a_backtrace_leads_through_all_stacks_in_order_to_the_threads_first_function() {
    let mut outer = Coroutine::new(|_: &Yielder<(), ()>, ()| in_the_outer_coroutine()).expect("a stack");
    let Resumed::Returned(backtrace) = outer.resume(()) else { panic!("it returns at once") };
    assert_leads_through(
        &backtrace,
        &[
            "on_the_other_stack",
            "in_the_inner_coroutine",
            "the_function_that_resumes",
            "in_the_outer_coroutine",
            "a_backtrace_leads_through_all_stacks_in_order_to_the_threads_first_function",
            // What the test harness calls every test through: the walk did not end early.
            "__rust_begin_short_backtrace",
        ],
    );
}

/// What the two contexts below share.
struct Pair {
    waiting: Option<Context>,
    left: usize,
    backtrace: String,
}

unsafe extern "C" fn alternate(pair: *mut (), running: Running) -> *mut () {
    // SAFETY: the word is the pair of the test below, and only one of the two contexts runs at a time.
    unsafe {
        let pair = pair.cast::<Pair>();
        while (*pair).left > 0 {
            (*pair).left -= 1;
            let next = (*pair).waiting.replace(running.context()).expect("the other one waits");
            running.switch_to(next, pair.cast());
        }
        (*pair).backtrace = Backtrace::force_capture().to_string();
    }
    ptr::null_mut()
}

#[inline(never)]
fn the_function_that_enters(context: Context, pair: &mut Pair) -> Left {
    // SAFETY: the stacks and the pair outlive the contexts.
    black_box(unsafe { context.enter(ptr::from_mut(pair).cast()) })
}

/// Not to whoever switched to it: that one is suspended.
#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the backtrace of a thread does not lead to another")]
fn a_backtrace_leads_from_a_context_to_its_root_however_it_was_switched_to() {
    let stacks = [(); 2].map(|()| Mapped::new(DEFAULT_RESERVE).expect("a stack"));
    for transfers in 0..4 {
        // SAFETY: the stacks outlive the contexts, of which one ends and the other is not continued.
        let [first, second] =
            stacks.each_ref().map(|stack| unsafe { Context::new(stack, alternate) }.expect("it fits"));
        let mut pair = Pair { waiting: Some(second), left: transfers, backtrace: String::new() };
        assert!(matches!(the_function_that_enters(first, &mut pair), Left::Ended(_)));
        assert_eq!(pair.backtrace.matches("alternate").count(), 1, "{}", pair.backtrace);
        assert_leads_through(
            &pair.backtrace,
            &["alternate", "the_function_that_enters", "__rust_begin_short_backtrace"],
        );
    }
}
