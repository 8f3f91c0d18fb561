//! Signal handlers that run on a coroutine's stack harm nothing: a storm of signals, each of whose handlers overwrites
//! what lies below its own frame, while both sides of switches keep all their registers.
//!
//! The signals come wherever they come. `stepping` is the test that leaves out no instruction.

use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use qemu_tests::{emulated, registers_kept};
use switchback::context::{Context, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Resumed, Yielder};

/// Signals handled so far, by all tests.
static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// On the stack of whoever runs.
extern "C" fn overwrite_what_lies_below(_: libc::c_int) {
    let mut frame = [0_u8; 2048];
    black_box(&mut frame).fill(0xa5);
    // A count alone.
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Calls `round` again and again while another thread sends many signals to this one.
fn in_a_storm(mut round: impl FnMut(u64)) {
    // SAFETY: the handler calls nothing that a handler may not; all zeros is an action without a stack of
    // its own.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = overwrite_what_lies_below as extern "C" fn(_) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()), 0);
    }
    // SAFETY: no preconditions.
    let target = unsafe { libc::pthread_self() };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..if emulated() { 100 } else { 1000 } {
                let before = HANDLED.load(Ordering::Relaxed);
                // SAFETY: the thread waits for this one before it ends.
                unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
                // One at a time, or the thread would do nothing else.
                while HANDLED.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
            }
            // Nothing is handed over with the flag.
            over.store(true, Ordering::Relaxed);
        });
        let mut seed = 0;
        while !over.load(Ordering::Relaxed) {
            round(seed);
            seed += 100;
        }
    });
}

#[test]
fn coroutines_keep_all_registers_in_a_storm_of_signals() {
    in_a_storm(|seed| {
        let mut coroutine = Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
            for seed in seed..seed + 10 {
                assert_eq!(registers_kept(seed, || yielder.suspend(())), Ok(()), "lost by the coroutine");
            }
        })
        .expect("a coroutine");
        for seed in seed + 50..seed + 60 {
            let kept = registers_kept(seed, || assert_eq!(coroutine.resume(()), Resumed::Yielded(())));
            assert_eq!(kept, Ok(()), "lost by the resumer");
        }
        assert_eq!(coroutine.resume(()), Resumed::Returned(()));
    });
}

#[test]
fn contexts_keep_all_registers_in_a_storm_of_signals() {
    struct Pair {
        waiting: Option<Context>,
        seed: u64,
    }

    unsafe extern "C" fn alternate(pair: *mut (), running: Running) -> *mut () {
        // SAFETY: the word is the pair below, and only one of the two contexts runs at a time.
        unsafe {
            for _ in 0..10 {
                let shared = pair.cast::<Pair>();
                let next = (*shared).waiting.replace(running.context()).expect("the other one waits");
                (*shared).seed += 1;
                let kept = registers_kept((*shared).seed, || {
                    assert_eq!(running.switch_to(next, pair), pair);
                });
                assert_eq!(kept, Ok(()), "lost by a context");
            }
        }
        pair
    }

    let stacks = [(); 2].map(|()| Mapped::new(DEFAULT_RESERVE).expect("a stack"));
    in_a_storm(|seed| {
        // SAFETY: the stacks outlive the contexts, of which one ends and the other is not continued.
        let [first, second] =
            stacks.each_ref().map(|stack| unsafe { Context::new(stack, alternate) }.expect("it fits"));
        let mut pair = Pair { waiting: Some(second), seed };
        let mut left = None;
        // SAFETY: as above; the pair outlives this as well.
        let kept = registers_kept(seed, || left = Some(unsafe { first.enter((&raw mut pair).cast()) }));
        assert_eq!(kept, Ok(()), "lost by the root");
        assert!(matches!(left, Some(Left::Ended(_))));
    });
}
