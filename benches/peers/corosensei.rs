//! corosensei.

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};

use super::{OnStack, Peer};
use crate::slots::{SIZE, Slot};

/// See the module.
pub struct Corosensei;

impl Peer for Corosensei {
    const NAME: &'static str = "corosensei";
    type Echo = Coroutine<usize, usize, (), Slot>;

    fn echo(stack: Slot) -> Self::Echo {
        Coroutine::with_stack(stack, |yielder, mut word| {
            loop {
                word = yielder.suspend(word);
            }
        })
    }

    #[inline]
    fn resume(echo: &mut Self::Echo, word: usize) -> usize {
        match echo.resume(word) {
            CoroutineResult::Yield(word) => word,
            CoroutineResult::Return(()) => unreachable!("it suspends for ever"),
        }
    }

    type Kept = Option<Slot>;

    fn keep(stack: Slot) -> Self::Kept {
        Some(stack)
    }

    #[inline]
    fn live_and_die(kept: &mut Self::Kept, word: usize) -> usize {
        let stack = kept.take().expect("it was put back");
        let mut coroutine = Coroutine::<usize, usize, usize, _>::with_stack(stack, |_, word| word + 1);
        let (CoroutineResult::Yield(answer) | CoroutineResult::Return(answer)) = coroutine.resume(word);
        *kept = Some(coroutine.into_stack());
        answer
    }

    #[inline]
    fn live_and_die_fresh(word: usize) -> usize {
        let stack = DefaultStack::new(SIZE).expect("a stack");
        let mut coroutine = Coroutine::<usize, usize, usize, _>::with_stack(stack, |_, word| word + 1);
        let (CoroutineResult::Yield(answer) | CoroutineResult::Return(answer)) = coroutine.resume(word);
        answer
    }
}

impl OnStack for Corosensei {
    const NAME: &'static str = "corosensei";

    #[inline]
    fn on_stack(stack: &mut Slot, function: impl FnOnce() -> usize) -> usize {
        corosensei::on_stack(stack, function)
    }
}
