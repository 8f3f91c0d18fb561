//! The pool: what it hands out is a stack of its own, what is given back is handed out again, and what nobody needs goes
//! back to the system.
#![cfg(feature = "std")]

mod common;
#[path = "common/system.rs"]
mod system;

use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{emulated, in_a_child, in_another_process};
use switchback::stack::{GuardKind, Keep, Pool, Pooled, Stack, StackSize, guard_kind, guard_size, pools};
use switchback::{Coroutine, Resumed, Yielder};
use system::{is_readable, page_size, set_limit};

/// A pool that no other test uses: a guard of so many pages more than the least.
fn a_pool_of_its_own(number: usize) -> Pool {
    let guard = (number + 100) * page_size();
    Pool::of(StackSize { reserve: 64 * 1024, guard, ..StackSize::default() }).expect("it makes sense")
}

fn write_all_of(stack: &Pooled, byte: u8) {
    // SAFETY: the stack's memory, on which nothing runs.
    unsafe { stack.limit().write_bytes(byte, stack.reserve()) }
}

fn first_and_last(stack: &Pooled) -> [u8; 2] {
    // SAFETY: as above.
    unsafe { [stack.limit().read(), stack.top().sub(1).read()] }
}

/// Pages of a stack that are resident, from the limit on.
fn resident(stack: &Pooled) -> Vec<bool> {
    let mut pages = vec![0_u8; stack.reserve() / page_size()];
    // SAFETY: whole pages of a mapping, and a byte for each.
    let answer = unsafe { libc::mincore(stack.limit().as_ptr().cast(), stack.reserve(), pages.as_mut_ptr().cast()) };
    assert_eq!(answer, 0);
    pages.into_iter().map(|page| page & 1 != 0).collect()
}

#[test]
fn a_stack_given_back_is_the_next_that_is_taken() {
    let pool = a_pool_of_its_own(0);
    let stacks: Vec<_> = (0..3).map(|_| pool.take().expect("a stack")).collect();
    let limits: Vec<_> = stacks.iter().map(|stack| stack.limit()).collect();
    stacks.into_iter().for_each(drop);
    let again: Vec<_> = (0..3).map(|_| pool.take().expect("a stack")).collect();
    assert!(again.iter().map(|stack| stack.limit()).eq(limits.into_iter().rev()), "last in, first out");
}

#[test]
fn stacks_of_one_pool_have_the_size_asked_for_and_share_nothing() {
    let count = if cfg!(miri) { 20 } else { 500 };
    for (number, reserve) in [1, page_size() + 1, 64 * 1024, 300_000].into_iter().enumerate() {
        let pool = Pool::of(StackSize { reserve, guard: (200 + number) * page_size(), commit: 0 }).expect("a pool");
        let stacks: Vec<_> = (0..count).map(|_| pool.take().expect("a stack")).collect();
        for (byte, stack) in stacks.iter().enumerate() {
            assert!(stack.reserve() >= reserve && stack.reserve().is_multiple_of(page_size()));
            assert_eq!(stack.top().addr().get() - stack.limit().addr().get(), stack.reserve());
            // SAFETY: the ends of a stack on which nothing runs.
            unsafe {
                stack.limit().write(byte as u8);
                stack.top().sub(1).write(byte as u8);
            }
        }
        for (byte, stack) in stacks.iter().enumerate() {
            assert_eq!(first_and_last(stack), [byte as u8; 2]);
        }
        assert_eq!(pool.stats().in_use, count);
    }
}

