//! Ourselves.

use switchback::context::{Context, Left, Running};
use switchback::stack::Mapped;
use switchback::{Coroutine, Resumed, Yielder};

use super::{OnStack, Peer, Symmetric};
use crate::slots::{SIZE, Slot};

/// See the module.
pub struct Switchback;

impl Peer for Switchback {
    const NAME: &'static str = "switchback";
    type Echo = Coroutine<usize, usize, (), Slot>;

    fn echo(stack: Slot) -> Self::Echo {
        Coroutine::with_stack(stack, |yielder: &Yielder<usize, usize>, mut word| {
            loop {
                word = yielder.suspend(word);
            }
        })
        .expect("it fits")
    }

    #[inline]
    fn resume(echo: &mut Self::Echo, word: usize) -> usize {
        match echo.resume(word) {
            Resumed::Yielded(word) => word,
            Resumed::Returned(()) => unreachable!("it suspends for ever"),
        }
    }

    type Kept = Option<Slot>;

    fn keep(stack: Slot) -> Self::Kept {
        Some(stack)
    }

    #[inline]
    fn live_and_die(kept: &mut Self::Kept, word: usize) -> usize {
        let stack = kept.take().expect("it was put back");
        let mut coroutine = Coroutine::with_stack(stack, |_: &Yielder<usize, usize>, word| word + 1).expect("it fits");
        let (Resumed::Yielded(answer) | Resumed::Returned(answer)) = coroutine.resume(word);
        *kept = coroutine.into_stack();
        answer
    }

    #[inline]
    fn live_and_die_fresh(word: usize) -> usize {
        let stack = Mapped::new(SIZE).expect("a stack");
        let mut coroutine = Coroutine::with_stack(stack, |_: &Yielder<usize, usize>, word| word + 1).expect("it fits");
        let (Resumed::Yielded(answer) | Resumed::Returned(answer)) = coroutine.resume(word);
        answer
    }
}

/// Two contexts, of which the first counts and goes back to the thread, and the second just answers.
pub struct Pair {
    first: Context,
    second: Context,
    rounds: u64,
}

impl Symmetric for Switchback {
    const NAME: &'static str = "switchback";
    type Pair = *mut Pair;

    fn pair(stacks: [Slot; 2]) -> Self::Pair {
        // SAFETY: the stacks are never given back.
        let [first, second] = unsafe { [Context::new(&stacks[0], counts), Context::new(&stacks[1], answers)] }
            .map(|context| context.expect("it fits"));
        Box::into_raw(Box::new(Pair { first, second, rounds: 0 }))
    }

    fn back_and_forth(pair: &mut Self::Pair, rounds: u64) {
        let pair = *pair;
        // SAFETY: both contexts expect the pair's address, which is never given back and only used by whoever runs, and
        // stay on this thread; both are suspended now.
        unsafe {
            (*pair).rounds = rounds;
            let left = (*pair).first.enter(pair.cast());
            debug_assert!(matches!(left, Left::Suspended(..)), "it runs for ever");
        }
    }
}

/// Switches to the second as often as the pair says, then leaves to the thread.
unsafe extern "C" fn counts(pair: *mut (), running: Running) -> *mut () {
    // SAFETY: see `back_and_forth`.
    unsafe {
        let pair = pair.cast::<Pair>();
        let second = (*pair).second;
        loop {
            for _ in 0..(*pair).rounds {
                running.switch_to(second, pair.cast());
            }
            running.leave(pair.cast());
        }
    }
}

/// Switches back for ever.
unsafe extern "C" fn answers(pair: *mut (), running: Running) -> *mut () {
    // SAFETY: as in `counts`.
    unsafe {
        let first = (*pair.cast::<Pair>()).first;
        loop {
            running.switch_to(first, pair);
        }
    }
}

impl OnStack for Switchback {
    const NAME: &'static str = "switchback";

    #[inline]
    fn on_stack(stack: &mut Slot, function: impl FnOnce() -> usize) -> usize {
        switchback::on_stack(stack, function)
    }
}
