//! Stacks: usable to the last byte, guarded below, given back, and refused with a sentence that names the limit.
#![cfg(feature = "std")]

mod common;
#[path = "common/system.rs"]
mod system;

use std::hint::black_box;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use common::{in_a_child, in_another_process, leak};
use switchback::context::{Context, Left, Running};
use switchback::stack::{
    Borrowed, DEFAULT_RESERVE, GuardKind, Mapped, Pool, Slab, Stack, StackSize, guard_kind, guard_size, usage,
};
use switchback::{Coroutine, Resumed, Yielder, on_stack, target};
use system::{page_size, set_limit};

/// Part of a mapped stack, with ends as they come.
struct Part(Mapped, usize, usize);

// SAFETY: within the mapped stack, which lies still. What is cut off below is left unused.
unsafe impl Stack for Part {
    fn top(&self) -> NonNull<u8> {
        // SAFETY: a few bytes below its top.
        unsafe { self.0.top().sub(self.1) }
    }
    fn limit(&self) -> NonNull<u8> {
        // SAFETY: a few bytes above its limit.
        unsafe { self.0.limit().add(self.2) }
    }
}

#[test]
fn a_stack_whose_ends_are_not_aligned_serves_everything_that_runs_on_stacks() {
    /// Needs its stack aligned: the compiler may store a pair of registers at once.
    fn aligned() -> bool {
        #[repr(align(16))]
        struct Aligned(u128);
        let value = black_box(Aligned(7));
        (&raw const value).addr().is_multiple_of(16) && value.0 == 7
    }
    unsafe extern "C" fn entry(_: *mut (), _: Running) -> *mut () {
        std::ptr::without_provenance_mut(aligned().into())
    }
    for off in 0..16 {
        let part = || Part(Mapped::new(DEFAULT_RESERVE).expect("a stack"), off, 16 - off);
        let mut coroutine = Coroutine::with_stack(part(), |yielder: &Yielder<(), bool>, ()| yielder.suspend(aligned()))
            .expect("it fits");
        assert_eq!(coroutine.resume(()), Resumed::Yielded(true), "{off}");
        assert_eq!(coroutine.resume(()), Resumed::Returned(()));
        assert!(on_stack(&mut part(), aligned), "{off}");
        let stack = part();
        // SAFETY: the stack outlives the context.
        let left = unsafe { Context::new(&stack, entry).expect("it fits").enter(std::ptr::null_mut()) };
        assert!(matches!(left, Left::Ended(word) if word.addr() == 1), "{off}");
    }
}

#[test]
fn every_byte_of_a_mapped_stack_can_be_written() {
    for reserve in [1, page_size(), page_size() + 1, 100_000, DEFAULT_RESERVE] {
        let stack = Mapped::new(reserve).expect("a stack");
        let (limit, top) = (stack.limit(), stack.top());
        let size = top.addr().get() - limit.addr().get();
        assert_eq!(size, reserve.next_multiple_of(page_size()));
        assert_eq!(stack.reserve(), size);
        // SAFETY: the stack's memory, which nobody else uses.
        unsafe {
            limit.write_bytes(0xa5, size);
            assert_eq!(top.sub(1).read(), 0xa5);
        }
    }
}

