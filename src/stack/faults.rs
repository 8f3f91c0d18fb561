//! For tests: system calls that are refused on request.

use core::cell::Cell;

/// Which call of this thread is to be refused, and how many there have been.
#[derive(Clone, Copy)]
struct Plan {
    /// Counted from 0; none is refused if there are fewer.
    nth: usize,
    /// Whether all that follow are refused as well.
    for_good: bool,
    calls: usize,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
}

/// Runs `f` with the n-th system call of this thread refused, and perhaps all after it. Answers how many calls were tried
/// as well.
pub(super) fn with_refused<T>(nth: usize, for_good: bool, f: impl FnOnce() -> T) -> (T, usize) {
    PLAN.set(Some(Plan { nth, for_good, calls: 0 }));
    let value = f();
    let calls = PLAN.take().map_or(0, |plan| plan.calls);
    (value, calls)
}

/// Whether the call that is about to be made is refused, and with which number.
pub(super) fn next(_call: &'static str) -> Option<i32> {
    let plan = PLAN.get()?;
    PLAN.set(Some(Plan { calls: plan.calls + 1, ..plan }));
    let refused = plan.calls == plan.nth || plan.for_good && plan.calls > plan.nth;
    refused.then_some(libc::ENOMEM)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::with_refused;
    use crate::stack::{Error, Mapped, Pool, StackSize, guard_kind};
    use std::fmt::Write;

    /// More calls than any of the runs makes.
    const ENOUGH: usize = 1000;

    /// Runs this with each of its system calls refused, alone and with all that follow. Whatever happens, what `after` says
    /// holds. Answers how many points were tried.
    fn refuse_each<T>(run: impl Fn() -> Result<T, Error>, after: impl Fn()) -> usize {
        // Found out once a process, which is not to be refused.
        guard_kind();
        let mut tried = 0;
        for for_good in [false, true] {
            for nth in 0..ENOUGH {
                let (answer, calls) = with_refused(nth, for_good, &run);
                if calls <= nth {
                    assert!(answer.is_ok(), "nothing was refused");
                    break;
                }
                tried += 1;
                if let Err(error) = answer {
                    let mut sentence = String::new();
                    write!(sentence, "{error}").expect("room");
                    assert!(!sentence.is_empty());
                }
                after();
            }
        }
        tried
    }

    #[test]
    fn a_mapped_stack_is_had_or_refused_whichever_call_fails() {
        let size = StackSize { commit: 4096, ..StackSize::default() };
        let is_usable = |stack: &Mapped| {
            // SAFETY: the ends of a stack on which nothing runs.
            unsafe {
                stack.limit.write(1);
                stack.limit.add(stack.reserve() - 1).write(1);
            }
        };
        let tried = refuse_each(
            || Mapped::new(size).map(|stack| is_usable(&stack)),
            || is_usable(&Mapped::new(size).expect("nothing is refused any more")),
        );
        println!("{tried} points tried");
        assert!(tried >= 6, "mmap, madvise or mprotect, munmap: {tried}");
    }

    #[test]
    fn a_row_that_cannot_be_unmapped_stays_and_serves() {
        let pool = Pool::of(StackSize { guard: 1_100_000, ..StackSize::default() }).expect("a pool");
        drop(pool.take().expect("a stack"));
        let mapped = pool.stats().mapped;
        // All calls, of which the last unmaps the row.
        with_refused(0, true, || pool.trim());
        assert_eq!(pool.stats().mapped, mapped);
        drop(pool.take().expect("a stack"));
        assert_eq!(pool.stats().mapped, mapped, "of the row that is there");
        pool.trim();
        assert_eq!(pool.stats().mapped, 0);
    }

    #[test]
    fn a_pool_gives_stacks_or_refuses_whichever_call_fails_and_counts_right() {
        let guard = 1_000_000;
        let pool = Pool::of(StackSize { reserve: 32 * 1024, commit: 4096, guard }).expect("a pool");
        let held = pool.take().expect("a stack");
        let in_use = || pool.stats().in_use;
        let tried = refuse_each(
            || {
                // Old ones, new ones and ones that were given back; more than a shelf holds.
                let mut stacks = Vec::new();
                for _ in 0..2 {
                    let mut refused = None;
                    for _ in 0..70 {
                        match pool.take() {
                            Ok(stack) => stacks.push(stack),
                            Err(error) => refused = Some(error),
                        }
                    }
                    assert_eq!(in_use(), stacks.len() + 1);
                    for stack in &stacks {
                        use crate::stack::Stack;
                        // SAFETY: the ends of a stack on which nothing runs.
                        unsafe {
                            stack.limit().write(1);
                            stack.top().sub(1).write(1);
                        }
                    }
                    stacks.clear();
                    pool.trim();
                    if let Some(error) = refused {
                        return Err(error);
                    }
                }
                Ok(())
            },
            || assert_eq!(in_use(), 1, "the one that is held"),
        );
        println!("{tried} points tried");
        assert!(tried > 20, "{tried}");
        drop(held);
    }
}
