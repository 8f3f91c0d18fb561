//! The figures of a running server: `/status` for people, `/status.json` for programs.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use switchback_runtime as rt;
use switchback_runtime::time::{Duration, Instant};

use super::{Shared, lock};

/// The page; it asks for `/status.json` once a second and draws what it gets.
pub const PAGE: &str = include_str!("status.html");

/// How often the figures are written down, and so what "a second" is in them.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many of them are kept: two minutes.
const KEPT: usize = 120;

/// What is counted from the start.
pub struct Counts {
    started: Instant,
    /// The resident set when the server began to listen.
    resident_at_start: Option<u64>,
    pub accepted: AtomicU64,
    pub requests: AtomicU64,
    /// Bytes of answers, heads among them.
    pub sent: AtomicU64,
    history: Mutex<VecDeque<Sample>>,
}

impl Counts {
    pub fn new() -> Counts {
        Counts {
            started: Instant::now(),
            resident_at_start: resident(),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            history: Mutex::default(),
        }
    }
}

/// The figures of one moment.
#[derive(Clone, Copy)]
struct Sample {
    /// Over the interval that ends at this moment.
    requests_per_second: f64,
    connections: usize,
    tasks: usize,
    stacks: usize,
    stacks_cached: usize,
    /// Bytes of this process's memory that are in RAM; `None` where /proc is not mounted.
    resident: Option<u64>,
    /// What `resident` has grown by since the start, divided by `tasks`.
    resident_per_task: Option<u64>,
}

impl Sample {
    fn take(shared: &Shared, requests_per_second: f64) -> Sample {
        let (tasks, stacks, stacks_cached) =
            rt::metrics().map_or((0, 0, 0), |metrics| (metrics.tasks, metrics.stacks, metrics.stacks_cached));
        let resident = resident();
        let resident_per_task = match (resident, shared.counts.resident_at_start) {
            (Some(now), Some(start)) => now.saturating_sub(start).checked_div(tasks as u64),
            _ => None,
        };
        let connections = lock(&shared.peers).len();
        Sample { requests_per_second, connections, tasks, stacks, stacks_cached, resident, resident_per_task }
    }
}

/// Writes the figures down once an interval, for as long as the runtime lives.
pub fn sample(shared: &Shared) {
    let mut last = (Instant::now(), 0);
    while rt::time::sleep(INTERVAL).is_ok() {
        let (now, requests) = (Instant::now(), shared.counts.requests.load(Ordering::Relaxed));
        let rate = (requests - last.1) as f64 / (now - last.0).as_secs_f64();
        last = (now, requests);
        let sample = Sample::take(shared, rate);
        let mut history = lock(&shared.counts.history);
        if history.len() == KEPT {
            history.pop_front();
        }
        history.push_back(sample);
    }
}

/// All figures as they are now, and those of the last two minutes.
pub fn json(shared: &Shared) -> String {
    let counts = &shared.counts;
    let history = lock(&counts.history).clone();
    let now = Sample::take(shared, history.back().map_or(0.0, |sample| sample.requests_per_second));
    let mut json = String::with_capacity(8 * 1024);
    let _ = write!(
        json,
        "{{\"architecture\":\"{}\",\"uptime_seconds\":{:.1},\
         \"connections\":{},\"connections_accepted\":{},\
         \"requests\":{},\"requests_per_second\":{:.1},\"bytes_sent\":{},\
         \"tasks\":{},\"stacks\":{},\"stacks_cached\":{},\
         \"resident_bytes\":{},\"resident_bytes_at_start\":{},\"resident_bytes_per_task\":{},\
         \"history\":{{\"interval_seconds\":{},",
        std::env::consts::ARCH,
        counts.started.elapsed().as_secs_f64(),
        now.connections,
        counts.accepted.load(Ordering::Relaxed),
        counts.requests.load(Ordering::Relaxed),
        now.requests_per_second,
        counts.sent.load(Ordering::Relaxed),
        now.tasks,
        now.stacks,
        now.stacks_cached,
        number(now.resident),
        number(counts.resident_at_start),
        number(now.resident_per_task),
        INTERVAL.as_secs(),
    );
    column(&mut json, "requests_per_second", &history, |sample| format!("{:.1}", sample.requests_per_second));
    json.push(',');
    column(&mut json, "connections", &history, |sample| sample.connections.to_string());
    json.push(',');
    column(&mut json, "tasks", &history, |sample| sample.tasks.to_string());
    json.push(',');
    column(&mut json, "stacks", &history, |sample| sample.stacks.to_string());
    json.push(',');
    column(&mut json, "resident_bytes_per_task", &history, |sample| number(sample.resident_per_task));
    json.push_str("}}\n");
    json
}

fn column(json: &mut String, name: &str, history: &VecDeque<Sample>, value: impl Fn(&Sample) -> String) {
    let values: Vec<String> = history.iter().map(value).collect();
    let _ = write!(json, "\"{name}\":[{}]", values.join(","));
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "null".into(), |value| value.to_string())
}

/// The resident set of this process in bytes, as the kernel counts it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
