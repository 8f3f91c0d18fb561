//! What all tests of the runtime share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// `native`, or `emulated` where `SWITCHBACK_EMULATED` says that an emulator runs the test.
pub fn scaled(native: usize, emulated: usize) -> usize {
    if std::env::var_os("SWITCHBACK_EMULATED").is_some_and(|value| value != "0") { emulated } else { native }
}

/// Calls `f` on a thread of its own, and fails the test if it hangs. The deadline is not part of what is tested.
pub fn ends<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = channel::<()>();
    let thread = thread::spawn(move || {
        // Dropped at the end, also by a panic.
        let _done = done;
        f()
    });
    if let Err(RecvTimeoutError::Timeout) = outcome.recv_timeout(Duration::from_secs(120)) {
        panic!("the test hangs");
    }
    thread.join().unwrap_or_else(|payload| resume_unwind(payload))
}

/// As [`ends`], for the first task of a runtime.
pub fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    ends(|| switchback_runtime::run(f).unwrap())
}

/// As [`run`], with one worker: for what depends on the order in which tasks run.
pub fn run_in_order<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    ends(|| switchback_runtime::Runtime::builder().workers(1).run(f).unwrap())
}
