//! A million coroutines alive at once, each suspended on a guarded stack of its own: what they cost.
//!
//! ```sh
//! cargo run --release --example million_stacks
//! cargo run --release --example million_stacks -- 100000
//! ```
//!
//! Linux tells the figures; elsewhere only the time is known. With `SWITCHBACK_GUARD=protection`, as before Linux 6.13, it
//! ends where the kernel's mappings do, with an error that names the limit.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use switchback::stack::{Error, Pool, Pooled, guard_kind};
use switchback::{Coroutine, Resumed, Yielder};

/// Bytes of stack, of which each of them touches a page.
const SIZE: usize = 64 * 1024;

fn main() -> ExitCode {
    let count = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse());
    let Ok(count) = count else {
        eprintln!("usage: million_stacks [COUNT]");
        return ExitCode::from(2);
    };
    let mut coroutines = Vec::new();
    if coroutines.try_reserve_exact(count).is_err() {
        eprintln!("million_stacks: no memory for {count} coroutines");
        return ExitCode::FAILURE;
    }
    let before = Footprint::now();
    let start = Instant::now();
    let answer = start_all(&mut coroutines, count);
    let started = start.elapsed();
    let alive = Footprint::now();
    println!("coroutines alive     {} on stacks of {SIZE} bytes", coroutines.len());
    println!("guarded by           {:?}", guard_kind());
    each("to start one", started.as_nanos(), coroutines.len(), "ns");
    each("resident memory", alive.resident.saturating_sub(before.resident).into(), coroutines.len(), "bytes each");
    each("page tables", alive.page_tables.saturating_sub(before.page_tables).into(), coroutines.len(), "bytes each");
    println!("mappings             {} more than before", alive.mappings.saturating_sub(before.mappings));
    if let Err(error) = answer {
        eprintln!("million_stacks: {error}");
        return ExitCode::FAILURE;
    }
    let start = Instant::now();
    let right = coroutines.iter_mut().enumerate().all(|(n, coroutine)| coroutine.resume(1) == Resumed::Returned(n + 1));
    each("to end one", start.elapsed().as_nanos(), count, "ns");
    assert!(right, "each has its own number");
    let start = Instant::now();
    drop(coroutines);
    if let Ok(pool) = Pool::of(SIZE) {
        pool.trim();
    }
    println!("to give all back     {:.3} s", start.elapsed().as_secs_f64());
    let after = Footprint::now();
    println!("resident afterwards  {} bytes more than before", after.resident.saturating_sub(before.resident));
    ExitCode::SUCCESS
}

type Numbered = Coroutine<usize, (), usize, Pooled>;

/// Starts coroutines until there are so many. Each waits with its number for another one.
fn start_all(coroutines: &mut Vec<Numbered>, count: usize) -> Result<(), Error> {
    let pool = Pool::of(SIZE)?;
    while coroutines.len() < count {
        let number = |yielder: &Yielder<usize, ()>, number| number + yielder.suspend(());
        let mut coroutine = Coroutine::with_stack(pool.take()?, number)?;
        let suspended = coroutine.resume(coroutines.len());
        debug_assert_eq!(suspended, Resumed::Yielded(()));
        coroutines.push(coroutine);
    }
    Ok(())
}

fn each(what: &str, total: u128, count: usize, unit: &str) {
    println!("{what:20} {} {unit}", total / count.max(1) as u128);
}

/// What the process holds, as far as the system tells.
#[derive(Default)]
struct Footprint {
    resident: u64,
    page_tables: u64,
    mappings: u64,
}

impl Footprint {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
        };
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self {
            resident: bytes("VmRSS").unwrap_or_default(),
            page_tables: bytes("VmPTE").unwrap_or_default(),
            mappings: maps.lines().count() as u64,
        }
    }
}
