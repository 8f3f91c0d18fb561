//! How many sleeping coroutines does this machine hold, and what does each cost?
//!
//! ```text
//! cargo run --release --example sleepers -- 10000 10
//! ```
//!
//! Starts N coroutines that each sleep the given number of seconds, waits for all, and prints what they took. If N is
//! more than the machine allows, it says which limit was met.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::ExitCode;

use switchback_runtime::time::{Duration, Instant, sleep};
use switchback_runtime::{self as rt, JoinError, JoinHandle};

const USAGE: &str = "\
usage: sleepers N SECONDS

  N         how many coroutines to start, 1 or more
  SECONDS   how long each sleeps; fractions allowed";

/// Coroutines started before they are let run, so that the first one that gets no stack shows soon.
const BATCH: usize = 256;

/// How often the progress line is renewed: often for a terminal, rarely for a file.
const TERMINAL_PERIOD: Duration = Duration::from_millis(100);
const FILE_PERIOD: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    if let [flag] = &arguments[..]
        && (flag == "--help" || flag == "-h")
    {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (count, nap) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(mistake) => {
            eprintln!("sleepers: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let report = match rt::run(|| measure(count, nap)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return fail(&error),
        Err(error) => return fail(&error.to_string()),
    };
    match io::stdout().write_all(report.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot print the result: {error}")),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("sleepers: {error}");
    ExitCode::FAILURE
}

fn parse(arguments: &[String]) -> Result<(usize, Duration), String> {
    let [count, seconds] = arguments else {
        return Err(format!("two arguments are needed, and {} were given", arguments.len()));
    };
    let count = match count.replace('_', "").parse() {
        Ok(count) if count > 0 => count,
        _ => return Err(format!("N must be a whole number, 1 or more, not '{count}'")),
    };
    let nap = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let nap = nap.ok_or_else(|| format!("SECONDS must be a number from 0 to 1e19, not '{seconds}'"))?;
    Ok((count, nap))
}

/// Starts `count` sleepers, waits for them, and tells what they cost.
fn measure(count: usize, nap: Duration) -> Result<String, String> {
    let mut sleepers: Vec<JoinHandle<Result<(), rt::Cancelled>>> = Vec::new();
    sleepers
        .try_reserve_exact(count)
        .map_err(|_| format!("no memory for the handles of {count} coroutines: ask for fewer"))?;
    let before = Footprint::now();
    let start = Instant::now();
    let progress = Progress::start(count, start);

    let mut begun = 0;
    while begun < count {
        let first = sleepers.len();
        let batch = BATCH.min(count - begun);
        sleepers.extend((0..batch).map(|_| rt::spawn(move || sleep(nap))));
        begun += batch;
        rt::yield_now();
        // One that is over already got no stack, or slept for a very short time.
        let mut next = first;
        while next < sleepers.len() {
            if sleepers[next].is_finished() {
                sleepers
                    .swap_remove(next)
                    .join()
                    .map_err(|error| refusal(&error))?
                    .map_err(|cancelled| cancelled.to_string())?;
            } else {
                next += 1;
            }
        }
    }
    // Those that were taken by other workers may not have begun yet. All have when each has a timer, or is over.
    while rt::metrics().is_some_and(|now| now.timers + (now.completed as usize) < count) {
        rt::yield_now();
    }
    let started = start.elapsed();
    let peak = Footprint::now();

    for sleeper in sleepers {
        sleeper.join().map_err(|error| refusal(&error))?.map_err(|cancelled| cancelled.to_string())?;
    }
    let wall = start.elapsed();
    let resident = Footprint::now().resident;
    drop(progress);

    let mut report = String::new();
    let each = |total: Option<u64>, before: Option<u64>| {
        let (total, before) = (total?, before?);
        Some((total.saturating_sub(before), total.saturating_sub(before) as f64 / count as f64))
    };
    let _ = writeln!(report, "coroutines          {count} (each slept {nap:?})");
    let _ = writeln!(
        report,
        "wall time           {:.3} s (all started after {:.3} s)",
        wall.as_secs_f64(),
        started.as_secs_f64()
    );
    match each(resident, before.resident) {
        Some((total, each)) => {
            let _ = writeln!(report, "peak resident bytes {total}, {each:.0} per coroutine");
        }
        None => report.push_str("peak resident bytes not told by this system\n"),
    }
    match each(peak.mappings, before.mappings) {
        Some((total, each)) => {
            let _ = writeln!(report, "mappings            {total}, {each:.3} per coroutine");
        }
        None => report.push_str("mappings            not told by this system\n"),
    }
    Ok(report)
}

fn refusal(error: &JoinError) -> String {
    match rt::metrics() {
        Some(now) => format!("{error} (beside {} coroutines that have one)", now.stacks),
        None => error.to_string(),
    }
}

/// What the process holds, as far as `/proc` tells.
struct Footprint {
    /// The most bytes that were ever resident.
    resident: Option<u64>,
    mappings: Option<u64>,
}

impl Footprint {
    fn now() -> Footprint {
        Footprint { resident: peak_resident(), mappings: mappings() }
    }
}

fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn mappings() -> Option<u64> {
    // Line by line: with many mappings the file is long, and memory may be what is short.
    let mut maps = BufReader::new(File::open("/proc/self/maps").ok()?);
    let mut line = Vec::new();
    let mut count = 0;
    while maps.read_until(b'\n', &mut line).ok()? > 0 {
        count += 1;
        line.clear();
    }
    Some(count)
}

/// A coroutine beside the sleepers that tells how far they are. It ends when this is dropped.
struct Progress {
    shown: bool,
}

impl Progress {
    fn start(count: usize, start: Instant) -> Progress {
        let terminal = io::stderr().is_terminal();
        rt::spawn(move || {
            while sleep(if terminal { TERMINAL_PERIOD } else { FILE_PERIOD }).is_ok() {
                let Some(now) = rt::metrics() else { return };
                // The first task and this one are not sleepers.
                let (spawned, alive) = (now.spawned.saturating_sub(2), now.tasks.saturating_sub(2));
                let line = format!(
                    "{:6.1} s: {spawned} of {count} started, {alive} asleep, {} stacks",
                    start.elapsed().as_secs_f64(),
                    now.stacks
                );
                // Nobody to read it is no reason to stop.
                let _ = match terminal {
                    true => write!(io::stderr(), "\r{line}\x1b[K"),
                    false => writeln!(io::stderr(), "{line}"),
                };
            }
        });
        Progress { shown: terminal }
    }
}

impl Drop for Progress {
    /// Clears the line for what comes next.
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
