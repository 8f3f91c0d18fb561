//! The command line.

use std::time::Duration;

use crate::builds::{Build, DEBUG, RELEASE, VARIANTS};

/// What `--help` prints.
pub const HELP: &str = "\
Runs every test of the workspace natively, then on each emulated architecture.

Usage: cargo qemu [OPTIONS] [-- TEST-ARGUMENTS]

Options:
  --install           Brings what is missing: cross compilers, C libraries, QEMU, Rust targets
                      (Debian 12 and 13, Ubuntu 24.04; says what it does before it does it)
  --target T          Runs T alone; may be given again. A triple, `native`, or a short name: aarch64, arm, riscv64,
                      loongarch64
  --list              Lists the targets and what this machine has for each, and runs nothing
  --release           Builds with optimisations
  --builds            Runs the primitives' tests, built in each of these ways, instead: optimised, lto, size,
                      frame-pointers, optimised-frame-pointers, abort
  --build B           Runs them built in that way alone; may be given again
  --deadline SECONDS  Ends a test binary that takes longer, as a failure (default 600)
  --help              Prints this

What stands after `--` goes to every test binary: a filter, or an option such as --nocapture.
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help,
    Run(Options),
}

/// The options of a run.
#[derive(Debug, PartialEq)]
pub struct Options {
    pub install: bool,
    pub list: bool,
    /// The ways to build, of which there is at least one.
    pub builds: Vec<&'static Build>,
    /// The targets as they were named; empty means all.
    pub targets: Vec<String>,
    pub deadline: Duration,
    /// Arguments for the test binaries.
    pub test_args: Vec<String>,
}

impl Options {
    /// Whether the test arguments may leave tests out, so that a target may rightly run none.
    pub fn filtered(&self) -> bool {
        !self.test_args.is_empty()
    }
}

/// Reads the arguments that follow the program's name.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments;
    let mut release = false;
    let mut options = Options {
        install: false,
        list: false,
        builds: Vec::new(),
        targets: Vec::new(),
        deadline: Duration::from_secs(600),
        test_args: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let (name, mut value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (argument.as_str(), None),
        };
        match name {
            "--target" => options.targets.push(value_of(name, &mut value, &mut arguments)?),
            "--build" => {
                let name = value_of(name, &mut value, &mut arguments)?;
                options.builds.push(VARIANTS.iter().find(|build| build.name == name).ok_or_else(|| {
                    let names = VARIANTS.each_ref().map(|build| build.name).join(", ");
                    format!("no build is called {name}, choose from {names}")
                })?);
            }
            "--deadline" => {
                let seconds = value_of(name, &mut value, &mut arguments)?;
                options.deadline = match seconds.parse() {
                    Ok(seconds @ 1..) => Duration::from_secs(seconds),
                    _ => return Err(format!("--deadline takes whole seconds from 1 on, not {seconds}")),
                };
            }
            "--install" => options.install = true,
            "--list" => options.list = true,
            "--release" => release = true,
            "--builds" => options.builds.extend(&VARIANTS),
            "--help" | "-h" => return Ok(Command::Help),
            "--" => options.test_args.extend(arguments.by_ref()),
            _ => {
                return Err(format!(
                    "cargo qemu has no option {argument}, see `cargo qemu --help`; test filters stand after --"
                ));
            }
        }
        if value.is_some() {
            return Err(format!("{name} takes no value"));
        }
    }
    match (release, options.builds.is_empty()) {
        (true, false) => {
            return Err("--release builds every test in one way, --builds some in many: choose".to_string());
        }
        (true, true) => options.builds.push(&RELEASE),
        (false, true) => options.builds.push(&DEBUG),
        (false, false) => {}
    }
    Ok(Command::Run(options))
}

/// The value of option `name`: what stood after its `=`, or else the next argument.
fn value_of(
    name: &str,
    inline: &mut Option<String>,
    rest: &mut impl Iterator<Item = String>,
) -> Result<String, String> {
    inline.take().or_else(|| rest.next()).ok_or_else(|| format!("{name} needs a value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(String::from))
    }

    fn options(line: &str) -> Options {
        match read(line) {
            Ok(Command::Run(options)) => options,
            other => panic!("{line:?} reads as {other:?}"),
        }
    }

    #[test]
    fn nothing_asks_for_every_target() {
        let options = options("");
        assert!(options.targets.is_empty() && !options.install && !options.list);
        assert_eq!(options.builds, [&DEBUG]);
        assert!(!options.filtered());
    }

    #[test]
    fn targets_add_up_in_both_spellings() {
        assert_eq!(options("--target arm --target=riscv64").targets, ["arm", "riscv64"]);
    }

    #[test]
    fn all_after_two_dashes_belongs_to_the_tests() {
        let options = options("--release -- --target --nocapture");
        assert_eq!(options.test_args, ["--target", "--nocapture"]);
        assert!(options.targets.is_empty() && options.filtered());
        assert_eq!(options.builds, [&RELEASE]);
    }

    #[test]
    fn builds_are_all_or_those_that_are_named() {
        assert_eq!(options("--builds").builds.len(), VARIANTS.len());
        let named: Vec<_> = options("--build lto --build=abort").builds.iter().map(|build| build.name).collect();
        assert_eq!(named, ["lto", "abort"]);
    }

    #[test]
    fn bad_arguments_are_named() {
        for (line, part) in [
            ("--frobnicate", "--frobnicate"),
            ("coroutine", "after --"),
            ("--target", "needs a value"),
            ("--install=yes", "no value"),
            ("--build fast", "choose from optimised, lto"),
            ("--builds --release", "choose"),
            ("--deadline 0", "from 1 on"),
            ("--deadline soon", "soon"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(part), "{line:?} is answered with {error:?}");
        }
    }

    #[test]
    fn help_wins() {
        assert_eq!(read("--install --help"), Ok(Command::Help));
    }
}
