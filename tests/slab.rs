//! A slab: as many stacks as it was made with, each of its own and guarded, for as long as the slab or one of them lives.
#![cfg(feature = "std")]

mod common;
#[path = "common/system.rs"]
mod system;

use std::collections::HashSet;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;

use common::{emulated, in_a_child, in_another_process};
use switchback::stack::{GuardKind, Slab, SlabStack, Stack, StackSize, guard_kind, guard_size, usage};
use switchback::{Coroutine, Resumed, Yielder, on_stack, stack};
use system::{is_readable, page_size, set_limit};

fn slab(reserve: usize, stacks: usize) -> Slab {
    Slab::new(reserve, stacks).expect("there is room")
}

fn take(slab: &Slab) -> SlabStack {
    slab.take().expect("not all are in use")
}

fn take_all(slab: &Slab) -> Vec<SlabStack> {
    let stacks: Vec<_> = std::iter::from_fn(|| slab.take().ok()).take(slab.capacity() + 1).collect();
    assert_eq!(stacks.len(), slab.capacity());
    stacks
}

fn write_all_of(stack: &SlabStack, byte: u8) {
    // SAFETY: the stack's memory, on which nothing runs.
    unsafe { stack.limit().write_bytes(byte, stack.reserve()) }
}

fn write_ends_of(stack: &SlabStack, byte: u8) {
    // SAFETY: as above.
    unsafe {
        stack.limit().write(byte);
        stack.top().sub(1).write(byte);
    }
}

fn ends_of(stack: &SlabStack) -> [u8; 2] {
    // SAFETY: as above.
    unsafe { [stack.limit().read(), stack.top().sub(1).read()] }
}

/// Whether a page is part of a mapping, in reach or not.
fn is_mapped(address: *mut u8) -> bool {
    // SAFETY: only the page tables are looked at, and there is a byte for the page.
    unsafe { libc::mincore(address.cast(), page_size(), [0_u8].as_mut_ptr().cast()) == 0 }
}

/// How many mappings have a part in this range of addresses, and how many bytes of it they fill.
fn mapped(range: Range<usize>) -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let parts = maps.lines().map(|line| {
        let (start, end) = line.split(' ').next().and_then(|ends| ends.split_once('-')).expect("two addresses");
        let address = |digits| usize::from_str_radix(digits, 16).expect("an address");
        address(start).max(range.start)..address(end).min(range.end)
    });
    parts.filter(|part| !part.is_empty()).fold((0, 0), |(count, bytes), part| (count + 1, bytes + part.len()))
}

fn resident(stack: &SlabStack) -> usize {
    usage(stack).expect("Linux says it").resident
}

/// Runs a test of this file with this in the environment.
fn passes_with(test: &str, variables: &[(&str, &str)]) {
    let child = in_another_process(test, variables);
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{child:?}");
}

#[test]
fn stacks_of_a_slab_have_the_size_asked_for_and_share_nothing() {
    let count = if cfg!(miri) { 10 } else { 200 };
    for reserve in [1, page_size() + 1, 64 * 1024, 300_000] {
        let slab = slab(reserve, count);
        assert_eq!(slab.size().reserve, reserve.next_multiple_of(page_size()));
        let stacks = take_all(&slab);
        for (byte, stack) in stacks.iter().enumerate() {
            assert_eq!(stack.reserve(), slab.size().reserve);
            assert_eq!(stack.top().addr().get() - stack.limit().addr().get(), stack.reserve());
            assert!(ends_of(stack) == [0, 0], "it is new");
            write_all_of(stack, byte as u8);
        }
        for (byte, stack) in stacks.iter().enumerate() {
            assert_eq!(ends_of(stack), [byte as u8; 2], "{byte} of {reserve} bytes");
        }
        let mut limits: Vec<_> = stacks.iter().map(|stack| stack.limit().addr().get()).collect();
        limits.sort_unstable();
        let apart = slab.size().reserve + slab.size().guard;
        assert!(limits.windows(2).all(|pair| pair[1] - pair[0] == apart), "one after the other, each with its guard");
    }
}

#[test]
fn a_stack_given_back_is_the_next_that_is_taken() {
    let slab = slab(64 * 1024, 10);
    let _others = [take(&slab), take(&slab)];
    let stacks = [take(&slab), take(&slab), take(&slab)];
    let limits = stacks.each_ref().map(|stack| stack.limit());
    stacks.into_iter().for_each(drop);
    let again: Vec<_> = (0..3).map(|_| take(&slab)).collect();
    assert!(again.iter().map(|stack| stack.limit()).eq(limits.into_iter().rev()), "last in, first out");
}

