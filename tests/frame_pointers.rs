//! Frame pointers lead from whatever runs to its resumers: what profilers follow that know nothing of unwind tables.
//!
//! Only where all code here has them, as in the builds of `cargo qemu --builds` that are called after them. The standard
//! library's own code may have none, so a walk begins and ends in functions of this file, with nothing of it between.
#![cfg(all(feature = "std", switchback_frame_pointers))]

use std::arch::asm;
use std::cell::RefCell;
use std::hint::black_box;
use std::ptr;

use switchback::context::{Context, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Resumed, Yielder, on_stack};

/// The frame pointer of the function that this is inlined into.
#[inline(always)]
fn frame_pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe {
        cfg_select! {
            target_arch = "x86_64" => asm!("mov {}, rbp", out(reg) pointer, options(nomem, nostack, preserves_flags)),
            target_arch = "aarch64" => asm!("mov {}, x29", out(reg) pointer, options(nomem, nostack, preserves_flags)),
            all(target_arch = "arm", thumb) => asm!("mov {}, r7", out(reg) pointer, options(nomem, nostack, preserves_flags)),
            target_arch = "arm" => asm!("mov {}, r11", out(reg) pointer, options(nomem, nostack, preserves_flags)),
            target_arch = "riscv64" => asm!("mv {}, s0", out(reg) pointer, options(nomem, nostack, preserves_flags)),
            target_arch = "loongarch64" => asm!("move {}, $fp", out(reg) pointer, options(nomem, nostack, preserves_flags)),
        }
    }
    pointer
}

/// From a frame pointer to its record, the caller's frame pointer and the return address: they lie below it on some.
const RECORD: isize = if cfg!(any(target_arch = "riscv64", target_arch = "loongarch64")) { -2 } else { 0 };

/// A function on the way: where it begins, and its frame pointer.
#[derive(Clone, Copy)]
struct Frame {
    function: usize,
    pointer: usize,
}

