//! For tests: system calls that are refused on request, and a list of those that were tried.

use core::cell::RefCell;

/// Which call of this thread is to be refused, and those that were tried.
struct Plan {
    /// Counted from 0; none is refused if there are fewer.
    nth: usize,
    /// Whether all that follow are refused as well.
    for_good: bool,
    /// Chooses the error numbers.
    seed: usize,
    calls: Vec<&'static str>,
}

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// As many seeds as there are error numbers for a call: with all of them each call is refused with each of its numbers. With
/// one, calls in a row are refused with one number after the other.
const SEEDS: usize = 8;

/// The error numbers that Linux has for a call when it is one of ours, the most likely first.
fn error_numbers(call: &'static str) -> &'static [i32] {
    match call {
        "mmap" => &[libc::ENOMEM, libc::EAGAIN, libc::EINVAL, libc::EPERM],
        "mprotect" => &[libc::ENOMEM, libc::EACCES, libc::EINVAL, libc::EPERM],
        "madvise" => &[libc::ENOMEM, libc::EAGAIN, libc::EINVAL, libc::EPERM, libc::EFAULT],
        "process_madvise" => &[
            libc::ENOMEM,
            libc::ENOSYS,
            libc::EBADF,
            libc::EINVAL,
            libc::EPERM,
            libc::ESRCH,
            libc::EFAULT,
            libc::EINTR,
        ],
        "munmap" => &[libc::ENOMEM, libc::EINVAL],
        _ => unreachable!("{call} has no error numbers here"),
    }
}

/// Runs `f` with the n-th system call of this thread refused, and perhaps all after it. Answers which calls were tried as
/// well.
pub(super) fn with_refused<T>(
    nth: usize,
    for_good: bool,
    seed: usize,
    f: impl FnOnce() -> T,
) -> (T, Vec<&'static str>) {
    PLAN.set(Some(Plan { nth, for_good, seed, calls: Vec::new() }));
    let value = f();
    (value, PLAN.take().map_or(Vec::new(), |plan| plan.calls))
}

/// Whether the call that is about to be made is refused, and with which number.
pub(super) fn next(call: &'static str) -> Option<i32> {
    // A thread that is ending has no plan any more.
    let refuse = |plan: &RefCell<Option<Plan>>| {
        let mut plan = plan.borrow_mut();
        let plan = plan.as_mut()?;
        let number = plan.calls.len();
        plan.calls.push(call);
        let errors = error_numbers(call);
        let refused = number == plan.nth || plan.for_good && number > plan.nth;
        refused.then(|| errors[(plan.seed + number) % errors.len()])
    };
    PLAN.try_with(refuse).ok()?
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;
    use core::sync::atomic::Ordering;
    use std::collections::BTreeMap;
    use std::process::Command;
    use std::sync::{Mutex, PoisonError};

    use super::{SEEDS, with_refused};
    use crate::stack::{Error, GuardKind, Mapped, Pool, Slab, Stack, StackSize, guard_kind, mappings, system};

    /// More calls than any of the runs makes.
    const ENOUGH: usize = 1000;

    /// A refusal can change for the whole process how the system is asked: see [`system::AT_ONCE`].
    static REFUSING: Mutex<()> = Mutex::new(());

    /// Runs this with each of its system calls refused, alone and with all that follow, for each of so many seeds.
    /// Whatever happens, what `after` says holds. Answers how many points were tried.
    fn refuse_each<T>(seeds: usize, run: impl Fn() -> Result<T, Error>, after: impl Fn()) -> usize {
        let _alone = REFUSING.lock().unwrap_or_else(PoisonError::into_inner);
        // Found out once a process, which is not to be refused.
        guard_kind();
        let mut tried = BTreeMap::new();
        for for_good in [false, true] {
            for seed in 0..seeds {
                for nth in 0..ENOUGH {
                    system::AT_ONCE.store(true, Ordering::Relaxed);
                    let point = Point { nth, for_good, seed };
                    let (answer, calls) = with_refused(nth, for_good, seed, &run);
                    let Some(refused) = calls.get(nth) else {
                        assert!(answer.is_ok(), "nothing was refused");
                        break;
                    };
                    *tried.entry(*refused).or_insert(0) += 1;
                    if let Err(error) = answer {
                        check_sentence(&error.to_string());
                    }
                    after();
                    drop(point);
                }
            }
        }
        println!("points tried: {tried:?}");
        tried.values().sum()
    }

    /// Says where it was when a test fails.
    #[derive(Debug)]
    #[expect(dead_code, reason = "read by its Debug alone")]
    struct Point {
        nth: usize,
        for_good: bool,
        seed: usize,
    }

    impl Drop for Point {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("{self:?}");
            }
        }
    }

    /// It names the call and the size, and what can be done if anything can.
    fn check_sentence(said: &str) {
        assert!(said.contains(" bytes: "), "{said}");
        let remedies = ["ask for less", "raise it with", "does the sandbox", "mlockall", "allows no stacks"];
        assert!(remedies.iter().any(|remedy| said.contains(remedy)), "{said}");
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
            SEEDS,
            || Mapped::new(size).map(|stack| is_usable(&stack)),
            || is_usable(&Mapped::new(size).expect("nothing is refused any more")),
        );
        assert!(tried >= 6 * SEEDS, "mmap, madvise or mprotect, munmap: {tried}");
    }

    #[test]
    fn a_slab_is_had_or_refused_whichever_call_fails() {
        // Guards are made by two calls at least, and some of it is committed.
        let size = StackSize { reserve: 2 * system::page_size(), commit: 1, guard: 0 };
        let run = || {
            let slab = Slab::new(size, system::PLACES + 6)?;
            let stacks: Vec<_> = (0..slab.capacity()).map(|_| slab.take().expect("they are there")).collect();
            assert!(slab.take().is_err());
            for stack in &stacks {
                // SAFETY: the ends of a stack on which nothing runs.
                unsafe {
                    stack.limit().write(1);
                    stack.top().sub(1).write(1);
                }
            }
            drop(stacks);
            slab.trim();
            assert_eq!(slab.in_use(), 0);
            Ok(slab)
        };
        let tried = refuse_each(1, || run().map(drop), || drop(run().expect("nothing is refused any more")));
        assert!(tried >= 10, "mmap, guards, what is committed, munmap: {tried}");
    }

    #[test]
    fn a_row_that_cannot_be_unmapped_stays_and_serves() {
        let _alone = REFUSING.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = Pool::of(StackSize { guard: 1_100_000, ..StackSize::default() }).expect("a pool");
        drop(pool.take().expect("a stack"));
        let mapped = pool.stats().mapped;
        // All calls, of which the last unmaps the row.
        with_refused(0, true, 0, || pool.trim());
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
            1,
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
        assert!(tried > 100, "{tried}");
        drop(held);
    }

    /// A kernel that does not know a call is not asked again for each batch.
    #[test]
    fn a_call_that_the_kernel_does_not_know_is_tried_once() {
        let _alone = REFUSING.lock().unwrap_or_else(PoisonError::into_inner);
        const COUNT: usize = 3;
        let page = system::page_size();
        let (base, _) = system::reserve(COUNT * page).expect("a few pages");
        // SAFETY: within them.
        let places = [0, 1, 2].map(|n| system::place(unsafe { base.add(n * page) }, page));
        // SAFETY: nobody else knows of these pages.
        let give_back = || unsafe { system::decommit_all(&places) };
        // SAFETY: as above.
        let written = || unsafe { (0..COUNT).filter(|n| base.add(n * page).read() != 0).count() };
        // What `error_numbers` has for the call.
        for (seed, again) in [(0, true), (7, true), (1, false), (2, false), (3, false), (4, false)] {
            system::AT_ONCE.store(true, Ordering::Relaxed);
            // SAFETY: as above.
            (0..COUNT).for_each(|n| unsafe { base.add(n * page).write(1) });
            let (answer, calls) = with_refused(0, false, seed, give_back);
            assert_eq!((answer, written()), (Ok(()), 0), "each was given back alone");
            assert_eq!(calls, ["process_madvise", "madvise", "madvise", "madvise"]);
            let (answer, calls) = with_refused(usize::MAX, false, 0, give_back);
            assert_eq!(answer, Ok(()));
            assert_eq!(calls[0] == "process_madvise", again, "{calls:?} after what seed {seed} means");
        }
        system::AT_ONCE.store(true, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { system::release(base, COUNT * page).expect("it is ours") };
    }

    #[test]
    fn a_stack_that_was_refused_holds_no_mapping() {
        const TEST: &str = "stack::faults::tests::a_stack_that_was_refused_holds_no_mapping";
        if guard_kind() == GuardKind::Region {
            // Only others take mappings.
            let program = std::env::current_exe().expect("the path of the running program");
            let mut child = Command::new(program);
            let child = child.args(["--exact", TEST]).env("SWITCHBACK_GUARD", "protection").output();
            let child = child.expect("it can be started");
            assert!(child.status.success(), "{child:?}");
            assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
            return;
        }
        let _alone = REFUSING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = mappings::used();
        for _ in 0..ENOUGH {
            let (answer, calls) = with_refused(1, false, 0, || Mapped::new(1));
            assert!(answer.is_err_and(|error| error.to_string().contains("mprotect")), "{calls:?}");
        }
        let after = mappings::used();
        // Other tests may take some at the same time.
        assert!(after < before + ENOUGH, "{before} before, {after} after {ENOUGH} refusals");
    }

    /// Of the calls that go through [`system`]. All others are seen by `tests/warm_reuse.rs`, where the kernel has the means.
    #[test]
    fn a_stack_that_was_given_back_is_had_again_without_a_system_call() {
        let pool = Pool::of(StackSize { guard: 1_200_000, ..StackSize::default() }).expect("a pool");
        let take: fn(Pool) -> NonNull<u8> = |pool| pool.take().expect("a stack").limit();
        let first = take(pool);
        // Fewer than a shelf is looked over after.
        let (all_the_same, calls) = with_refused(usize::MAX, false, 0, || (0..1000).all(|_| take(pool) == first));
        assert!(all_the_same && calls.is_empty(), "{calls:?}");
        let ((), calls) = with_refused(usize::MAX, false, 0, || pool.trim());
        assert!(!calls.is_empty(), "what is given back to the system is seen");
    }
}
