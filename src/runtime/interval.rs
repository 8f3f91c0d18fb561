//! A beat: points in time at equal distances, waited for one after the other.

use std::time::{Duration, Instant};

use crate::task::Cancelled;
use crate::time::sleep_until;

/// A beat that begins now: the first tick comes at once, each of the others `period` after the one before.
///
/// Names and behaviour are tokio's, but that a period of zero is allowed: its ticks come at once, after the other tasks that are ready.
///
/// # Examples
///
/// ```
/// use switchback_runtime::{self as rt, time::{Duration, Instant, interval}};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let start = Instant::now();
///     let mut beat = interval(Duration::from_millis(2));
///     for _ in 0..4 {
///         beat.tick()?;
///     }
///     assert!(start.elapsed() >= Duration::from_millis(6));
///     Ok(())
/// })?
/// # }
/// ```
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// As [`interval`], with the first tick at `start`.
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    Interval { next: Some(start), period, missed: MissedTickBehavior::default() }
}

/// What happens after a tick that nobody waited for in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// The ticks that were missed come at once, one after the other, until the beat has been caught up with: their number is right in
    /// the end.
    #[default]
    Burst,
    /// The beat is shifted: the next tick comes a period after the late one was had.
    Delay,
    /// Ticks that were missed are left out: the next one is the next of the beat as it was.
    Skip,
}

/// Made by [`interval`].
#[derive(Clone, Debug)]
pub struct Interval {
    /// `None` if that is beyond the range of the clock.
    next: Option<Instant>,
    period: Duration,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick, and returns when it was due. Never comes early.
    ///
    /// Costs what [`sleep_until`] costs.
    ///
    /// # Errors
    ///
    /// [`Cancelled`]: the tick is not lost, the next call waits for it.
    pub fn tick(&mut self) -> Result<Instant, Cancelled> {
        let Some(due) = self.next else {
            loop {
                crate::task::park_cancellable(None)?;
            }
        };
        sleep_until(due)?;
        self.next = self.after(due, Instant::now());
        Ok(due)
    }

    /// The tick that follows one that was due, and had now.
    fn after(&self, due: Instant, now: Instant) -> Option<Instant> {
        let next = due.checked_add(self.period)?;
        if now <= next {
            return Some(next);
        }
        match self.missed {
            MissedTickBehavior::Burst => Some(next),
            MissedTickBehavior::Delay => now.checked_add(self.period),
            MissedTickBehavior::Skip => {
                // How far the beat's next tick is from now.
                let since = (now - due).as_nanos().checked_rem(self.period.as_nanos()).unwrap_or(0);
                // Less than the period, and so in range; a period that was missed is no longer than this program runs.
                let since = Duration::from_nanos(u64::try_from(since).unwrap_or(0));
                now.checked_add(self.period - since)
            }
        }
    }

    /// From now on a tick comes a period after this call, then the next a period later.
    pub fn reset(&mut self) {
        self.next = Instant::now().checked_add(self.period);
    }

    /// The distance of the ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// What happens after a tick that was missed.
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed
    }

    /// Sets what happens after a tick that was missed.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_follows_a_tick_that_was_had_in_time_or_late() {
        let start = Instant::now();
        let of = |missed| Interval { missed, ..interval_at(start, 10 * MS) };
        // In milliseconds: when a tick was had that was due at 20, and when the next is due then.
        let cases = [
            (MissedTickBehavior::Burst, [(20, 30), (29, 30), (30, 30), (31, 30), (75, 30)]),
            (MissedTickBehavior::Delay, [(20, 30), (29, 30), (30, 30), (31, 41), (75, 85)]),
            (MissedTickBehavior::Skip, [(20, 30), (29, 30), (30, 30), (31, 40), (75, 80)]),
        ];
        for (missed, times) in cases {
            for (had, next) in times {
                let after = of(missed).after(start + 20 * MS, start + had * MS).unwrap();
                assert_eq!(after - start, next * MS, "{missed:?}, had at {had}");
            }
        }
    }

    #[test]
    fn periods_of_nothing_and_of_for_ever_are_no_trouble() {
        let start = Instant::now();
        for missed in [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip] {
            let nothing = Interval { missed, ..interval_at(start, Duration::ZERO) };
            assert!(nothing.after(start, start + MS).unwrap() <= start + MS);
            let for_ever = Interval { missed, ..interval_at(start, Duration::MAX) };
            assert_eq!(for_ever.after(start, start + MS), None);
        }
    }

    #[test]
    fn a_tick_is_not_lost_by_a_cancelled_wait_and_never_early() {
        let mut beat = interval_at(Instant::now() + Duration::from_secs(3600), MS);
        let first = beat.next;
        assert!(crate::timeout(MS, || beat.tick()).is_err());
        assert_eq!(beat.next, first);
        beat.next = Some(Instant::now() + 2 * MS);
        let due = beat.tick().unwrap();
        assert!(Instant::now() >= due);
        beat.period = Duration::MAX;
        beat.reset();
        assert!(crate::timeout(MS, || beat.tick()).unwrap_err().into_inner().is_err(), "it waits for ever");
    }
}
