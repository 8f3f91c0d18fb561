//! How long a job takes, and the table of ratios.
//!
//! Those who do a job are measured in turn, for some milliseconds each, round after round: whatever else the machine does
//! meanwhile, and whatever clock it runs at, meets all of them alike. The rounds are spread over several processes,
//! because where the system places code and stacks in one of them can please or displease a branch predictor from its
//! beginning to its end. The ratio is the median of the rounds' ratios.

use std::process::Command;
use std::time::Duration;

use crate::{Contender, Job, Work};

/// Processes, one after the other.
const PROCESSES: usize = 9;
/// Measurements of each contender in one.
const ROUNDS: usize = 31;
/// How long one takes: long beside the refilling of the caches when another had them, short beside a time slice.
const SAMPLE: Duration = Duration::from_millis(2);

/// How a process is told to measure one job and print the samples.
const ALONE: &str = "--alone=";

/// Measures the jobs that the user [chose](crate::filter) and prints a line for each peer.
///
/// Without cargo's `--bench`, as `cargo test --benches` calls it, each is only done twice, to see that it can be.
pub fn run<'a>(jobs: impl IntoIterator<Item = &'a Job>) {
    let mut jobs = jobs.into_iter();
    if let Some(name) = std::env::args().find_map(|argument| argument.strip_prefix(ALONE).map(str::to_owned)) {
        let job = jobs.find(|job| job.name == name).expect("a job that our own process named");
        samples(job.contenders).iter().for_each(|round| println!("{round:?}"));
        return;
    }
    let filter = crate::filter();
    let mut chosen = jobs.filter(|job| job.name.contains(&filter)).peekable();
    if std::env::args().any(|argument| argument == "--bench") {
        if chosen.peek().is_some() {
            println!("| what | ours | peer | ratio, ours / peer |\n|---|---|---|---|");
        }
        chosen.for_each(print_lines);
    } else {
        chosen.flat_map(|job| job.contenders).for_each(|contender| {
            let mut work = (contender.prepare)();
            work(2);
            std::mem::forget(work);
        });
    }
}

fn print_lines(job: &Job) {
    let rounds: Vec<_> = (0..PROCESSES).flat_map(|_| samples_of_a_process(job)).collect();
    for (index, peer) in job.contenders.iter().enumerate().skip(1) {
        let ratio = median(rounds.iter().map(|round| round[0] / round[index]));
        let [ours, theirs] = [0, index].map(|who| readable(median(rounds.iter().map(|round| round[who]))));
        println!("| {} | {ours} | {} {theirs} | {ratio:.2} |", job.name, peer.name);
    }
}

fn samples_of_a_process(job: &Job) -> Vec<Vec<f64>> {
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program).arg(format!("{ALONE}{}", job.name)).output().expect("this program, again");
    let text = String::from_utf8(output.stdout).expect("numbers");
    assert!(output.status.success(), "{}: {}{text}", job.name, String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&format!("[{}]", text.trim_end().replace('\n', ","))).expect("numbers")
}

/// For each round the nanoseconds that each contender took for doing it once.
fn samples(contenders: &[Contender]) -> Vec<Vec<f64>> {
    let mut works: Vec<_> = contenders
        .iter()
        .map(|contender| {
            let mut work = (contender.prepare)();
            (times(&mut work), work)
        })
        .collect();
    let rounds = (0..ROUNDS)
        .map(|_| works.iter_mut().map(|(times, work)| work(*times).as_secs_f64() * 1e9 / *times as f64).collect())
        .collect();
    std::mem::forget(works);
    rounds
}

/// How many times it is done in one sample. Warms it up as well.
fn times(work: &mut Work) -> u64 {
    let mut times = 2;
    loop {
        let elapsed = work(times);
        if elapsed >= SAMPLE {
            return (times as f64 * SAMPLE.div_duration_f64(elapsed)) as u64 / 2 * 2 + 2;
        }
        times *= 2;
    }
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<_> = samples.collect();
    let middle = samples.len() / 2;
    *samples.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn readable(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1_000.0 => format!("{n:.2} ns"),
        n if n < 1_000_000.0 => format!("{:.2} us", n / 1_000.0),
        n => format!("{:.2} ms", n / 1_000_000.0),
    }
}
