//! A task that overflows its stack ends the process, which says its name unless it was told not to.

use std::env;
use std::ffi::OsStr;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use switchback_runtime as rt;

#[inline(never)]
fn recurse(depth: usize) -> usize {
    let frame = black_box([depth; 16]);
    if depth == usize::MAX { 0 } else { recurse(depth + 1) + frame[depth % 16] }
}

/// Runs a test again in a process of its own, where it calls `body` and gets no answer.
///
/// A program for another architecture is started by what `SWITCHBACK_RUNNER` names.
fn in_a_child(test: &str, body: impl FnOnce()) -> Option<Output> {
    const CHILD: &str = "SWITCHBACK_CHILD";
    if env::var_os(CHILD).is_some_and(|child| child == test) {
        body();
        return None;
    }
    let program = env::current_exe().unwrap();
    let runner = env::var("SWITCHBACK_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().map(OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    Some(command.args(words).args(["--exact", test, "--nocapture"]).env(CHILD, test).output().unwrap())
}

fn said_before_it_died(child: &Output) -> Vec<String> {
    assert_eq!(child.status.signal(), Some(11), "{child:?}");
    let said = String::from_utf8_lossy(&child.stderr);
    said.lines().filter(|line| line.contains("overflowed")).map(str::to_owned).collect()
}

/// On stacks that are used again, a named task's last.
fn overflow_in(builder: rt::RuntimeBuilder, name: Option<&str>) {
    builder
        .run(|| {
            rt::Builder::new().name("gone".into()).spawn(|| ()).unwrap().join().unwrap();
            let task = name.map_or_else(rt::Builder::new, |name| rt::Builder::new().name(name.into()));
            task.spawn(|| recurse(0)).unwrap().join().unwrap();
        })
        .unwrap();
}

#[test]
fn a_task_that_overflows_its_stack_is_named() {
    let test = "a_task_that_overflows_its_stack_is_named";
    let Some(child) = in_a_child(test, || overflow_in(rt::Runtime::builder(), Some("deep"))) else { return };
    let said = said_before_it_died(&child);
    let size = switchback::stack::DEFAULT_RESERVE / 1024;
    let line = format!("coroutine 'deep' overflowed its stack ({size} KiB at 0x");
    assert!(matches!(&said[..], [only] if only.starts_with(&line)), "{child:?}");
}

#[test]
fn a_task_without_a_name_is_not_named_after_another() {
    let test = "a_task_without_a_name_is_not_named_after_another";
    let Some(child) = in_a_child(test, || overflow_in(rt::Runtime::builder(), None)) else { return };
    let said = said_before_it_died(&child);
    assert!(
        matches!(&said[..], [only] if only.starts_with("coroutine '<unnamed>' overflowed its stack (")),
        "{child:?}"
    );
}

#[test]
fn a_runtime_can_be_told_to_say_nothing() {
    let test = "a_runtime_can_be_told_to_say_nothing";
    let Some(child) = in_a_child(test, || overflow_in(rt::Runtime::builder().report_overflows(false), Some("deep")))
    else {
        return;
    };
    assert!(said_before_it_died(&child).is_empty(), "{child:?}");
}
