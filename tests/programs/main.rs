//! Random programs, run on coroutines and contexts, do what a plain model without either says.
#![cfg(feature = "std")]

#[path = "../common/mod.rs"]
mod common;
mod contexts;
mod machine;
mod model;
mod program;
mod property;

use std::fmt::Debug;
use std::panic;

use contexts::Graph;
use program::Program;
use property::Property;

/// Whatever coroutines do with values, panics, drops, stacks and each other.
#[test]
fn coroutines_do_what_a_model_without_coroutines_says() {
    Property {
        name: "coroutines_do_what_a_model_without_coroutines_says",
        size: 16,
        inputs: 8_000,
        check: |program: &Program| {
            let predicted = model::predict(program);
            if predicted.aborts {
                return Ok(());
            }
            // Their panics are what they are meant to do.
            let hook = panic::take_hook();
            panic::set_hook(Box::new(|_| {}));
            let ran = panic::catch_unwind(|| machine::run(program));
            panic::set_hook(hook);
            let (events, alive) = ran.map_err(|_| "the machine itself panicked".to_string())?;
            compare(&events, &predicted.events)?;
            if alive != 0 && !predicted.leaks {
                return Err(format!("{alive} values were not dropped"));
            }
            Ok(())
        },
        encode: Program::encode,
        decode: Program::decode,
    }
    .holds();
}

/// Whoever leaves comes back to the root it has at the time; whoever is switched to goes on where it was.
#[test]
#[cfg_attr(miri, ignore = "leaves contexts waiting, so it needs -Zmiri-ignore-leaks: .ci/miri runs it")]
fn contexts_do_what_a_table_of_them_says() {
    Property {
        name: "contexts_do_what_a_table_of_them_says",
        size: 24,
        inputs: 8_000,
        check: |graph: &Graph| compare(&contexts::run(graph), &contexts::predict(graph)),
        encode: Graph::encode,
        decode: Graph::decode,
    }
    .holds();
}

fn compare<T: Debug + PartialEq>(events: &[T], predicted: &[T]) -> Result<(), String> {
    if events == predicted {
        return Ok(());
    }
    let same = events.iter().zip(predicted).take_while(|(event, predicted)| event == predicted).count();
    let [next, instead] =
        [events, predicted].map(|all| all.get(same).map_or("the end".into(), |one| format!("{one:?}")));
    let before = &events[same.saturating_sub(12)..same];
    Err(format!("after {same} events, the last of them {before:?}, comes {next} instead of {instead}"))
}
