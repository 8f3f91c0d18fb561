//! How large a stack is: what it may use, what it has from the start, and what faults below it.

use super::{DEFAULT_RESERVE, Error, LEAST_FREE, guard_size, system};

/// How large a stack is to be, in bytes. Each part is rounded up to whole pages (4, 16 or 64 KiB, as the system has it).
///
/// A number alone is a reserve: what takes a `StackSize` takes `1024 * 1024` as well.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::stack::{Mapped, StackSize};
///
/// // Foreign code with frames of up to a megabyte, which does not touch them page by page.
/// let size = StackSize { reserve: 8 << 20, guard: 1 << 20, ..StackSize::default() };
/// let stack = Mapped::new(size)?;
/// assert_eq!(stack.reserve(), 8 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StackSize {
    /// Usable bytes: address space, which becomes memory page by page as it is touched. All of it can be used.
    ///
    /// The default is [`DEFAULT_RESERVE`].
    pub reserve: usize,
    /// Bytes at the top that are memory from the start, so that touching them costs no page fault. No more than the
    /// reserve counts.
    ///
    /// The default is 0: a page fault is cheaper than memory that is not used. With it, running out of memory shows when
    /// the stack is made rather than when it is used.
    pub commit: usize,
    /// Bytes below the stack that fault when touched. Less than [`guard_size`] counts as that: the compiler vouches for no
    /// less.
    ///
    /// A single frame that is larger than the guard, and whose near end is not touched first, can pass it: on targets
    /// where the compiler does not probe the pages of a large frame (arm, riscv64, loongarch64), and in code of other
    /// compilers. Address space is all that a larger one costs, and with guard regions 8 bytes of page table a page.
    pub guard: usize,
}

impl Default for StackSize {
    /// [`DEFAULT_RESERVE`], nothing resident, and the least guard.
    fn default() -> Self {
        Self { reserve: DEFAULT_RESERVE, commit: 0, guard: 0 }
    }
}

impl From<usize> for StackSize {
    /// So many usable bytes, the rest as by default.
    fn from(reserve: usize) -> Self {
        Self { reserve, ..Self::default() }
    }
}

impl StackSize {
    /// In whole pages: what is then mapped.
    pub(super) fn in_pages(self) -> Result<Self, Error> {
        if self.reserve == 0 {
            return Err(Error::too_small(0, LEAST_FREE));
        }
        let page = system::page_size();
        let pages = |bytes: usize| bytes.checked_next_multiple_of(page).ok_or(Error::too_large(bytes));
        let reserve = pages(self.reserve)?;
        let guard = pages(self.guard.max(guard_size()))?;
        // No object may exceed isize::MAX bytes.
        match reserve.checked_add(guard) {
            Some(all) if isize::try_from(all).is_ok() => {
                Ok(Self { reserve, commit: pages(self.commit.min(reserve))?, guard })
            }
            _ => Err(Error::too_large(self.reserve)),
        }
    }

    /// Stack and guard, once in whole pages.
    pub(super) fn all(self) -> usize {
        self.guard + self.reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_rounded_up_to_whole_pages_and_the_guard_to_the_least() {
        let page = system::page_size();
        let size =
            StackSize { reserve: page + 1, commit: 1, guard: guard_size() + 1 }.in_pages().expect("it makes sense");
        assert_eq!(size, StackSize { reserve: 2 * page, commit: page, guard: guard_size() + page });
        let least = StackSize::from(1).in_pages().expect("it makes sense");
        assert_eq!(least, StackSize { reserve: page, commit: 0, guard: guard_size() });
        assert_eq!(least.in_pages(), Ok(least), "twice is once");
        let committed = StackSize { commit: usize::MAX, ..least }.in_pages().expect("no more than the reserve counts");
        assert_eq!(committed.commit, page);
    }

    #[test]
    fn what_exceeds_the_address_space_is_refused() {
        let half = usize::MAX / 2;
        for size in [StackSize::from(usize::MAX), StackSize::from(half), StackSize { guard: half, ..1.into() }] {
            let error = size.in_pages().expect_err("no object is so large");
            assert!(error.to_string().contains("exceeds the address space"), "{error}");
        }
        assert!(StackSize::from(0).in_pages().is_err_and(|error| error.to_string().contains("too small")));
    }
}
