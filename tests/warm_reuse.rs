//! Stacks that are taken and given back on a thread again and again make no system call at all: the kernel would end the
//! process for it. Not with a sanitizer, which makes some itself.
#![cfg(all(feature = "std", target_os = "linux", not(any(miri, switchback_sanitizer))))]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::time::Duration;

use common::{emulated, in_a_child};
use switchback::stack::{Keep, Pool, Stack};
use switchback::{Coroutine, Resumed, Yielder};

/// How the process ends when all went well.
const WELL: i32 = 42;
/// How it ends where it cannot forbid itself anything.
const NOT_FORBIDDEN: i32 = 43;

/// From now on this thread may end the process and look at the clock (which is a system call on some machines); any other
/// system call ends it. False if the system does not do that.
fn forbid_system_calls() -> bool {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let if_equal = |number: libc::c_long, jt: u8| {
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        libc::sock_filter { code, jt, jf: 0, k: number as u32 }
    };
    let mut filter = [
        // The number of the call.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        if_equal(libc::SYS_exit_group, 2),
        if_equal(libc::SYS_clock_gettime, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the pointer is to a live program, which the kernel copies and checks.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Runs this in a process of its own, when a stack has been taken and given back there and system calls are forbidden.
fn without_system_calls(test: &str, run: impl FnOnce(Pool)) -> Option<Output> {
    in_a_child(test, || {
        // What has lain unused for a second is given back, which is another matter.
        Keep { decay: Duration::MAX, ..Keep::default() }.apply();
        let pool = Pool::of(64 * 1024).expect("a pool");
        drop(pool.take().expect("a stack"));
        if !forbid_system_calls() {
            // SAFETY: ends the process.
            unsafe { libc::_exit(NOT_FORBIDDEN) };
        }
        run(pool);
        // SAFETY: as above; nothing else can be done any more.
        unsafe { libc::_exit(WELL) };
    })
}

/// Whether that went well. An emulator forbids nothing: there the crate's own border to the system is watched, by a test of
/// `src/stack/faults.rs`.
fn went_well(child: &Output) -> bool {
    match child.status.code() {
        Some(NOT_FORBIDDEN) => emulated(),
        code => code == Some(WELL),
    }
}

#[test]
fn a_million_stacks_taken_and_given_back_make_no_system_call() {
    let Some(child) = without_system_calls("a_million_stacks_taken_and_given_back_make_no_system_call", |pool| {
        for _ in 0..1_000_000 {
            let stack = pool.take().expect("a stack");
            // SAFETY: the highest byte of a stack on which nothing runs.
            unsafe { stack.top().sub(1).write(1) };
        }
    }) else {
        return;
    };
    assert!(went_well(&child), "{child:?}");
}

#[test]
#[cfg_attr(switchback_threads, ignore = "a coroutine is a thread")]
fn coroutines_that_come_and_go_make_no_system_call() {
    let Some(child) = without_system_calls("coroutines_that_come_and_go_make_no_system_call", |pool| {
        for n in 0..100_000 {
            let body = |yielder: &Yielder<u32, u32>, n| yielder.suspend(n + 1);
            let mut coroutine = Coroutine::with_stack(pool.take().expect("a stack"), body).expect("it fits");
            assert_eq!(coroutine.resume(n), Resumed::Yielded(n + 1));
            assert_eq!(coroutine.resume(n), Resumed::Returned(n));
        }
    }) else {
        return;
    };
    assert!(went_well(&child), "{child:?}");
}

/// Or else the others would show nothing.
#[test]
fn a_system_call_would_be_seen() {
    let Some(child) = without_system_calls("a_system_call_would_be_seen", Pool::trim) else { return };
    let ended_by_it = child.status.signal() == Some(libc::SIGSYS);
    assert!(ended_by_it || emulated() && child.status.code() == Some(NOT_FORBIDDEN), "{child:?}");
}
