//! How much of a stack has been used.

use super::system::With;
use super::{Stack, system};

/// What [`usage`] has found, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Memory that the stack holds now, in whole pages.
    pub resident: usize,
    /// From the top down to the lowest page that holds any: how deep the stack was at its deepest, rounded up to whole
    /// pages. Pages that were given back meanwhile, as a [`Pool`](super::Pool) does between one user of a stack and the
    /// next, count no more.
    pub deepest: usize,
}

/// How much of a stack has been used, as the system's page tables tell; `None` if it does not say.
///
/// For choosing a [`StackSize`](super::StackSize), not for hot paths. Exact to the page, and whatever runs there goes on as
/// before: it may be asked of a stack that a suspended coroutine is on, from anywhere, or from a coroutine of its own stack
/// by the value it keeps. A page that was only read counts as well.
///
/// On Linux three system calls (`PAGEMAP_SCAN`), or one for each megabyte (`mincore`) before Linux 6.7, which does not
/// count what was swapped out.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::stack::{Mapped, usage};
/// use switchback::on_stack;
///
/// let mut stack = Mapped::new(1 << 20)?;
/// on_stack(&mut stack, || std::hint::black_box([1_u8; 300_000]).len());
/// if let Some(usage) = usage(&stack) {
///     assert!(usage.deepest >= 300_000 && usage.resident <= usage.deepest);
/// }
/// # Ok(())
/// # }
/// ```
pub fn usage(stack: &impl Stack) -> Option<Usage> {
    let (limit, top) = (stack.limit().addr().get(), stack.top().addr().get());
    let page = system::page_size();
    let start = limit / page * page;
    let mut usage = Usage { resident: 0, deepest: 0 };
    system::pages(With::Contents, start..top.next_multiple_of(page), |pages| {
        let pages = pages.start.max(limit)..pages.end.min(top);
        usage.resident += pages.len();
        usage.deepest = usage.deepest.max(top - pages.start);
    })?;
    Some(usage)
}
