//! What the tests of the primitives share: where they run, and the way to run one again as a process of its own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod cases;

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::AtomicPtr;

/// Whether the test runs where what is many times slower should be done fewer times: under an emulator, or with threads
/// for coroutines.
pub fn emulated() -> bool {
    cfg!(any(miri, switchback_threads)) || env::var_os("SWITCHBACK_EMULATED").is_some_and(|value| value == "1")
}

/// Leaks memory on purpose: a static still knows it, so that Miri does not report it.
pub fn leak<T: ?Sized>(value: Box<T>) -> &'static mut T {
    static KEPT: Mutex<Vec<AtomicPtr<u8>>> = Mutex::new(Vec::new());
    let value = Box::into_raw(value);
    KEPT.lock().expect("nobody panics here").push(AtomicPtr::new(value.cast()));
    // SAFETY: it is never freed, and nobody makes a reference of what is kept.
    unsafe { &mut *value }
}

/// Runs a test that may end its process in a process of its own: `body` is called there, and here the answer is how
/// that ended. There the answer is `None`.
///
/// `test` is the test's name as the test program lists it.
///
/// # Panics
///
/// If the process cannot be started.
pub fn in_a_child(test: &str, body: impl FnOnce()) -> Option<Output> {
    const CHILD: &str = "SWITCHBACK_CHILD";
    if env::var_os(CHILD).is_some_and(|child| child == test) {
        body();
        return None;
    }
    Some(in_another_process(test, &[(CHILD, test)]))
}

/// Runs a test in a process of its own, with these variables in its environment.
///
/// # Panics
///
/// If the process cannot be started.
pub fn in_another_process(test: &str, variables: &[(&str, &str)]) -> Output {
    this_program()
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .envs(variables.iter().copied())
        .output()
        .unwrap_or_else(|error| panic!("could not start {test} in a process of its own: {error}"))
}

/// The command that starts this program again.
///
/// A program for another architecture cannot be executed as it is: `cargo qemu` then names the command that runs it in
/// `SWITCHBACK_RUNNER`, with its arguments, separated by spaces.
fn this_program() -> Command {
    let program = env::current_exe().expect("the path of the running program");
    let runner = env::var("SWITCHBACK_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().map(OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().expect("at least the program itself"));
    command.args(words);
    command
}