thread_local! {
    /// The frames that a walk must come through, outermost first.
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// Notes the function that this is inlined into, calls `f`, and forgets it.
macro_rules! on_the_way {
    ($function:expr, $f:expr) => {{
        let frame = Frame { function: $function as *const () as usize & !1, pointer: frame_pointer() };
        FRAMES.with_borrow_mut(|frames| frames.push(frame));
        // Not the function's last act, which would leave no frame.
        let result = black_box($f);
        FRAMES.with_borrow_mut(|frames| frames.pop());
        result
    }};
}

/// Follows the frame pointers through all functions on the way, in order, to the outermost.
#[inline(never)]
fn walk() {
    let mut pointer = frame_pointer();
    let mut frames = FRAMES.with_borrow(Clone::clone);
    let mut walked = Vec::new();
    while let Some(&Frame { function, pointer: expected }) = frames.last() {
        assert!(pointer != 0 && walked.len() < 200, "no way to {function:#x} of {} frames: {walked:#x?}", frames.len());
        let record = ptr::with_exposed_provenance::<usize>(pointer).wrapping_offset(RECORD);
        // SAFETY: where a chain of frame pointers leads is a frame record of a function that has not returned.
        let [caller, return_address] = unsafe { record.cast::<[usize; 2]>().read() };
        walked.push((pointer, return_address));
        if caller == expected {
            frames.pop();
            // None of the functions here is larger than this.
            let inside = function..function + 4096;
            assert!(inside.contains(&return_address), "not a return into {function:#x}: {walked:#x?}");
        }
        pointer = caller;
    }
}

fn mapped() -> Mapped {
    Mapped::new(DEFAULT_RESERVE).expect("a stack")
}

#[inline(never)]
fn the_function_that_resumes(coroutine: &mut Coroutine<(), (), ()>) -> Resumed<(), ()> {
    on_the_way!(the_function_that_resumes, coroutine.resume(()))
}

#[inline(never)]
fn the_function_that_enters(context: Context, pair: *mut ()) -> Left {
    // SAFETY: the callers keep what it needs until it has ended.
    on_the_way!(the_function_that_enters, unsafe { context.enter(pair) })
}

#[inline(never)]
fn the_function_that_calls(f: fn()) {
    let mut stack = mapped();
    on_the_way!(the_function_that_calls, on_stack(&mut stack, f))
}

unsafe extern "C" fn walk_in_a_context(_: *mut (), _: Running) -> *mut () {
    walk();
    ptr::null_mut()
}

#[inline(never)]
fn walk_in_a_context_of_its_own() {
    let stack = mapped();
    // SAFETY: the stack outlives the context, which ends at once.
    let context = unsafe { Context::new(&stack, walk_in_a_context) }.expect("it fits");
    assert!(matches!(the_function_that_enters(context, ptr::null_mut()), Left::Ended(_)));
}

#[inline(never)]
fn in_the_inner_coroutine() {
    on_the_way!(in_the_inner_coroutine, the_function_that_calls(walk_in_a_context_of_its_own));
}

#[inline(never)]
fn in_the_outer_coroutine() {
    let mut inner = Coroutine::new(|_: &Yielder<(), ()>, ()| in_the_inner_coroutine()).expect("a stack");
    on_the_way!(in_the_outer_coroutine, the_function_that_resumes(&mut inner));
}

#[test]
fn frame_pointers_lead_through_coroutines_calls_and_contexts_in_order() {
    let mut outer = Coroutine::new(|_: &Yielder<(), ()>, ()| in_the_outer_coroutine()).expect("a stack");
    assert_eq!(the_function_that_resumes(&mut outer), Resumed::Returned(()));
}

#[inline(never)]
fn another_function_that_resumes(coroutine: &mut Coroutine<(), (), ()>) -> Resumed<(), ()> {
    on_the_way!(another_function_that_resumes, coroutine.resume(()))
}

#[test]
fn frame_pointers_lead_to_whoever_resumed_last() {
    let mut coroutine = Coroutine::new(|yielder: &Yielder<(), ()>, ()| {
        for _ in 0..3 {
            walk();
            yielder.suspend(());
        }
        walk();
    })
    .expect("a stack");
    for _ in 0..2 {
        the_function_that_resumes(&mut coroutine);
        another_function_that_resumes(&mut coroutine);
    }
    assert!(coroutine.is_finished());
}

/// What unwinds a coroutine resumes it too, at its second landing.
#[test]
fn frame_pointers_lead_to_whoever_drops_a_coroutine() {
    struct WalkWhenDropped;
    impl Drop for WalkWhenDropped {
        fn drop(&mut self) {
            walk();
        }
    }
    #[inline(never)]
    fn the_function_that_drops(coroutine: Coroutine<(), (), ()>) {
        on_the_way!(the_function_that_drops, drop(coroutine));
    }

    let mut coroutine = Coroutine::new(|yielder: &Yielder<(), ()>, ()| {
        let catcher = std::panic::AssertUnwindSafe(WalkWhenDropped);
        yielder.suspend(());
        drop(catcher);
    })
    .expect("a stack");
    the_function_that_resumes(&mut coroutine);
    the_function_that_drops(coroutine);
}

/// What the two contexts below share.
struct Pair {
    waiting: Option<Context>,
    left: usize,
}

unsafe extern "C" fn alternate(pair: *mut (), running: Running) -> *mut () {
    // SAFETY: the word is the pair of the test below, and only one of the two contexts runs at a time.
    unsafe {
        let pair = pair.cast::<Pair>();
        walk();
        while (*pair).left > 0 {
            (*pair).left -= 1;
            let next = (*pair).waiting.replace(running.context()).expect("the other one waits");
            running.switch_to(next, pair.cast());
            walk();
        }
    }
    ptr::null_mut()
}

/// Not to whoever switched to it: that one is suspended.
#[test]
fn frame_pointers_lead_from_a_context_to_its_root_however_it_was_switched_to() {
    let stacks = [mapped(), mapped()];
    for left in 0..4 {
        // SAFETY: the stacks outlive the contexts, of which one ends and the other is not continued.
        let [first, second] =
            stacks.each_ref().map(|stack| unsafe { Context::new(stack, alternate) }.expect("it fits"));
        let mut pair = Pair { waiting: Some(second), left };
        assert!(matches!(the_function_that_enters(first, (&raw mut pair).cast()), Left::Ended(_)));
    }
}