#[test]
fn when_all_stacks_are_in_use_the_next_is_refused_until_one_is_given_back() {
    let slab = slab(page_size(), 3);
    assert_eq!((slab.capacity(), slab.in_use()), (3, 0));
    let mut stacks = take_all(&slab);
    for _ in 0..3 {
        assert_eq!((slab.capacity(), slab.in_use()), (3, 3));
        let error = slab.take().expect_err("all are in use");
        let sentence = error.to_string();
        assert!(sentence.contains("all stacks of the slab are in use") && sentence.contains("3 of 3"), "{sentence}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::OutOfMemory);
        stacks.pop();
        assert_eq!(slab.in_use(), 2);
        stacks.push(take(&slab));
    }
    if !cfg!(miri) {
        // One that is forgotten is in use for ever, which Miri would call a leak.
        stacks.into_iter().for_each(std::mem::forget);
        assert_eq!(slab.in_use(), 3);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri protects no pages")]
fn every_stack_of_a_slab_is_guarded() {
    const TEST: &str = "every_stack_of_a_slab_is_guarded";
    if std::env::var_os("SWITCHBACK_GUARD").is_none() {
        passes_with(TEST, &[("SWITCHBACK_GUARD", "protection")]);
    } else {
        assert_eq!(guard_kind(), GuardKind::Protection);
    }
    // More than one call of the kernel guards.
    for (guard, count) in [(0, 130), (guard_size() + 2 * page_size(), 5)] {
        let slab = Slab::new(StackSize { reserve: 2 * page_size(), guard, commit: 0 }, count).expect("room");
        for _ in 0..2 {
            for stack in take_all(&slab) {
                let limit = stack.limit().as_ptr();
                for offset in (1..=slab.size().guard).step_by(page_size()) {
                    assert!(!is_readable(limit.wrapping_sub(offset)), "{offset} bytes below the limit");
                }
                assert!(is_readable(limit) && is_readable(limit.wrapping_add(stack.reserve() - 1)));
            }
            slab.trim();
        }
    }
}

#[test]
fn a_size_or_a_number_that_makes_no_sense_is_refused() {
    let refused = |reserve: usize, stacks| Slab::new(reserve, stacks).expect_err("it makes no sense");
    let senseless = [
        (refused(page_size(), 0), "a slab of no stacks"),
        (refused(0, 10), "too small"),
        (refused(usize::MAX, 1), "exceeds the address space"),
        (refused(page_size(), usize::MAX), "stacks of"),
        (refused(page_size(), usize::MAX / page_size()), "exceed the address space"),
        (refused(isize::MAX as usize / 2, 2), "2 stacks of"),
    ];
    for (error, sentence) in senseless {
        assert!(error.to_string().contains(sentence), "{error}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::InvalidInput, "{error}");
    }
    // It could be had, but a quarter of all addresses is not to be had often.
    let mut slabs = Vec::new();
    let error = loop {
        match Slab::new(usize::MAX / 16, 4) {
            Ok(slab) => slabs.push(slab),
            Err(error) => break error,
        }
    };
    assert!(slabs.len() <= 4);
    assert!(error.to_string().contains("4 stacks of"), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::OutOfMemory, "{error}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_mapping_is_there_until_the_slab_and_the_last_of_its_stacks_are_gone() {
    // Alone, so that nobody maps anything where it was.
    let test = "the_mapping_is_there_until_the_slab_and_the_last_of_its_stacks_are_gone";
    let Some(child) = in_a_child(test, || {
        for forgotten in [false, true] {
            let slab = slab(64 * 1024, 4);
            let stacks = take_all(&slab);
            let limits: Vec<_> = stacks.iter().map(|stack| stack.limit().as_ptr()).collect();
            stacks.iter().for_each(|stack| write_ends_of(stack, 7));
            let [first, second, third, fourth] = <[_; 4]>::try_from(stacks).expect("four");
            drop(second);
            drop(slab);
            drop(first);
            assert!(limits.iter().all(|&limit| is_mapped(limit)));
            assert_eq!((ends_of(&third), ends_of(&fourth)), ([7, 7], [7, 7]), "they are still theirs");
            drop(third);
            if forgotten {
                std::mem::forget(fourth)
            } else {
                drop(fourth)
            }
            assert!(limits.iter().all(|&limit| is_mapped(limit) == forgotten));
        }
        let limit = {
            let slab = slab(64 * 1024, 4);
            take(&slab).limit().as_ptr()
        };
        assert!(!is_mapped(limit), "the slab is the last");
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no mappings")]
fn a_slab_takes_the_mappings_that_its_guards_take_and_leaves_none_behind() {
    let test = "a_slab_takes_the_mappings_that_its_guards_take_and_leaves_none_behind";
    let body = || {
        let count = 500;
        let slab = slab(page_size(), count);
        let stacks = take_all(&slab);
        let lowest = stacks.iter().map(|stack| stack.limit().addr().get()).min().expect("stacks");
        let highest = stacks.iter().map(|stack| stack.top().addr().get()).max().expect("stacks");
        let all = lowest - slab.size().guard..highest;
        stacks.iter().for_each(|stack| write_ends_of(stack, 1));
        let expected = match guard_kind() {
            GuardKind::Region => 1,
            GuardKind::Protection => 2 * count,
        };
        assert_eq!(mapped(all.clone()), (expected, all.len()));
        drop((stacks, slab));
        assert_eq!(mapped(all), (0, 0));
    };
    if std::env::var_os("SWITCHBACK_GUARD").is_some() {
        assert_eq!(guard_kind(), GuardKind::Protection);
        return body();
    }
    passes_with(test, &[("SWITCHBACK_GUARD", "protection")]);
    let Some(child) = in_a_child(test, body) else { return };
    assert!(child.status.success(), "{child:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no mappings")]
fn a_slab_that_would_take_more_mappings_than_there_are_is_refused_at_once() {
    let test = "a_slab_that_would_take_more_mappings_than_there_are_is_refused_at_once";
    if std::env::var_os("SWITCHBACK_GUARD").is_none() {
        // With guard regions nothing comes near it.
        return passes_with(test, &[("SWITCHBACK_GUARD", "protection")]);
    }
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux");
    let count = limit.trim().parse::<usize>().expect("a number") / 2 + 1;
    drop(slab(page_size(), 1));
    let (_, before) = mapped(0..usize::MAX);
    for _ in 0..3 {
        let sentence = Slab::new(page_size(), count).expect_err("they are too many").to_string();
        // Where addresses have 32 bits, so many guards alone exceed them.
        let fits = count.checked_mul(page_size() + guard_size()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
        let named = if fits { "vm.max_map_count" } else { "exceed the address space" };
        assert!(sentence.contains(named) && sentence.contains(&format!("{count} stacks of")), "{sentence}");
        let (_, bytes) = mapped(0..usize::MAX);
        assert!(bytes - before.min(bytes) < count * page_size(), "{bytes} bytes are mapped, {before} before");
    }
    // What was refused is not counted.
    assert_eq!(take_all(&slab(page_size(), 100)).len(), 100);
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_address_space_limit_is_named_when_it_is_met() {
    let Some(child) = in_a_child("the_address_space_limit_is_named_when_it_is_met", || {
        set_limit(libc::RLIMIT_AS, 1 << 20);
        let sentence = Slab::new(64 * 1024, 1000).expect_err("there is no room").to_string();
        assert!(sentence.contains("RLIMIT_AS") && sentence.contains("1000 stacks of 65536 bytes"), "{sentence}");
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

/// As where memory is not promised beyond what there is (`vm.overcommit_memory=2`), which counts the same pages.
#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_data_limit_is_named_when_it_is_met() {
    let Some(child) = in_a_child("the_data_limit_is_named_when_it_is_met", || {
        set_limit(libc::RLIMIT_DATA, 256 << 20);
        for _ in 0..3 {
            let sentence = Slab::new(1 << 20, 300).expect_err("it counts at once").to_string();
            assert!(sentence.contains("RLIMIT_DATA"), "{sentence}");
            // Nothing of it counts any more, or this would not fit.
            let slab = slab(1 << 20, 200);
            let stacks = take_all(&slab);
            for stack in &stacks {
                // What the kernel writes arrives in pages that nobody has touched.
                let (reader, writer) = std::io::pipe().expect("a pipe");
                std::io::Write::write_all(&mut &writer, b"x").expect("room");
                // SAFETY: the lowest byte of a stack on which nothing runs.
                assert_eq!(unsafe { libc::read(reader.as_raw_fd(), stack.limit().as_ptr().cast(), 1) }, 1);
                assert!(!is_readable(stack.limit().as_ptr().wrapping_sub(1)), "it is guarded");
            }
            // What is given back to the system is still promised.
            drop(stacks);
            slab.trim();
            assert!(take_all(&slab).iter().all(|stack| ends_of(stack) == [0, 0]));
        }
    }) else {
        return;
    };
    assert!(child.status.success(), "{child:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn a_stack_keeps_its_pages_until_the_slab_is_trimmed() {
    let page = page_size();
    let commit = 2 * page;
    // More than one call of the kernel takes.
    let slab = Slab::new(StackSize { reserve: 8 * page, commit, guard: 0 }, 150).expect("room");
    let stacks = take_all(&slab);
    assert!(stacks.iter().all(|stack| resident(stack) == commit), "and not more");
    stacks.iter().for_each(|stack| write_all_of(stack, 7));
    drop(stacks);
    let held = take(&slab);
    assert_eq!((resident(&held), ends_of(&held)), (8 * page, [7, 7]), "it keeps what it has");
    slab.trim();
    assert_eq!((resident(&held), ends_of(&held)), (8 * page, [7, 7]), "it is in use");
    let others: Vec<_> = (0..149).map(|_| take(&slab)).collect();
    for stack in &others {
        assert_eq!((resident(stack), ends_of(stack)), (commit, [0, 7]), "all but what is committed");
    }
    slab.trim();
    assert_eq!(ends_of(&others[0]), [0, 7], "none is left to be trimmed");
}

#[test]
#[cfg_attr(miri, ignore = "Miri protects no pages")]
fn a_stack_that_is_not_in_use_is_out_of_reach_on_request() {
    const TEST: &str = "a_stack_that_is_not_in_use_is_out_of_reach_on_request";
    let released = ("SWITCHBACK_GUARD_RELEASED", "1");
    if std::env::var_os(released.0).is_none() {
        passes_with(TEST, &[released]);
        passes_with(TEST, &[released, ("SWITCHBACK_GUARD", "protection")]);
        return;
    }
    let commit = page_size();
    let slab = Slab::new(StackSize { reserve: 4 * page_size(), commit, guard: 0 }, 10).expect("room");
    for _ in 0..3 {
        let stacks = take_all(&slab);
        assert!(stacks.iter().all(|stack| resident(stack) == commit && ends_of(stack) == [0, 0]), "it is new");
        let ends: Vec<_> = stacks.iter().flat_map(|stack| [stack.limit(), stack.top()]).collect();
        let ends: Vec<_> =
            ends.chunks(2).flat_map(|ends| [ends[0].as_ptr(), ends[1].as_ptr().wrapping_sub(1)]).collect();
        assert!(ends.iter().all(|&end| is_readable(end)));
        stacks.iter().for_each(|stack| write_all_of(stack, 7));
        drop(stacks);
        assert!(!ends.iter().any(|&end| is_readable(end)));
        slab.trim();
        assert!(!ends.iter().any(|&end| is_readable(end)));
    }
}

#[test]
fn stacks_of_one_page_serve_side_by_side() {
    unsafe extern "C" fn entry(_: *mut (), _: switchback::context::Running) -> *mut () {
        std::ptr::without_provenance_mut(7)
    }
    use switchback::context::{Context, Left};
    let count = if cfg!(miri) { 5 } else { 1000 };
    let slab = slab(1, count);
    assert_eq!(slab.size(), StackSize { reserve: page_size(), commit: 0, guard: guard_size() });
    let stacks = take_all(&slab);
    let contexts: Vec<_> = stacks
        .iter()
        // SAFETY: the stacks outlive their contexts.
        .map(|stack| unsafe { Context::new(stack, entry) }.expect("it fits"))
        .collect();
    for context in contexts {
        // SAFETY: as above.
        let left = unsafe { context.enter(std::ptr::null_mut()) };
        assert!(matches!(left, Left::Ended(word) if word.addr() == 7));
    }
}

#[test]
fn coroutines_run_on_stacks_of_a_slab_and_give_them_back_however_they_end() {
    let count = if cfg!(miri) { 4 } else { 100 };
    let slab = slab(stack::DEFAULT_RESERVE, count);
    let alive = Rc::new(());
    for _ in 0..2 {
        let mut coroutines: Vec<_> = (0..count)
            .map(|n| {
                let alive = Rc::clone(&alive);
                let body = move |yielder: &Yielder<usize, usize>, m: usize| {
                    let _alive = alive;
                    match yielder.suspend(n + m) {
                        0 => resume_unwind(Box::new(n)),
                        more => more,
                    }
                };
                Coroutine::with_stack(take(&slab), body).expect("it fits")
            })
            .collect();
        assert!(slab.take().is_err());
        for (n, coroutine) in coroutines.iter_mut().enumerate() {
            assert_eq!(coroutine.resume(1), Resumed::Yielded(n + 1));
        }
        assert_eq!(Rc::strong_count(&alive), count + 1);
        // One returns, one panics; the others are dropped where they are.
        assert_eq!(coroutines[0].resume(5), Resumed::Returned(5));
        let caught = catch_unwind(AssertUnwindSafe(|| coroutines[1].resume(0))).expect_err("it panics");
        assert_eq!(caught.downcast_ref(), Some(&1_usize));
        assert!(coroutines[1].is_finished());
        assert_eq!((slab.in_use(), Rc::strong_count(&alive)), (count, count - 1));
        drop(coroutines);
        assert_eq!((slab.in_use(), Rc::strong_count(&alive)), (0, 1), "they were unwound");
    }
}

#[test]
fn a_coroutine_goes_on_when_its_slab_is_gone() {
    let slab = slab(stack::DEFAULT_RESERVE, 2);
    let body = |yielder: &Yielder<u32, u32>, n| yielder.suspend(n + 1) + 1;
    let mut coroutine = Coroutine::with_stack(take(&slab), body).expect("it fits");
    assert_eq!(coroutine.resume(1), Resumed::Yielded(2));
    drop(slab);
    assert_eq!(coroutine.resume(5), Resumed::Returned(6));
}

#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the frames of a coroutine are not on its stack")]
fn the_stack_of_a_slab_is_known_to_whoever_runs_on_it() {
    let slab = slab(256 * 1024, 3);
    let [_lower, mut stack, _upper] = [take(&slab), take(&slab), take(&slab)];
    let left = on_stack(&mut stack, stack::remaining).expect("it is known");
    assert!(left < 256 * 1024 && left > 240 * 1024, "{left}");
    let used = usage(&stack).expect("Linux says it");
    assert!(used.resident > 0 && used.deepest < 16 * 1024, "{used:?}");
}

/// Rounds of a test in which threads meet: enough to meet, few where everything is slower.
fn rounds(natively: usize) -> usize {
    if cfg!(miri) {
        10
    } else if emulated() {
        natively / 50
    } else {
        natively
    }
}

#[test]
fn threads_take_and_give_back_at_once_and_no_two_have_the_same() {
    const THREADS: usize = 4;
    const STACKS: usize = 6;
    let slab = slab(page_size(), STACKS);
    let refused: usize = thread::scope(|scope| {
        let work = |number: usize| {
            let slab = &slab;
            move || {
                let mut refused = 0;
                for round in 0..rounds(20_000) {
                    // Two at a time: more than there are, if all threads do it.
                    let stacks = [slab.take(), slab.take()];
                    refused += stacks.iter().filter(|stack| stack.is_err()).count();
                    let byte = (round * THREADS + number) as u8;
                    stacks.iter().flatten().for_each(|stack| write_ends_of(stack, byte));
                    if round % 16 == 0 {
                        thread::yield_now();
                    }
                    stacks.iter().flatten().for_each(|stack| assert_eq!(ends_of(stack), [byte; 2], "handed out twice"));
                    assert!(slab.in_use() <= STACKS);
                    if round % 64 == 0 {
                        slab.trim();
                    }
                }
                refused
            }
        };
        let running: Vec<_> = (0..THREADS).map(|number| scope.spawn(work(number))).collect();
        running.into_iter().map(|thread| thread.join().expect("it gets stacks")).sum()
    });
    println!("{refused} times all were in use");
    assert_eq!(slab.in_use(), 0);
    let limits: HashSet<NonNull<u8>> = take_all(&slab).iter().map(|stack| stack.limit()).collect();
    assert_eq!(limits.len(), STACKS, "each is there once");
}

#[test]
fn a_slab_and_its_stacks_are_dropped_by_different_threads_in_any_order() {
    let (give, taken) = mpsc::channel::<SlabStack>();
    let other = thread::spawn(move || taken.into_iter().map(|stack| write_ends_of(&stack, 2)).count());
    let rounds = rounds(5_000);
    for round in 0..rounds {
        let slab = Arc::new(slab(page_size(), 3));
        let also = Arc::clone(&slab);
        let third = thread::Builder::new();
        // Starting a thread takes long; a few of them drop the slab as well.
        let third = (round % 20 == 0).then(|| third.spawn(move || drop(also)).expect("a thread"));
        for _ in 0..2 {
            give.send(take(&slab)).expect("somebody listens");
        }
        let own = take(&slab);
        drop(slab);
        write_ends_of(&own, 1);
        assert_eq!(ends_of(&own), [1, 1]);
        drop(own);
        third.into_iter().for_each(|thread| thread.join().expect("it drops one"));
    }
    drop(give);
    assert_eq!(other.join().expect("it drops them"), 2 * rounds);
}
