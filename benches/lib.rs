//! What the benchmarks share: one way to run them, and the table of ratios printed at the end.
//!
//! A benchmark named `group/who` measures the same job done by `who`. When all have run, the medians that criterion
//! wrote are put side by side: ours, and each peer's, with the ratio ours / theirs.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use criterion::Criterion;

/// The name under which our own measurements run in every group.
pub const OURS: &str = "switchback";

/// Runs benchmarks and prints the table. Command line arguments are criterion's.
///
/// `directory` is where cargo lets a benchmark write: pass `env!("CARGO_TARGET_TMPDIR")`.
pub fn run(directory: &str, groups: &[fn(&mut Criterion)]) {
    let directory = Path::new(directory).with_file_name("criterion");
    let start = SystemTime::now();
    let mut criterion = Criterion::default()
        .output_directory(&directory)
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for group in groups {
        group(&mut criterion);
    }
    criterion.final_summary();
    print_table(&measured_since(&directory, start));
}

/// The median of one benchmark, in nanoseconds.
struct Median {
    group: String,
    who: String,
    nanoseconds: f64,
}

/// What criterion wrote under `directory` since `start`.
fn measured_since(directory: &Path, start: SystemTime) -> Vec<Median> {
    let mut medians = Vec::new();
    for group in folders(directory) {
        for who in folders(&group) {
            let estimates = who.join("new").join("estimates.json");
            let fresh = estimates.metadata().and_then(|file| file.modified()).is_ok_and(|time| time >= start);
            if let Some(nanoseconds) = fresh.then(|| median(&estimates)).flatten() {
                medians.push(Median { group: name(&group), who: name(&who), nanoseconds });
            }
        }
    }
    medians.sort_by(|a, b| (&a.group, a.who != OURS, &a.who).cmp(&(&b.group, b.who != OURS, &b.who)));
    medians
}

fn median(estimates: &Path) -> Option<f64> {
    let text = std::fs::read(estimates).ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?["median"]["point_estimate"].as_f64()
}

fn folders(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn print_table(medians: &[Median]) {
    if medians.is_empty() {
        return;
    }
    println!("\n| what | {OURS} | peer | ratio, ours / peer |\n|---|---|---|---|");
    for ours in medians.iter().filter(|median| median.who == OURS) {
        for peer in medians.iter().filter(|median| median.group == ours.group && median.who != OURS) {
            println!(
                "| {} | {} | {} {} | {:.2} |",
                ours.group,
                readable(ours.nanoseconds),
                peer.who,
                readable(peer.nanoseconds),
                ours.nanoseconds / peer.nanoseconds,
            );
        }
    }
}

fn readable(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1_000.0 => format!("{n:.2} ns"),
        n if n < 1_000_000.0 => format!("{:.2} us", n / 1_000.0),
        n => format!("{:.2} ms", n / 1_000_000.0),
    }
}
