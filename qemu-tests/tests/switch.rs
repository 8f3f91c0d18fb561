//! Floor 1 by itself: the switch keeps every callee-saved register on both sides.
//!
//! `src/arch` is compiled into this test, because the functions here must have nothing in their registers at a switch.
//! A switch that loses a register then leaves them unharmed and is reported by that register's name. Above floor 1 the
//! compiler keeps pointers of its own in the register, and a lost one ends the process before anybody can name it.

#[path = "../../src/arch/mod.rs"]
#[allow(dead_code, reason = "floors 2 and 3 use the rest")]
mod arch;

use std::ffi::c_void;
use std::mem::MaybeUninit;

use arch::{Link, Signal, StackPointer, Word};
use qemu_tests::{emulated, registers_kept_by};

/// Where the two sides of a switch meet. Its address is the word that travels, both ways, so that neither side needs
/// to remember it.
struct Meeting {
    /// The coroutine, while it is suspended; `None` once it has returned.
    suspended: Option<StackPointer>,
    /// The resumer, while the coroutine runs.
    resumer: Option<StackPointer>,
    /// How often the coroutine suspends before it returns.
    suspends: u64,
    /// What the coroutine's fixtures found, in order.
    coroutine_kept: Vec<Result<(), Vec<&'static str>>>,
}

/// Resumes once. Nothing is live across the switch.
unsafe extern "C-unwind" fn resume(meeting: *mut c_void) {
    // SAFETY: `meeting` is a `Meeting` that outlives the coroutine; the coroutine gives its address back.
    unsafe {
        let target = (*meeting.cast::<Meeting>()).suspended.take().expect("it is suspended");
        let (word, suspended) = arch::resume(target, Word::new(meeting.cast()), 0);
        (*word.assume_init().cast::<Meeting>()).suspended = suspended;
    }
}

/// Suspends once. Nothing is live across the switch.
unsafe extern "C-unwind" fn suspend(meeting: *mut c_void) {
    // SAFETY: as in `resume`, the other way round.
    unsafe {
        let target = (*meeting.cast::<Meeting>()).resumer.take().expect("it is resumed");
        let (word, _, resumer) = arch::suspend(target, Word::new(meeting.cast()));
        (*word.assume_init().cast::<Meeting>()).resumer = Some(resumer);
    }
}

/// The coroutine.
unsafe extern "C" fn entry(word: Word, _: Signal, _: usize, link: *const Link) -> Word {
    // SAFETY: the word comes from `resume`, the link from the trampoline. The trampoline returns to the link's parent,
    // so that must be the last resumer.
    unsafe {
        let meeting = word.assume_init().cast::<Meeting>();
        (*meeting).resumer = Some((*link).parent.get());
        for round in 0..(*meeting).suspends {
            let kept = registers_kept_by(2 * round, suspend, meeting.cast());
            (*meeting).coroutine_kept.push(kept);
        }
        (*link).parent.set((*meeting).resumer.take().expect("it is resumed"));
    }
    word
}

/// Room for the fixtures, and as aligned as any stack must be.
fn stack() -> Vec<MaybeUninit<u128>> {
    const { assert!(align_of::<u128>() >= arch::STACK_ALIGNMENT) };
    vec![MaybeUninit::uninit(); (256 << 10) / size_of::<u128>()]
}

/// Resumes a coroutine that suspends so many times until it has returned, each side filling the registers anew each
/// time. The answer is what was kept: by the resumer at each resume, and by the coroutine at each suspend.
fn switch_back_and_forth(suspends: u64) -> [Vec<Result<(), Vec<&'static str>>>; 2] {
    let mut stack = stack();
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the memory is aligned and belongs to the coroutine until this function returns.
    let suspended = unsafe { arch::prepare(top.cast(), entry, std::ptr::null_mut()) };
    let mut meeting = Meeting { suspended: Some(suspended), resumer: None, suspends, coroutine_kept: Vec::new() };
    let data = (&raw mut meeting).cast();

    let mut resumer_kept = Vec::new();
    for round in 0..=suspends {
        // SAFETY: `resume` takes a `Meeting`.
        resumer_kept.push(unsafe { registers_kept_by(2 * round + 1, resume, data) });
    }
    assert!(meeting.suspended.is_none(), "the coroutine has returned");
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

/// Where two coroutines that transfer to each other meet.
struct Crossing {
    /// The one that does not run.
    waiting: Option<StackPointer>,
    /// Whoever resumed the first of them, while one runs.
    root: Option<StackPointer>,
    left: u64,
    kept: Vec<Result<(), Vec<&'static str>>>,
}

/// Transfers once. Nothing is live across the switch.
unsafe extern "C-unwind" fn cross(crossing: *mut c_void) {
    // SAFETY: as in `resume`. A stack pointer fills the place of the one just taken.
    unsafe {
        let crossing = crossing.cast::<Crossing>();
        let target = (*crossing).waiting.take().expect("the other one waits");
        let root = (*crossing).root.take().expect("they have a root");
        let place = (&raw mut (*crossing).waiting).cast();
        let (word, _, root) = arch::transfer(target, root, place, Word::new(crossing.cast()));
        (*word.assume_init().cast::<Crossing>()).root = Some(root);
    }
}

unsafe extern "C" fn cross_until_done(word: Word, _: Signal, seed: usize, link: *const Link) -> Word {
    // SAFETY: as in `entry`.
    unsafe {
        let crossing = word.assume_init().cast::<Crossing>();
        (*crossing).root = Some((*link).parent.get());
        // The third argument is the address of the frame, so each coroutine has seeds of its own.
        let mut seed = seed as u64;
        while (*crossing).left > 0 {
            (*crossing).left -= 1;
            seed += 1;
            let kept = registers_kept_by(seed, cross, crossing.cast());
            (*crossing).kept.push(kept);
        }
        (*link).parent.set((*crossing).root.take().expect("they have a root"));
    }
    word
}

#[test]
fn a_transfer_keeps_all_callee_saved_registers() {
    let mut stacks = [stack(), stack()];
    // SAFETY: the memory is aligned and belongs to the coroutines until this function returns; one of them is then left
    // where it waits.
    let [first, waiting] = stacks.each_mut().map(|stack| unsafe {
        arch::prepare(stack.as_mut_ptr_range().end.cast(), cross_until_done, std::ptr::null_mut())
    });
    let mut crossing = Crossing { waiting: Some(waiting), root: None, left: 7, kept: Vec::new() };
    // SAFETY: both take a `Crossing`.
    let (_, suspended) = unsafe { arch::resume(first, Word::new((&raw mut crossing).cast()), 0) };
    assert!(suspended.is_none(), "the one that found nothing left has returned");
    // The last transfer was to the one that returned.
    assert_eq!(crossing.kept, vec![Ok(()); 6]);
}
