//! What becomes of coroutines where panics abort, beside what becomes of them where panics unwind.
//!
//! A program of its own, for libtest cannot be built with `panic = "abort"`: each case runs in a process of its own and
//! has two ends, one for either way. `cargo test` tries the one, `RUSTFLAGS=-Cpanic=abort cargo test --test abort` the
//! other.

mod common;

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::process::{ExitCode, Output};
use std::ptr::NonNull;

use common::cases;
use switchback::stack::{DEFAULT_RESERVE, Mapped, Stack};
use switchback::{Coroutine, Resumed, Scoped, Yielder, on_stack, scoped};

struct Case {
    name: &'static str,
    /// Prints what it does.
    run: fn(),
    unwinding: End,
    aborting: End,
}

/// How a case ends.
enum End {
    /// By itself, having printed these lines.
    Returns(&'static [&'static str]),
    /// By SIGABRT, with this in what it says.
    Aborts(&'static str),
}

use End::{Aborts, Returns};

const CASES: &[Case] = &[
    Case {
        name: "a_panic_in_a_coroutine_says_its_message",
        run: || {
            let mut coroutine = start(|_| panic!("the panic's message"));
            report_panic(|| {
                let _ = coroutine.resume(());
            });
        },
        unwinding: Returns(&["caught the panic's message", "stack given back"]),
        aborting: Aborts("the panic's message"),
    },
    Case {
        name: "a_panic_on_another_stack_says_its_message",
        run: || {
            let mut stack = Mapped::new(DEFAULT_RESERVE).expect("a stack");
            report_panic(|| on_stack(&mut stack, || panic!("the panic's message")));
        },
        unwinding: Returns(&["caught the panic's message"]),
        aborting: Aborts("the panic's message"),
    },
    Case {
        name: "a_finished_coroutine_refuses_to_be_resumed",
        run: || {
            let mut coroutine = start(|_| ());
            assert_eq!(coroutine.resume(()), Resumed::Returned(()));
            report_panic(|| {
                let _ = coroutine.resume(());
            });
        },
        unwinding: Returns(&["caught resumed a coroutine that has finished", "stack given back"]),
        aborting: Aborts("resumed a coroutine that has finished"),
    },
    Case {
        name: "a_suspended_coroutine_that_is_dropped_leaks_its_stack_where_it_cannot_be_unwound",
        run: || {
            drop(suspended());
            println!("goes on");
        },
        unwinding: Returns(&["destructor", "stack given back", "goes on"]),
        aborting: Returns(&["goes on"]),
    },
    Case {
        name: "into_stack_of_a_suspended_coroutine_is_none_where_it_cannot_be_unwound",
        run: || say_whether(suspended().into_stack()),
        unwinding: Returns(&["destructor", "some", "stack given back"]),
        aborting: Returns(&["none"]),
    },
    Case {
        name: "a_finished_coroutine_gives_its_stack_back",
        run: || {
            let mut coroutine = suspended();
            assert_eq!(coroutine.resume(()), Resumed::Returned(()));
            assert!(coroutine.is_finished());
            drop(coroutine);
            let mut coroutine = start(|_| ());
            assert_eq!(coroutine.resume(()), Resumed::Returned(()));
            say_whether(coroutine.into_stack());
        },
        unwinding: Returns(&["destructor", "stack given back", "some", "stack given back"]),
        aborting: Returns(&["destructor", "stack given back", "some", "stack given back"]),
    },
    Case {
        name: "a_coroutine_that_never_ran_drops_its_function_and_gives_its_stack_back",
        run: || {
            let captured = Says("destructor");
            drop(start(move |_| drop(captured)));
            let captured = Says("destructor");
            say_whether(start(move |_| drop(captured)).into_stack());
        },
        unwinding: Returns(&["destructor", "stack given back", "destructor", "some", "stack given back"]),
        aborting: Returns(&["destructor", "stack given back", "destructor", "some", "stack given back"]),
    },
    Case {
        name: "a_scoped_coroutine_that_has_finished_ends_its_scope",
        run: || {
            in_a_scope(|mut coroutine| {
                let _ = coroutine.resume(());
                let _ = coroutine.resume(());
            });
            println!("goes on");
        },
        unwinding: Returns(&["destructor", "stack given back", "goes on"]),
        aborting: Returns(&["destructor", "stack given back", "goes on"]),
    },
    Case {
        name: "a_scoped_coroutine_that_never_ran_ends_its_scope",
        run: || {
            in_a_scope(|_| ());
            println!("goes on");
        },
        unwinding: Returns(&["stack given back", "goes on"]),
        aborting: Returns(&["stack given back", "goes on"]),
    },
    Case {
        name: "a_scoped_coroutine_that_is_suspended_at_the_end_aborts_where_it_cannot_be_unwound",
        run: || {
            in_a_scope(|mut coroutine| {
                let _ = coroutine.resume(());
            });
            println!("goes on");
        },
        unwinding: Returns(&["destructor", "stack given back", "goes on"]),
        aborting: Aborts("a scoped coroutine is still suspended at the end of its scope and cannot be unwound"),
    },
];

fn main() -> ExitCode {
    cases::main(CASES)
}

impl cases::Case for Case {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self) {
        (self.run)();
    }

    fn is_met_by(&self, output: &Output) -> bool {
        let end = if cfg!(panic = "abort") { &self.aborting } else { &self.unwinding };
        end.is_met_by(output)
    }
}

impl End {
    fn is_met_by(&self, output: &Output) -> bool {
        const SIGABRT: i32 = 6;
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        match *self {
            Returns(lines) => output.status.success() && stdout.lines().eq(lines.iter().copied()),
            Aborts(message) => output.status.signal() == Some(SIGABRT) && stdout.is_empty() && stderr.contains(message),
        }
    }
}

/// A value that says when it is dropped.
struct Says(&'static str);

impl Drop for Says {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

/// A stack that says when it is given back.
struct Told(Mapped, #[expect(dead_code, reason = "it is there to be dropped")] Says);

// SAFETY: the inner stack keeps the contract, and lives as long.
unsafe impl Stack for Told {
    fn top(&self) -> NonNull<u8> {
        self.0.top()
    }
    fn limit(&self) -> NonNull<u8> {
        self.0.limit()
    }
}

fn told() -> Told {
    Told(Mapped::new(DEFAULT_RESERVE).expect("a stack"), Says("stack given back"))
}

type Plain = Coroutine<(), (), (), Told>;

fn start(body: impl FnOnce(&Yielder<(), ()>) + 'static) -> Plain {
    Coroutine::with_stack(told(), move |yielder: &Yielder<(), ()>, ()| body(yielder)).expect("it fits")
}

fn suspends(yielder: &Yielder<(), ()>) {
    let _value = Says("destructor");
    yielder.suspend(());
}

fn suspended() -> Plain {
    let mut coroutine = start(suspends);
    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    coroutine
}

fn say_whether(stack: Option<Told>) {
    println!("{}", if stack.is_some() { "some" } else { "none" });
}

/// Lends a coroutine that suspends once, and borrows.
fn in_a_scope(lend: impl FnOnce(Scoped<'_, (), (), (), Told>)) {
    let resumed = Cell::new(0);
    let body = |yielder: &Yielder<(), ()>, ()| {
        resumed.set(resumed.get() + 1);
        suspends(yielder);
    };
    scoped(told(), body, lend).expect("it fits");
}

/// Prints the message of the panic that `f` raises, if that can be.
fn report_panic(f: impl FnOnce()) {
    let panic = panic::catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    println!("caught {}", panic.downcast_ref::<&str>().expect("a message"));
}
