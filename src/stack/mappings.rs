//! How many kernel mappings the stacks hold, so that they run out of them before the rest of the program does.
//!
//! A process that has used up its mappings cannot start a thread, and its allocator fails. Stacks therefore stop some way
//! before the kernel's limit (`vm.max_map_count`, 65,530 if nobody has raised it), with an error that says what to raise.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::error::Asked;
use super::{Error, system};

/// What the stacks hold. Counting only: no ordering needed.
static USED: AtomicUsize = AtomicUsize::new(0);

/// What they may hold, as last read; zero before the first time.
static ALLOWED: AtomicUsize = AtomicUsize::new(0);

/// Counts mappings that are about to be made for what was asked.
///
/// # Errors
///
/// If the stacks would hold too many. Nothing is counted then.
pub(super) fn take(count: usize, asked: Asked) -> Result<(), Error> {
    let before = USED.fetch_add(count, Ordering::Relaxed);
    if before + count <= ALLOWED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // It is read for the first time now, or may have been raised.
    let limit = system::max_map_count().unwrap_or(usize::MAX);
    let allowed = limit - headroom(limit);
    ALLOWED.store(allowed, Ordering::Relaxed);
    if before + count <= allowed {
        return Ok(());
    }
    give_back(count);
    Err(Error::mapping_limit(before, limit, asked))
}

/// Counts mappings that are gone.
pub(super) fn give_back(count: usize) {
    USED.fetch_sub(count, Ordering::Relaxed);
}

/// How many are counted.
#[cfg(all(test, not(miri)))]
pub(super) fn used() -> usize {
    USED.load(Ordering::Relaxed)
}

/// The error for what was asked and the kernel has refused, if it may have been for lack of mappings.
#[cfg_attr(miri, expect(dead_code, reason = "Miri has no limit of mappings"))]
pub(super) fn exhausted(asked: Asked) -> Option<Error> {
    let used = USED.load(Ordering::Relaxed);
    let limit = system::max_map_count()?;
    // The rest of the program may hold more than its share.
    (used >= limit / 8 * 7).then(|| Error::mapping_limit(used, limit, asked))
}

/// What is left to the rest of the program.
fn headroom(limit: usize) -> usize {
    (limit / 8).min(4096)
}