#[test]
fn coroutines_run_on_pooled_stacks() {
    let pool = a_pool_of_its_own(1);
    for _ in 0..3 {
        let mut coroutines: Vec<_> = (0..if cfg!(miri) { 5 } else { 100 })
            .map(|n| {
                let stack = pool.take().expect("a stack");
                Coroutine::with_stack(stack, move |yielder: &Yielder<u32, u32>, m| yielder.suspend(n + m))
                    .expect("it fits")
            })
            .collect();
        for (n, coroutine) in (0..).zip(&mut coroutines) {
            assert_eq!(coroutine.resume(1), Resumed::Yielded(n + 1));
        }
        for coroutine in &mut coroutines {
            assert_eq!(coroutine.resume(2), Resumed::Returned(2));
        }
    }
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn the_same_size_is_the_same_pool_and_one_a_little_larger_too() {
    let size = |reserve| StackSize { reserve, guard: 300 * page_size(), commit: 0 };
    let pool = Pool::of(size(1_000_000)).expect("a pool");
    let first = pool.take().expect("a stack");
    let limit = first.limit();
    drop(first);
    assert_eq!(Pool::of(size(1_000_001)).expect("a pool").take().expect("a stack").limit(), limit);
    assert!(pools().any(|other| other.stats().size == pool.stats().size));
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn what_a_stack_has_touched_beyond_what_is_kept_is_given_back() {
    let pool = Pool::of(StackSize { reserve: 1 << 20, guard: 400 * page_size(), commit: 0 }).expect("a pool");
    let kept = Keep::current().resident.next_multiple_of(page_size());
    let stack = pool.take().expect("a stack");
    let limit = stack.limit();
    write_all_of(&stack, 7);
    assert!(resident(&stack).iter().all(|&page| page), "all of it was touched");
    drop(stack);
    // It lies on this thread's shelf; a thread that ends gives its shelf to the depot.
    let other = thread::spawn(move || {
        let stack = pool.take().expect("a stack");
        let taken: Vec<_> = (0..100).map(|_| pool.take().expect("a stack")).collect();
        taken.iter().for_each(|stack| write_all_of(stack, 8));
        drop(taken);
        stack
    });
    drop(other.join().expect("it takes stacks"));
    assert!(pool.stats().cached >= 100);
    let again: Vec<_> = (0..pool.stats().cached).map(|_| pool.take().expect("a stack")).collect();
    let beyond = |stack: &Pooled| resident(stack).iter().filter(|&&page| page).count() * page_size() > kept;
    let more: Vec<_> = again.iter().filter(|stack| beyond(stack)).map(|stack| stack.limit()).collect();
    assert!(more.len() <= 1 && more.iter().all(|&more| more == limit), "{more:?}: only what has not left its shelf");
    drop(again);
    pool.trim();
    let stats = pool.stats();
    assert_eq!((stats.in_use, stats.cached, stats.mapped), (0, 0, 0), "{stats:?}");
    assert!(stats.peak > 100);
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn a_stack_taken_after_all_was_given_back_is_new() {
    let pool = a_pool_of_its_own(2);
    let kept_alive = pool.take().expect("a stack");
    let stack = pool.take().expect("a stack");
    write_all_of(&stack, 7);
    drop(stack);
    pool.trim();
    for _ in 0..50 {
        let stack = pool.take().expect("a stack");
        assert_eq!(first_and_last(&stack), [0, 0], "no page of before");
        std::mem::forget(stack);
    }
    assert_eq!(pool.stats().in_use, 51);
    drop(kept_alive);
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn what_a_size_commits_is_resident_and_stays_so() {
    let commit = 5 * page_size();
    let pool = Pool::of(StackSize { reserve: 64 * page_size(), commit, guard: 500 * page_size() }).expect("a pool");
    let is_committed = |stack: &Pooled| {
        let pages = resident(stack);
        pages[pages.len() - 5..].iter().all(|&page| page)
    };
    let stacks: Vec<_> = (0..40).map(|_| pool.take().expect("a stack")).collect();
    assert!(stacks.iter().all(is_committed));
    assert!(!resident(&stacks[0])[0], "and not more");
    // One keeps the row, so that the others lose their pages and get them back.
    let mut stacks = stacks.into_iter();
    let kept = stacks.next();
    drop(stacks);
    pool.trim();
    let again: Vec<_> = (0..39).map(|_| pool.take().expect("a stack")).collect();
    assert!(again.iter().all(is_committed));
    drop(kept);
}

#[test]
fn stacks_are_taken_on_one_thread_and_given_back_on_another() {
    let pool = a_pool_of_its_own(3);
    let rounds = if cfg!(miri) {
        20
    } else if emulated() {
        500
    } else {
        20_000
    };
    let (give, taken) = mpsc::sync_channel::<Pooled>(100);
    let other = thread::spawn(move || taken.into_iter().count());
    let mut alive = HashSet::new();
    for round in 0..rounds {
        let stack = pool.take().expect("a stack");
        if round % 3 == 0 {
            alive.insert(stack.limit());
            std::mem::forget(stack);
        } else {
            assert!(!alive.contains(&stack.limit()), "handed out twice");
            give.send(stack).expect("somebody listens");
        }
    }
    drop(give);
    assert_eq!(other.join().expect("it drops them"), rounds - alive.len());
    assert_eq!(pool.stats().in_use, alive.len());
}

#[test]
fn a_stack_kept_in_a_thread_local_is_given_back_when_its_thread_has_no_shelf_any_more() {
    use std::cell::RefCell;
    thread_local! {
        // Registered before the shelves, and so dropped after them.
        static KEPT: RefCell<Option<Pooled>> = const { RefCell::new(None) };
    }
    let pool = a_pool_of_its_own(4);
    let thread = thread::spawn(move || {
        KEPT.with_borrow(|kept| assert!(kept.is_none()));
        KEPT.set(Some(pool.take().expect("a stack")));
        assert!(pool.stats().in_use >= 1);
    });
    thread.join().expect("it ends");
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn a_shelf_looked_over_gives_half_of_itself_away() {
    let Some(child) = in_a_child("a_shelf_looked_over_gives_half_of_itself_away", || {
        Keep { decay: Duration::ZERO, ..Keep::default() }.apply();
        let pool = a_pool_of_its_own(5);
        let stacks: Vec<_> = (0..40).map(|_| pool.take().expect("a stack")).collect();
        stacks.iter().for_each(|stack| write_all_of(stack, 7));
        drop(stacks);
        // Each round looks the shelf over once, and the depot.
        for _ in 0..20_000 {
            drop(pool.take().expect("a stack"));
        }
        let cached = pool.stats().cached;
        assert!(cached <= 1, "{cached} left of 40");
        let stack = pool.take().expect("a stack");
        let kept = Keep::current().resident.next_multiple_of(page_size());
        assert!(resident(&stack).iter().filter(|&&page| page).count() * page_size() <= kept);
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri protects no pages")]
fn every_stack_is_guarded_however_it_was_had() {
    let pool = a_pool_of_its_own(6);
    let size = pool.stats().size;
    let check = |stack: &Pooled| {
        let limit = stack.limit().as_ptr();
        for offset in (1..=size.guard).step_by(page_size()) {
            assert!(!is_readable(limit.wrapping_sub(offset)), "{offset} bytes below the limit");
        }
        assert!(is_readable(limit) && is_readable(limit.wrapping_add(size.reserve - 1)));
    };
    for _ in 0..2 {
        // New, and then cold.
        let keep_row = pool.take().expect("a stack");
        let stacks: Vec<_> = (0..20).map(|_| pool.take().expect("a stack")).collect();
        stacks.iter().for_each(check);
        drop(stacks);
        let warm = pool.take().expect("a stack");
        check(&warm);
        pool.trim();
        drop((keep_row, warm));
    }
}

/// How many stacks of one page and how many with a reserve of 60 MiB there are at once. The large ones take 600 GB of
/// addresses, of which a process has 128 TiB. Where it may have less: riscv64 with three levels of page tables has 256 GiB, 32
/// bits have 3 GiB, and a guard takes 64 KiB on both.
const SIDE_BY_SIDE: (usize, usize) = if cfg!(target_pointer_width = "32") {
    (10_000, 20)
} else if cfg!(target_arch = "riscv64") {
    (10_000, 2_000)
} else {
    (10_000, 10_000)
};

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes, and has no address space to spare")]
fn stacks_of_one_page_and_of_sixty_megabytes_live_side_by_side() {
    let Some(child) = in_a_child("stacks_of_one_page_and_of_sixty_megabytes_live_side_by_side", || {
        let mappings = || std::fs::read_to_string("/proc/self/maps").expect("Linux").lines().count();
        let before = mappings();
        let pools = [page_size(), 60 << 20].map(|reserve| Pool::of(reserve).expect("a pool"));
        let (small, large) = SIDE_BY_SIDE;
        let mut stacks = Vec::new();
        for number in 0..small.max(large) {
            let wanted = pools.iter().zip([small, large]).filter(|&(_, count)| number < count);
            stacks.extend(wanted.map(|(pool, _)| pool.take().expect("a stack")));
        }
        assert_eq!(pools.map(|pool| pool.stats().in_use), [small, large]);
        let word = |stack: &Pooled, offset: usize| stack.limit().as_ptr().wrapping_add(offset).cast::<usize>();
        let highest = |stack: &Pooled| word(stack, stack.reserve() - size_of::<usize>());
        for (number, stack) in stacks.iter().enumerate() {
            // SAFETY: the ends of a stack on which nothing runs; aligned, for the ends of pages are.
            unsafe {
                highest(stack).write(number);
                // The deepest page of some of them.
                if number % 5 == 0 {
                    word(stack, 0).write(!number);
                }
            }
        }
        // A sanitizer maps memory beside them.
        if guard_kind() == GuardKind::Region && !cfg!(switchback_sanitizer) {
            let more = mappings() - before;
            assert!(more < 100, "{more} mappings for {} stacks", stacks.len());
        }
        for (number, stack) in stacks.iter().enumerate() {
            // SAFETY: as above.
            assert_eq!(unsafe { highest(stack).read() }, number);
            if number % 5 == 0 {
                // SAFETY: as above.
                assert_eq!(unsafe { word(stack, 0).read() }, !number);
            }
        }
        let mut areas: Vec<_> = stacks
            .iter()
            .map(|stack| {
                let limit = stack.limit().addr().get();
                limit - guard_size()..limit + stack.reserve()
            })
            .collect();
        areas.sort_by_key(|area| area.start);
        assert!(areas.is_sorted_by(|one, next| one.end <= next.start), "each has addresses of its own");
        // Under an emulator each question takes long.
        for stack in stacks.iter().step_by(if emulated() { 20 } else { 1 }) {
            let limit = stack.limit().as_ptr();
            assert!(is_readable(limit));
            assert!(!is_readable(limit.wrapping_sub(1)) && !is_readable(limit.wrapping_sub(guard_size())), "{stack:?}");
        }
        drop(stacks);
        pools.iter().for_each(|pool| pool.trim());
        assert_eq!(pools.map(|pool| pool.stats().mapped), [0, 0]);
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

/// Runs a test of this file with this in the environment.
fn passes_with(test: &str, variable: &str, value: &str) {
    let child = in_another_process(test, &[(variable, value)]);
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{child:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn all_holds_with_guards_that_are_mappings_as_well() {
    for test in [
        "every_stack_is_guarded_however_it_was_had",
        "what_a_stack_has_touched_beyond_what_is_kept_is_given_back",
        "a_stack_taken_after_all_was_given_back_is_new",
        "stacks_of_one_pool_have_the_size_asked_for_and_share_nothing",
        "the_kind_of_guard_is_the_one_asked_for",
    ] {
        passes_with(test, "SWITCHBACK_GUARD", "protection");
    }
}

#[test]
fn the_kind_of_guard_is_the_one_asked_for() {
    match std::env::var_os("SWITCHBACK_GUARD") {
        Some(_) => assert_eq!(guard_kind(), GuardKind::Protection),
        None => assert_eq!(guard_kind(), guard_kind(), "it does not change"),
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri protects no pages")]
fn a_stack_that_is_not_in_use_is_out_of_reach_on_request() {
    const TEST: &str = "a_stack_that_is_not_in_use_is_out_of_reach_on_request";
    if std::env::var_os("SWITCHBACK_GUARD_RELEASED").is_none() {
        passes_with(TEST, "SWITCHBACK_GUARD_RELEASED", "1");
        return;
    }
    let pool = a_pool_of_its_own(7);
    let keep_row = pool.take().expect("a stack");
    for _ in 0..3 {
        let stack = pool.take().expect("a stack");
        let ends = [stack.limit().as_ptr(), stack.top().as_ptr().wrapping_sub(1)];
        assert!(ends.into_iter().all(is_readable));
        write_all_of(&stack, 7);
        drop(stack);
        assert!(!ends.into_iter().any(is_readable));
    }
    drop(keep_row);
}

/// A row that does not fit is tried half as large.
#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_address_space_limit_is_named_when_a_pool_meets_it() {
    let Some(child) = in_a_child("the_address_space_limit_is_named_when_a_pool_meets_it", || {
        let pool = Pool::of(1 << 20).expect("a pool");
        let first = pool.take().expect("a stack");
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("Linux says it");
        let size = 1024 * line.trim().trim_end_matches(" kB").parse::<libc::rlim_t>().expect("a number");
        set_limit(libc::RLIMIT_AS, size + (100 << 20));
        for _ in 0..3 {
            let mut stacks = Vec::new();
            let error = loop {
                match pool.take() {
                    Ok(stack) => stacks.push(stack),
                    Err(error) => break error,
                }
            };
            assert!(stacks.len() >= 95, "{} stacks in a hundred megabytes", stacks.len());
            assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            stacks.iter().for_each(|stack| write_all_of(stack, 7));
            drop(stacks);
            pool.trim();
        }
        drop(first);
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

/// Bytes that count against the limit of what can be written.
fn counted() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).expect("Linux says it");
    1024 * line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
}

/// As where memory is not promised beyond what there is (`vm.overcommit_memory=2`), which counts the same pages.
#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_data_limit_is_named_when_it_is_met() {
    let Some(child) = in_a_child("the_data_limit_is_named_when_it_is_met", || {
        set_limit(libc::RLIMIT_DATA, 256 << 20);
        let pool = Pool::of(StackSize { reserve: 1 << 20, ..StackSize::default() }).expect("a pool");
        let before = counted();
        let held = pool.take().expect("a stack");
        let taken = counted() - before;
        assert!(taken < 8 << 20, "{taken} bytes count for what one thread takes at once, not the whole row");
        for _ in 0..3 {
            let mut stacks = Vec::new();
            let error = loop {
                match pool.take() {
                    Ok(stack) => stacks.push(stack),
                    Err(error) => break error,
                }
            };
            assert!((100..256).contains(&stacks.len()), "{} stacks of a megabyte", stacks.len());
            assert!(error.to_string().contains("RLIMIT_DATA"), "{error}");
            // What the kernel writes arrives in pages that nobody has touched.
            for stack in &stacks {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                use std::io::Write;
                use std::os::fd::AsRawFd;
                (&writer).write_all(b"x").expect("room");
                // SAFETY: the lowest byte of a stack on which nothing runs.
                assert_eq!(unsafe { libc::read(reader.as_raw_fd(), stack.limit().as_ptr().cast(), 1) }, 1);
            }
            // Everything comes back.
            drop(stacks);
            pool.trim();
            assert!(counted() - before < 8 << 20, "what is not in use does not count");
        }
        drop(held);
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

/// All that the process maps from now on is locked: memory at once, of which it may have so many bytes.
fn lock_all_memory(limit: libc::rlim_t) {
    // SAFETY: the pointers are to live values, and no code here depends on who the user is.
    unsafe {
        let mut allowed = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut allowed), 0);
        allowed.rlim_cur = allowed.rlim_max.min(limit);
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &allowed), 0);
        // The limit is not one for root.
        if libc::geteuid() == 0 {
            assert_eq!(libc::setuid(65_534), 0);
        }
        assert_eq!(libc::mlockall(libc::MCL_FUTURE), 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_limit_of_locked_memory_is_named_when_it_is_met() {
    let Some(child) = in_a_child("the_limit_of_locked_memory_is_named_when_it_is_met", || {
        lock_all_memory(8 << 20);
        let pool = Pool::of(64 * 1024).expect("a pool");
        for _ in 0..3 {
            let mut stacks = Vec::new();
            let error = loop {
                match pool.take() {
                    Ok(stack) => stacks.push(stack),
                    Err(error) => break error,
                }
            };
            assert!(!stacks.is_empty() && error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
            stacks.iter().for_each(|stack| write_all_of(stack, 7));
            drop(stacks);
            pool.trim();
        }
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn locked_memory_takes_no_guard_region_and_the_error_says_what_to_do() {
    let Some(child) = in_a_child("locked_memory_takes_no_guard_region_and_the_error_says_what_to_do", || {
        // Found out while it still holds.
        let kind = guard_kind();
        lock_all_memory(8 << 20);
        match Pool::of(64 * 1024).expect("a pool").take() {
            Ok(stack) => write_all_of(&stack, 7),
            Err(error) => {
                assert_eq!(kind, GuardKind::Region);
                assert!(error.to_string().contains("SWITCHBACK_GUARD=protection"), "{error}");
            }
        }
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}
