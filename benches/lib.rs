//! What the benchmarks are made of.
//!
//! A [`Job`] is done by us and by others, each of which implements the traits of [`peers`]; [`jobs`] are written once for
//! all of them. [`timing`] measures how long a job takes, the bench target `instructions` how many instructions;
//! [`alive`] counts how many of a kind there can be.

use std::time::{Duration, Instant};

pub mod alive;
pub mod jobs;
pub mod peers;
pub mod slots;
pub mod timing;

/// One job, and who does it.
pub struct Job {
    /// What is done, as the tables name it.
    pub name: &'static str,
    /// Who does it: ourselves, and then those that we compare with.
    pub contenders: &'static [Contender],
}

/// One who does a job.
pub struct Contender {
    /// As the tables name it.
    pub name: &'static str,
    /// Makes everything ready that is not part of the job.
    pub prepare: fn() -> Work,
}

/// Does a job this many times and says how long that took, apart from what it had to do before and after.
///
/// It is not dropped but forgotten, so that nobody unwinds its coroutines.
pub type Work = Box<dyn FnMut(u64) -> Duration>;

/// Does this many times what lasts too short a time to be measured alone.
#[inline]
pub fn repeat(times: u64, mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    start.elapsed()
}

/// The argument by which the user chooses: only jobs whose name contains it are measured.
pub fn filter() -> String {
    std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default()
}
