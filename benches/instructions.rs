//! How many instructions a job takes, counted by Valgrind.
//!
//! gungraun counts one call of a function. What doing a job once more costs is a difference: each contender is counted
//! doing it never and doing it [`TIMES`] times. That needs both counts, so gungraun runs in a process of its own and writes
//! them to us.

use std::process::Command;

use serde_json::Value;
use switchback_benches::{Job, jobs};

/// Even, since some contenders do two switches at once.
const TIMES: u64 = 1_000;

/// The version of gungraun in Cargo.toml.
const RUNNER: &str = "0.20.0";

/// Set in the processes that belong to gungraun, whose command line is its own: the user's filter.
const FILTER: &str = "SWITCHBACK_BENCHES_FILTER";

fn main() {
    if std::env::var_os(FILTER).is_some() {
        counted::run();
    } else if std::env::args().any(|argument| argument == "--bench") {
        let filter = switchback_benches::filter();
        if let Err(reason) = print_table(&filter) {
            // The other benchmarks go on.
            println!("instructions are not counted: {reason}");
        }
    }
}

/// The jobs that rest on the processor alone.
fn chosen(filter: &str) -> impl Iterator<Item = &'static Job> {
    jobs::SWITCHES.iter().filter(move |job| job.name.contains(filter))
}

fn print_table(filter: &str) -> Result<(), String> {
    if chosen(filter).next().is_none() {
        return Ok(());
    }
    let mut counts = counts(filter)?.into_iter();
    println!("| what | our instructions | peer | ratio, ours / peer |\n|---|---|---|---|");
    for job in chosen(filter) {
        let counts: Vec<_> = counts.by_ref().take(job.contenders.len()).collect();
        for (peer, count) in job.contenders.iter().zip(&counts).skip(1) {
            let ours = counts[0];
            println!("| {} | {ours:.1} | {} {count:.1} | {:.2} |", job.name, peer.name, ours / count);
        }
    }
    Ok(())
}

/// Instructions of each contender for doing its job once, in the order of the jobs.
fn counts(filter: &str) -> Result<Vec<f64>, String> {
    for (program, install) in [
        ("valgrind", "install it with the system's package manager".to_owned()),
        ("gungraun-runner", format!("`cargo install gungraun-runner --version {RUNNER}`")),
    ] {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(format!("there is no {program}: {install}"));
        }
    }
    let output = Command::new(std::env::current_exe().map_err(|error| error.to_string())?)
        .args(["--bench", "--output-format=json", "--nosummary"])
        .env(FILTER, filter)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    // A line for each case, in their order.
    let cases = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<Value>()
        .map(|case| case.ok()?.pointer("/profiles/0/data/total/metrics/Ir/values/new")?.as_f64())
        .collect::<Option<Vec<_>>>()
        .filter(|counts| !counts.is_empty())
        .ok_or("gungraun does not write what is read here")?;
    Ok(cases.chunks_exact(2).map(|pair| (pair[1] - pair[0]) / TIMES as f64).collect())
}

/// What gungraun makes of it.
mod counted {
    use std::mem::ManuallyDrop;

    use gungraun::{LibraryBenchmarkConfig, library_benchmark, library_benchmark_group};
    use switchback_benches::{Contender, Work};

    use super::{FILTER, TIMES, chosen};

    /// Each contender twice: how often it does its job.
    fn cases() -> Vec<(&'static Contender, u64)> {
        let filter = std::env::var(FILTER).expect("set by the process that counts");
        let contenders = chosen(&filter).flat_map(|job| job.contenders);
        contenders.flat_map(|contender| [(contender, 0), (contender, TIMES)]).collect()
    }

    /// Not counted.
    fn prepare((contender, times): (&'static Contender, u64)) -> (Work, u64) {
        let mut work = (contender.prepare)();
        // The first times begin coroutines and bind symbols.
        work(2);
        (work, times)
    }

    #[library_benchmark]
    #[benches::case(iter = cases(), setup = prepare)]
    fn count((mut work, times): (Work, u64)) -> ManuallyDrop<Work> {
        work(times);
        ManuallyDrop::new(work)
    }

    library_benchmark_group!(name = group, benchmarks = count);
    gungraun::main!(
        config = LibraryBenchmarkConfig::default().pass_through_env(FILTER);
        library_benchmark_groups = group
    );

    pub fn run() {
        main();
    }
}
