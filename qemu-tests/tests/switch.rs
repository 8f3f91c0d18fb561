//! Floor 1 by itself: the switch keeps every callee-saved register on both sides.
//!
//! `src/arch` is compiled into this test, because the functions here must have nothing in their registers at a switch.
//! A switch that loses a register then leaves them unharmed and is reported by that register's name. Above floor 1 the
//! compiler keeps pointers of its own in the register, and a lost one ends the process before anybody can name it.

#[path = "../../src/arch/mod.rs"]
#[allow(dead_code, unused_imports, reason = "floors 2 and 3 use the rest")]
mod arch;

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::MaybeUninit;

use arch::native;
use arch::{Link, Word};
use qemu_tests::{emulated, registers_kept_by};

/// Where the two sides of a switch meet. Its address is the word that travels, both ways, so that neither side needs
/// to remember it.
struct Meeting {
    /// The coroutine's; null once it has returned.
    link: *const Link,
    /// The coroutine's, while it is suspended.
    stack_pointer: usize,
    /// The resumer's, while the coroutine runs.
    parent: usize,
    /// How often the coroutine suspends before it returns.
    suspends: u64,
    /// What the coroutine's fixtures found, in order.
    coroutine_kept: Vec<Result<(), Vec<&'static str>>>,
}

/// The third word of a link: the landing of a suspended context, for the trampoline's return the parent's stack pointer.
///
/// # Safety
///
/// The link must be valid.
unsafe fn state<'a>(link: *const Link) -> &'a Cell<usize> {
    // SAFETY: the caller's promise, and the layout that the assembly relies on.
    unsafe { &*link.cast::<Cell<usize>>().add(2) }
}

/// Resumes once. Nothing is live across the switch.
unsafe extern "C-unwind" fn resume(meeting: *mut c_void) {
    // SAFETY: `meeting` is a `Meeting` that outlives the coroutine; the coroutine gives its address back.
    unsafe {
        let Meeting { link, stack_pointer, .. } = *meeting.cast::<Meeting>();
        let (word, link, stack_pointer) = native::resume(state(link).get(), stack_pointer, Word::new(meeting.cast()));
        let meeting = word.assume_init().cast::<Meeting>();
        (*meeting).link = link;
        (*meeting).stack_pointer = stack_pointer;
    }
}

/// Suspends once. Nothing is live across the switch.
unsafe extern "C-unwind" fn suspend(meeting: *mut c_void) {
    // SAFETY: as in `resume`, the other way round.
    unsafe {
        let Meeting { link, parent, .. } = *meeting.cast::<Meeting>();
        let (word, _, parent) = native::suspend(link, parent, Word::new(meeting.cast()));
        (*word.assume_init().cast::<Meeting>()).parent = parent;
    }
}

/// The coroutine.
unsafe extern "C" fn entry(word: Word, link: *const Link) -> Word {
    // SAFETY: the word comes from `resume`, the link from the trampoline. The trampoline returns to the parent that the
    // link names, so that must be the last resumer.
    unsafe {
        let meeting = word.assume_init().cast::<Meeting>();
        (*meeting).parent = state(link).get();
        for round in 0..(*meeting).suspends {
            let kept = registers_kept_by(2 * round, suspend, meeting.cast());
            (*meeting).coroutine_kept.push(kept);
        }
        state(link).set((*meeting).parent);
    }
    word
}

/// As aligned as any stack must be.
#[repr(C, align(16))]
struct Unit([MaybeUninit<u8>; 16]);

/// Room for the fixtures.
fn stack() -> Vec<Unit> {
    const { assert!(align_of::<Unit>() >= align_of::<Link>()) };
    std::iter::repeat_with(|| Unit([MaybeUninit::uninit(); 16])).take(16 << 10).collect()
}

/// Resumes a coroutine that suspends so many times until it has returned, each side filling the registers anew each
/// time. The answer is what was kept: by the resumer at each resume, and by the coroutine at each suspend.
fn switch_back_and_forth(suspends: u64) -> [Vec<Result<(), Vec<&'static str>>>; 2] {
    let mut stack = stack();
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the memory is aligned and belongs to the coroutine until this function returns.
    let link = unsafe { arch::prepare(top.cast(), entry, std::ptr::null_mut()) };
    let mut meeting = Meeting { link, stack_pointer: link.addr(), parent: 0, suspends, coroutine_kept: Vec::new() };
    let data = (&raw mut meeting).cast();

    let mut resumer_kept = Vec::new();
    for round in 0..=suspends {
        // SAFETY: `resume` takes a `Meeting`.
        resumer_kept.push(unsafe { registers_kept_by(2 * round + 1, resume, data) });
    }
    assert!(meeting.link.is_null(), "the coroutine has returned");
    [resumer_kept, meeting.coroutine_kept]
}

