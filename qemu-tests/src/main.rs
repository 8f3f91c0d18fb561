//! `cargo qemu`: runs every test of the workspace natively, then on each emulated architecture.
//!
//! One pass over a target is: look what the machine has for it ([`host`]), bring what is missing if asked to
//! ([`install`]), build its test binaries with cargo ([`compile`]), run them through QEMU ([`run`]), read what libtest
//! said ([`libtest`]). The next target builds while the binaries of the last one run. The table comes at the end
//! ([`report`]).
//!
//! A target that did not run is a failure, and so is one that ran nothing: a green run means five architectures.
//!
//! `cargo qemu --builds` does the same with the primitives' tests alone, built in every way that may matter to a switch
//! ([`builds`]).

mod args;
mod builds;
mod compile;
mod emulation;
mod host;
mod install;
mod libtest;
mod report;
mod run;
mod targets;

use std::process::ExitCode;

use args::{Command, Options};
use host::Host;
use targets::Target;

fn main() -> ExitCode {
    let options = match args::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run(options)) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match cargo_qemu(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what `options` ask; true if all of it was found in order.
fn cargo_qemu(options: &Options) -> Result<bool, String> {
    let mut host = Host::inspect()?;
    let targets = chosen(options, &host)?;
    if options.install {
        install::bring(&mut host, &targets)?;
    }
    if options.list {
        print!("{}", report::inventory(&host, &targets));
        return Ok(targets.iter().all(|target| host.lacks(target).is_empty()));
    }
    let missing: Vec<String> = targets.iter().flat_map(|target| host.lacks(target)).map(|lack| lack.message).collect();
    if !missing.is_empty() {
        return Err(missing.join("\nerror: "));
    }
    run::all(&host, &targets, options)
}

/// The targets asked for, each once; without `--target`, this machine first and then every emulated one.
fn chosen(options: &Options, host: &Host) -> Result<Vec<Target>, String> {
    let all = targets::all(&host.triple);
    let mut chosen: Vec<Target> = Vec::new();
    for name in &options.targets {
        let known = all.iter().find(|target| target.answers_to(name)).ok_or_else(|| {
            let triples: Vec<_> = all.iter().map(|target| target.triple.as_str()).collect();
            format!("no target is called {name}, choose from native, {}", triples.join(", "))
        })?;
        if !chosen.iter().any(|target| target.triple == known.triple) {
            chosen.push(known.clone());
        }
    }
    Ok(if chosen.is_empty() { all } else { chosen })
}
