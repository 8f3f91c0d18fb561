//! How much is kept for reuse.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

/// How much the pools of the process keep for reuse.
///
/// ```
/// use switchback::stack::Keep;
///
/// // A service that is to look small when it is idle.
/// Keep { resident: 0, cached: 1 << 20, ..Keep::default() }.apply();
/// assert_eq!(Keep::current().cached, 1 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Bytes at the top of a stack that stay its own when it is put into the depot, whether they were touched or not. What
    /// a stack's size commits stays in any case. The default is 16 KiB: what most coroutines touch.
    pub resident: usize,
    /// Bytes that the stacks in the depot of one pool may keep together; the rest keep none. The default is 64 MiB.
    pub cached: usize,
    /// How long a stack lies unused before it moves on: from a shelf to the depot, and from the depot to the system. Each
    /// time, half of what there is moves. The default is a second.
    pub decay: Duration,
}

static RESIDENT: AtomicUsize = AtomicUsize::new(Keep::DEFAULT.resident);
static CACHED: AtomicUsize = AtomicUsize::new(Keep::DEFAULT.cached);
/// In nanoseconds.
static DECAY: AtomicU64 = AtomicU64::new(Keep::DEFAULT.decay.as_secs() * 1_000_000_000);

impl Keep {
    const DEFAULT: Self = Self { resident: 16 * 1024, cached: 64 << 20, decay: Duration::from_secs(1) };

    /// What holds now.
    pub fn current() -> Self {
        Self {
            resident: RESIDENT.load(Ordering::Relaxed),
            cached: CACHED.load(Ordering::Relaxed),
            decay: Duration::from_nanos(DECAY.load(Ordering::Relaxed)),
        }
    }

    /// Lets this hold for every pool from now on. What lies in a depot already keeps what it has until it moves on.
    pub fn apply(self) {
        RESIDENT.store(self.resident, Ordering::Relaxed);
        CACHED.store(self.cached, Ordering::Relaxed);
        DECAY.store(self.decay.as_nanos().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self::DEFAULT
    }
}
