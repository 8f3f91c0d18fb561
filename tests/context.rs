//! Symmetric switching: from one context straight to another.
#![cfg(feature = "std")]

mod common;

use std::ptr;

use common::leak;
use switchback::context::{Context, Entry, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};

/// What the contexts of a test share. Only one of them runs at a time.
struct Ring {
    contexts: Vec<Context>,
    next: usize,
    log: Vec<usize>,
    rounds: usize,
}

fn stacks(count: usize) -> Vec<Mapped> {
    (0..count).map(|_| Mapped::new(DEFAULT_RESERVE).expect("a stack")).collect()
}

fn ring(stacks: &[Mapped], entry: Entry, rounds: usize) -> Ring {
    // SAFETY: each test keeps its stacks until the contexts have ended.
    let contexts = stacks.iter().map(|stack| unsafe { Context::new(stack, entry) }.expect("it fits")).collect();
    Ring { contexts, next: 0, log: Vec::new(), rounds }
}

/// Switches to the context after this one, `rounds` times.
unsafe extern "C" fn around(ring: *mut (), running: Running) -> *mut () {
    let ring = ring.cast::<Ring>();
    // SAFETY: the word is the test's ring, and nobody else uses it while this context runs.
    unsafe {
        let me = (*ring).next;
        let count = (*ring).contexts.len();
        assert_eq!(running.context(), (&(*ring).contexts)[me]);
        for _ in 0..(*ring).rounds {
            (*ring).log.push(me);
            (*ring).next = (me + 1) % count;
            let next = (&(*ring).contexts)[(*ring).next];
            assert_eq!(running.switch_to(next, ring.cast()), ring.cast());
        }
    }
    ptr::without_provenance_mut(7)
}

#[test]
fn contexts_switch_in_a_ring() {
    let stacks = stacks(5);
    let mut ring = ring(&stacks, around, 4);
    let contexts = ring.contexts.clone();
    // The first to have made its rounds ends, and with it the root's call. The others have only to end then.
    for context in contexts {
        // SAFETY: stacks and ring outlive the contexts.
        let left = unsafe { context.enter((&raw mut ring).cast()) };
        assert!(matches!(left, Left::Ended(word) if word.addr() == 7));
    }
    assert_eq!(ring.log, [0, 1, 2, 3, 4].repeat(4));
}

/// Leaves to whoever is its root with each number up to the word's.
unsafe extern "C" fn count(mut word: *mut (), running: Running) -> *mut () {
    for n in 1.. {
        if n > word.addr() {
            break;
        }
        // SAFETY: this is our own `running`.
        word = unsafe { running.leave(ptr::without_provenance_mut(n)) };
    }
    ptr::null_mut()
}

#[test]
fn a_context_leaves_to_its_root_and_is_entered_again() {
    let stacks = stacks(1);
    // SAFETY: the stack outlives the context.
    let context = unsafe { Context::new(&stacks[0], count) }.expect("it fits");
    for n in 1..=3 {
        // SAFETY: as above.
        let Left::Suspended(again, word) = (unsafe { context.enter(ptr::without_provenance_mut(3)) }) else {
            panic!("it ended at {n}")
        };
        assert_eq!((again, word.addr()), (context, n));
    }
    // SAFETY: as above.
    assert!(matches!(unsafe { context.enter(ptr::without_provenance_mut(3)) }, Left::Ended(_)));
}

/// Switches to the other context; that one leaves.
unsafe extern "C" fn hand_over(ring: *mut (), running: Running) -> *mut () {
    let ring = ring.cast::<Ring>();
    // SAFETY: as in `around`.
    unsafe {
        let me = (*ring).next;
        (*ring).log.push(me);
        if me == 0 {
            (*ring).next = 1;
            running.switch_to((&(*ring).contexts)[1], ring.cast());
            (*ring).log.push(10);
        } else {
            running.leave(ring.cast());
            (*ring).log.push(11);
        }
    }
    ptr::null_mut()
}

#[test]
fn whoever_is_running_leaves_to_the_root_also_to_another_root_later() {
    let stacks = stacks(2);
    let mut ring = ring(&stacks, hand_over, 0);
    let data = (&raw mut ring).cast();
    let [first, second] = [ring.contexts[0], ring.contexts[1]];
    // SAFETY: stacks and ring outlive the contexts.
    unsafe {
        assert!(matches!(first.enter(data), Left::Suspended(left, _) if left == second));
        // Entered from another depth of this stack: each comes back to the root it was entered by last.
        #[inline(never)]
        unsafe fn deeper(context: Context, data: *mut ()) -> Left {
            let padding = std::hint::black_box([1_u8; 100]);
            // SAFETY: the caller's.
            let left = unsafe { context.enter(data) };
            std::hint::black_box(padding);
            left
        }
        assert!(matches!(deeper(second, data), Left::Ended(_)));
        assert!(matches!(first.enter(data), Left::Ended(_)));
    }
    assert_eq!(ring.log, [0, 1, 11, 10]);
}

#[test]
fn a_stack_without_room_is_refused() {
    let memory = leak(vec![0_u8; 256].into_boxed_slice());
    // SAFETY: nothing runs on it.
    let stack = unsafe { switchback::stack::Borrowed::new(memory) }.expect("room between the aligned ends");
    // SAFETY: the stack is leaked.
    assert!(unsafe { Context::new(&stack, count) }.is_err());
}
