//! A test program of cases, each of which runs in a process of its own: for what ends a process, and for programs that
//! libtest cannot be a part of. It says and understands what libtest does.

use std::env;
use std::process::{ExitCode, Output};

use super::in_another_process;

/// What a test program consists of.
pub trait Case {
    fn name(&self) -> &'static str;
    /// What the process of the case does, on its main thread.
    fn run(&self);
    /// Whether it ended as it should.
    fn is_met_by(&self, output: &Output) -> bool;
}

/// The whole of such a program.
///
/// # Panics
///
/// If a process cannot be started.
pub fn main(cases: &[impl Case]) -> ExitCode {
    /// Set for the process of one case, to its name.
    const CASE: &str = "SWITCHBACK_CASE";

    if cfg!(miri) {
        println!("no case is run: Miri starts no processes");
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = env::var(CASE) {
        cases.iter().find(|case| case.name() == name).expect("the name of a case").run();
        return ExitCode::SUCCESS;
    }
    let wanted = wanted();
    let (cases, others): (Vec<_>, Vec<_>) = cases.iter().partition(|case| wanted(case.name()));
    let mut failed = 0;
    for case in &cases {
        let name = case.name();
        let output = in_another_process(name, &[(CASE, name)]);
        match case.is_met_by(&output) {
            true => println!("test {name} ... ok"),
            false => {
                failed += 1;
                println!("test {name} ... FAILED\n{output:?}");
            }
        }
    }
    // As libtest says it, for whoever counts.
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let (passed, filtered) = (cases.len() - failed, others.len());
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Which cases the arguments mean, as libtest understands them: those whose name has one of the words, and of what
/// follows a `--skip` none.
fn wanted() -> impl Fn(&str) -> bool {
    let (mut words, mut skipped) = (Vec::new(), Vec::new());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some("skip") => skipped.extend(arguments.next()),
            Some(_) => {}
            None => words.push(argument),
        }
    }
    move |name| {
        let has = |word: &String| name.contains(word.as_str());
        (words.is_empty() || words.iter().any(has)) && !skipped.iter().any(has)
    }
}
