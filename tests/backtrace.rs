//! A backtrace taken inside a coroutine leads on to the code that resumed it.
#![cfg(feature = "std")]

use std::backtrace::Backtrace;
use std::hint::black_box;

use switchback::{Coroutine, Resumed, Yielder};

/// The name that the backtraces below must contain.
#[inline(never)]
fn the_function_that_resumes<Y: 'static, R: 'static>(coroutine: &mut Coroutine<(), Y, R>) -> Resumed<Y, R> {
    // Without this the call would be the function's last act, and could leave no frame.
    black_box(coroutine.resume(()))
}

#[test]
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
