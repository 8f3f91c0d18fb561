//! Sleeping, once or in a beat. [`Duration`] and [`Instant`] are the standard library's.

pub use std::time::{Duration, Instant};

use crate::task::{self, Cancelled};

pub use crate::interval::{Interval, MissedTickBehavior, interval, interval_at};

/// Waits for at least `duration`; the other tasks run meanwhile. On a plain thread it blocks, as [`std::thread::sleep`] does.
///
/// It never ends early but by an error. It ends late by up to a millisecond, the resolution of the worker's clock, and by as
/// long as other tasks keep the worker to themselves. A duration too long for the clock is waited for without end. A zero
/// duration lets the other tasks that are ready run once.
///
/// Costs a timer (logarithmic in the number of timers) and two switches.
///
/// # Errors
///
/// [`Cancelled`] if the task is, or a [`timeout`](crate::timeout) around this has elapsed, before the time is over.
///
/// # Examples
///
/// ```
/// use switchback_runtime::{self as rt, time::{Duration, Instant, sleep}};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let start = Instant::now();
///     let sleepers: Vec<_> = (0..100).map(|_| rt::spawn(|| sleep(Duration::from_millis(20)))).collect();
///     for sleeper in sleepers {
///         sleeper.join().unwrap().unwrap();
///     }
///     assert!(start.elapsed() >= Duration::from_millis(20)); // and not two seconds
/// })
/// # }
/// ```
pub fn sleep(duration: Duration) -> Result<(), Cancelled> {
    match Instant::now().checked_add(duration) {
        Some(deadline) => sleep_until(deadline),
        None => loop {
            task::park_cancellable(None)?;
        },
    }
}

/// Waits until `deadline`, as [`sleep`] does; if it has passed, lets the other tasks that are ready run once.
///
/// # Errors
///
/// As [`sleep`].
///
/// # Examples
///
/// ```
/// use switchback_runtime::{self as rt, time::{Duration, Instant, sleep_until}};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let mut beat = Instant::now();
///     for _ in 0..3 {
///         beat += Duration::from_millis(5); // does not drift, however long the work below takes
///         sleep_until(beat)?;
///     }
///     Ok(())
/// })?
/// # }
/// ```
pub fn sleep_until(deadline: Instant) -> Result<(), Cancelled> {
    if deadline <= Instant::now() {
        task::cancel::check_cancelled()?;
        task::yield_now();
        return Ok(());
    }
    while Instant::now() < deadline {
        task::park_cancellable(Some(deadline))?;
    }
    Ok(())
}