#[test]
fn a_stack_has_the_guard_and_the_pages_that_its_size_asks_for() {
    let guard = guard_size() + 3 * page_size();
    let stack = Mapped::new(StackSize { reserve: 10 * page_size(), commit: 4 * page_size(), guard }).expect("a stack");
    assert_eq!(stack.reserve(), 10 * page_size());
    if cfg!(miri) {
        return;
    }
    let mut resident = [0_u8; 10];
    // SAFETY: whole pages of a mapping, and a byte for each.
    let answer = unsafe { libc::mincore(stack.limit().as_ptr().cast(), stack.reserve(), resident.as_mut_ptr().cast()) };
    assert_eq!(answer, 0);
    assert_eq!(resident.map(|page| page & 1), [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    for offset in (1..=guard).step_by(page_size()) {
        // SAFETY: the kernel checks the address it reads from.
        let answer = unsafe { libc::write(writer.as_raw_fd(), stack.limit().as_ptr().wrapping_sub(offset).cast(), 1) };
        assert_eq!(answer, -1, "{offset} bytes below the limit");
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn what_a_stack_has_used_is_measured_to_the_page() {
    let page = page_size();
    let stack = Mapped::new(200 * page).expect("a stack");
    assert_eq!(usage(&stack).map(|usage| (usage.resident, usage.deepest)), Some((0, 0)));
    let mut expected = 0;
    // More places than one call of the kernel tells.
    for page_from_top in (2..=200).step_by(2) {
        // SAFETY: within a stack on which nothing runs.
        unsafe { stack.top().sub(page_from_top * page).write(1) };
        expected += page;
        assert_eq!(usage(&stack).map(|usage| (usage.resident, usage.deepest)), Some((expected, page_from_top * page)));
    }
    let part = Part(Mapped::new(10 * page).expect("a stack"), 100, 50);
    assert_eq!(usage(&part).map(|usage| usage.resident), Some(0));
    // SAFETY: the ends of a stack on which nothing runs.
    unsafe {
        part.top().sub(1).write(1);
        part.limit().write(1);
    }
    let used = usage(&part).expect("Linux says it");
    assert_eq!((used.resident, used.deepest), (2 * page - 150, 10 * page - 150), "no more than there is of it");
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn what_a_pool_and_a_slab_hold_is_measured_to_the_page() {
    let page = page_size();
    let size = StackSize { reserve: 20 * page, commit: 0, guard: 600 * page };
    let pool = Pool::of(size).expect("a pool");
    let slab = Slab::new(size, 100).expect("a slab");
    let figures = || (pool.resident().expect("Linux says it"), slab.resident().expect("Linux says it"));
    assert_eq!(figures(), (0, 0), "nothing is mapped, or nothing touched");
    let pooled: Vec<_> = (0..100).map(|_| pool.take().expect("a stack")).collect();
    let slabbed: Vec<_> = (0..100).map(|_| slab.take().expect("a stack")).collect();
    assert_eq!(figures(), (0, 0));
    let touch = |stack: &dyn Stack, pages: usize| {
        for page_from_top in 1..=pages {
            // SAFETY: within a stack on which nothing runs.
            unsafe { stack.top().sub(page_from_top * page).write(1) };
        }
    };
    let mut touched = 0;
    // More stacks than one call of the kernel tells, some of them whole.
    for (number, (pooled, slabbed)) in pooled.iter().zip(&slabbed).enumerate() {
        let pages = [0, 3, 20, 1][number % 4];
        touch(pooled, pages);
        touch(slabbed, pages);
        touched += pages * page;
    }
    assert_eq!(figures(), (touched, touched));
    drop((pooled, slabbed));
    assert!(pool.resident().is_some_and(|bytes| bytes > 0 && bytes < touched), "some of it was given back");
    assert_eq!(slab.resident(), Some(touched), "all of it is kept");
    pool.trim();
    slab.trim();
    assert_eq!(figures(), (0, 0));
}

#[test]
fn a_size_that_makes_no_sense_is_refused() {
    assert!(Mapped::new(0).is_err());
    for reserve in [usize::MAX, usize::MAX / 2, isize::MAX as usize] {
        let error = Mapped::new(reserve).expect_err("it exceeds the address space");
        assert!(error.to_string().contains("exceeds the address space"), "{error}");
    }
    // It could be a size, but a quarter of all addresses is not to be had often.
    let mut stacks = Vec::new();
    let error = loop {
        match Mapped::new(usize::MAX / 4) {
            Ok(stack) => stacks.push(stack),
            Err(error) => break error,
        }
    };
    assert!(stacks.len() <= 4);
    assert!(std::io::Error::from(error).kind() == std::io::ErrorKind::OutOfMemory, "{error}");
}

#[test]
fn a_dropped_stack_gives_its_mapping_back() {
    // Far more in turn than fit at once, on 32-bit machines and on those with 47 bits.
    let reserve = if cfg!(target_pointer_width = "32") { 512 << 20 } else { 1 << 40 };
    // Miri needs no proof by exhaustion: it reports what is leaked.
    let (reserve, turns) = if cfg!(miri) { (1 << 20, 3) } else { (reserve, 300) };
    for _ in 0..turns {
        let mut coroutine = Coroutine::with_stack(
            Mapped::new(reserve).expect("address space comes back"),
            |yielder: &Yielder<(), ()>, ()| yielder.suspend(()),
        )
        .expect("it fits");
        assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    }
}

#[inline(never)]
fn recurse(depth: usize) -> usize {
    let frame = black_box([depth; 16]);
    if depth == usize::MAX { 0 } else { recurse(depth + 1) + frame[depth % 16] }
}

/// One frame larger than the stack and the smallest guard. Its bottom is written first, if the compiler lets it.
#[inline(never)]
fn one_huge_frame() -> u8 {
    let mut frame = MaybeUninit::<[u8; DEFAULT_RESERVE + 32 * 1024]>::uninit();
    let bottom = black_box(frame.as_mut_ptr().cast::<u8>());
    // SAFETY: within the array.
    unsafe {
        bottom.write_volatile(1);
        bottom.read_volatile()
    }
}

fn dies_of_overflow(test: &str, overflow: fn()) {
    let Some(child) = in_a_child(test, || {
        // A neighbour below the guard that an overflow must not reach.
        let _neighbours: Vec<_> = (0..4).map(|_| Mapped::new(DEFAULT_RESERVE).expect("a stack")).collect();
        let mut coroutine = Coroutine::new(move |_: &Yielder<(), ()>, ()| overflow()).expect("a stack");
        let _ = coroutine.resume(());
        println!("survived");
    }) else {
        return;
    };
    assert!(!String::from_utf8_lossy(&child.stdout).contains("survived"));
    assert!(died_of(&child.status, &[libc::SIGSEGV, libc::SIGBUS]), "{child:?}");
}

/// Whether one of these signals ended the process, or QEMU on its behalf.
fn died_of(status: &std::process::ExitStatus, signals: &[i32]) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal().is_some_and(|signal| signals.contains(&signal))
}

#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the frames of a coroutine are not on its stack")]
fn an_overflow_by_recursion_faults_in_the_guard() {
    dies_of_overflow("an_overflow_by_recursion_faults_in_the_guard", || {
        black_box(recurse(0));
    });
}

#[test]
#[cfg_attr(any(miri, switchback_threads), ignore = "the frames of a coroutine are not on its stack")]
fn an_overflow_by_one_huge_frame_faults_in_the_guard() {
    dies_of_overflow("an_overflow_by_one_huge_frame_faults_in_the_guard", || {
        black_box(one_huge_frame());
    });
}

#[test]
#[cfg_attr(miri, ignore = "Miri protects no pages")]
fn every_page_from_the_guard_down_is_out_of_reach_and_every_page_above_it_is_not() {
    let stack = Mapped::new(4 * page_size()).expect("a stack");
    let limit = stack.limit().as_ptr();
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    // The kernel reads the byte for us and answers EFAULT where we would have died.
    let readable = |address: *mut u8| {
        // SAFETY: nothing is written to memory; the kernel checks the address it reads from.
        match unsafe { libc::write(writer.as_raw_fd(), address.cast(), 1) } {
            1 => true,
            _ => {
                assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
                false
            }
        }
    };
    for offset in (1..=guard_size()).step_by(page_size()) {
        assert!(!readable(limit.wrapping_sub(offset)), "{offset} bytes below the limit");
    }
    for offset in (0..stack.reserve()).step_by(page_size()) {
        assert!(readable(limit.wrapping_add(offset)), "{offset} bytes above the limit");
    }
    writer.write_all(b"x").expect("the pipe works");
    reader.read_exact(&mut [0; 5]).expect("four bytes of the stack and one of ours");
}

#[test]
fn the_guard_is_large_enough_for_a_target_without_stack_probes() {
    assert!(guard_size() >= page_size());
    assert!(guard_size().is_multiple_of(page_size()));
    assert!(target::STACK_PROBES || guard_size() >= 64 * 1024);
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_address_space_limit_is_named_when_it_is_met() {
    let Some(child) = in_a_child("the_address_space_limit_is_named_when_it_is_met", || {
        // Room for what runs already and a little more.
        set_limit(libc::RLIMIT_AS, 1 << 20);
        let error = Mapped::new(64 << 20).expect_err("there is no room");
        println!("refused: {error}");
    }) else {
        return;
    };
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains("refused: no address space left for a stack of"), "{child:?}");
    assert!(said.contains("RLIMIT_AS"), "{said}");
}

#[test]
#[cfg_attr(
    any(miri, switchback_threads),
    ignore = "under Miri a stack is no mapping, and the start of a thread aborts when no mapping is left"
)]
fn the_mapping_limit_is_named_before_it_is_met() {
    const TEST: &str = "the_mapping_limit_is_named_before_it_is_met";
    if std::env::var_os("SWITCHBACK_GUARD").is_none() {
        // With guard regions nothing comes near it.
        let child = in_another_process(TEST, &[("SWITCHBACK_GUARD", "protection")]);
        assert!(child.status.success(), "{child:?}");
        return;
    }
    assert_eq!(guard_kind(), GuardKind::Protection);
    let mut stacks = Vec::new();
    let error = loop {
        match Mapped::new(page_size()) {
            Ok(stack) => stacks.push(stack),
            Err(error) => break error,
        }
        if stacks.len() > 100_000 {
            // A system tuned for more mappings than this test wants to make.
            return;
        }
    };
    // The rest of the program goes on: a thread takes mappings.
    std::thread::spawn(|| ()).join().expect("there are mappings left for it");
    // Everything that exists goes on, and one given back is one that can be had.
    stacks.pop();
    let mut coroutine =
        Coroutine::with_stack(Mapped::new(page_size()).expect("one was given back"), |_: &Yielder<(), ()>, ()| 1)
            .expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Returned(1));
    drop((coroutine, stacks));
    let message = error.to_string();
    assert!(message.contains("vm.max_map_count"), "{message}");
}

#[test]
fn a_coroutine_runs_on_memory_of_its_creators() {
    let memory = leak(vec![0_u8; 64 * 1024 + 7].into_boxed_slice());
    // Misaligned at both ends.
    // SAFETY: the coroutine needs far less.
    let stack = unsafe { Borrowed::new(&mut memory[3..]) }.expect("room between the aligned ends");
    assert!(stack.top().addr().get().is_multiple_of(target::STACK_ALIGNMENT));
    let mut coroutine =
        Coroutine::with_stack(stack, |yielder: &Yielder<u32, u32>, n| yielder.suspend(n + 1)).expect("it fits");
    assert_eq!(coroutine.resume(1), Resumed::Yielded(2));
    assert_eq!(coroutine.resume(3), Resumed::Returned(3));
}

#[test]
fn memory_without_room_for_a_stack_is_refused() {
    for size in [0, 1, 15] {
        let memory = leak(vec![0_u8; size].into_boxed_slice());
        // SAFETY: nothing runs on it.
        assert!(unsafe { Borrowed::new(memory) }.is_err_and(|error| error.to_string().contains("too small")));
    }
    let memory = leak(vec![0_u8; 512].into_boxed_slice());
    // SAFETY: nothing runs on it.
    let stack = unsafe { Borrowed::new(memory) }.expect("room between the aligned ends");
    let error = Coroutine::with_stack(stack, |_: &Yielder<(), ()>, ()| ()).expect_err("too small for a coroutine");
    assert!(error.to_string().contains("too small"), "{error}");
}