/// The coroutine's fixtures put back what they found: it returns with the values of the first resume in the registers,
/// so the last resume must keep its own against those.
#[test]
fn a_resume_keeps_all_callee_saved_registers() {
    let [resumer_kept, _] = switch_back_and_forth(2);
    assert_eq!(resumer_kept, [Ok(()), Ok(()), Ok(())], "first resume, second resume, return");
}

#[test]
fn a_suspend_keeps_all_callee_saved_registers() {
    let [_, coroutine_kept] = switch_back_and_forth(2);
    assert_eq!(coroutine_kept, [Ok(()), Ok(())]);
}

#[test]
fn a_coroutine_that_returns_at_once_keeps_all_callee_saved_registers() {
    assert_eq!(switch_back_and_forth(0), [vec![Ok(())], vec![]]);
}

#[test]
fn many_switches_keep_all_callee_saved_registers() {
    let rounds = if emulated() { 1_000 } else { 100_000 };
    for kept in switch_back_and_forth(rounds) {
        assert_eq!(kept.iter().find(|kept| kept.is_err()), None);
    }
}

#[test]
fn a_call_on_another_stack_keeps_all_callee_saved_registers() {
    unsafe extern "C" fn fill_on_the_other_stack(kept: *mut ()) {
        unsafe extern "C-unwind" fn nothing(_: *mut c_void) {}
        // SAFETY: `nothing` takes anything; `kept` is the variable below.
        unsafe { *kept.cast() = Some(registers_kept_by(1, nothing, std::ptr::null_mut())) }
    }
    unsafe extern "C-unwind" fn call(call: *mut c_void) {
        // SAFETY: `call` is the pair below, whose stack nobody else uses.
        unsafe {
            let (kept, top) = *call.cast::<(*mut (), *mut u8)>();
            arch::call_on(kept, fill_on_the_other_stack, top);
        }
    }

    let mut stack = stack();
    let mut inside: Option<Result<(), Vec<&'static str>>> = None;
    let mut pair: (*mut (), *mut u8) = ((&raw mut inside).cast(), stack.as_mut_ptr_range().end.cast());
    // SAFETY: `call` takes such a pair.
    let outside = unsafe { registers_kept_by(2, call, (&raw mut pair).cast()) };
    assert_eq!((outside, inside), (Ok(()), Some(Ok(()))));
}

/// Where two contexts that transfer to each other meet.
struct Crossing {
    /// First the one that runs, then the one that waits.
    links: [*const Link; 2],
    /// The stack pointer of whoever resumed the first of them.
    parent: usize,
    left: u64,
    kept: Vec<Result<(), Vec<&'static str>>>,
}

/// Transfers once. Nothing is live across the switch.
unsafe extern "C-unwind" fn cross(crossing: *mut c_void) {
    // SAFETY: as in `resume`. The link of one that waits holds its stack pointer.
    unsafe {
        let crossing = crossing.cast::<Crossing>();
        (*crossing).links.reverse();
        let Crossing { links: [target, link], parent, .. } = *crossing;
        let stack_pointer = (*target).stack_pointer.get();
        let (word, parent) =
            native::transfer(state(target).get(), stack_pointer, link, parent, Word::new(crossing.cast()));
        (*word.assume_init().cast::<Crossing>()).parent = parent;
    }
}

unsafe extern "C" fn cross_until_done(word: Word, link: *const Link) -> Word {
    // SAFETY: as in `entry`.
    unsafe {
        let crossing = word.assume_init().cast::<Crossing>();
        (*crossing).parent = state(link).get();
        // Each context has seeds of its own.
        let mut seed = link.addr() as u64;
        while (*crossing).left > 0 {
            (*crossing).left -= 1;
            seed += 1;
            let kept = registers_kept_by(seed, cross, crossing.cast());
            (*crossing).kept.push(kept);
        }
        state(link).set((*crossing).parent);
    }
    word
}

#[test]
fn a_transfer_keeps_all_callee_saved_registers() {
    let mut stacks = [stack(), stack()];
    // SAFETY: the memory is aligned and belongs to the contexts until this function returns; one of them is then left
    // where it waits.
    let links = stacks.each_mut().map(|stack| unsafe {
        arch::prepare(stack.as_mut_ptr_range().end.cast(), cross_until_done, std::ptr::null_mut())
    });
    let mut crossing = Crossing { links, parent: 0, left: 7, kept: Vec::new() };
    // SAFETY: both take a `Crossing`.
    let back = unsafe { arch::resume(links[0], links[0].addr(), Word::new((&raw mut crossing).cast())) };
    assert!(back.link.is_null(), "the one that found nothing left has returned");
    // The last transfer was to the one that returned.
    assert_eq!(crossing.kept, vec![Ok(()); 6]);
}
