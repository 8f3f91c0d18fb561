//! Boost's assembly in the crate `context`: bare contexts, with neither closures nor panics, which its users add themselves.

use context::stack::{ProtectedFixedSizeStack, Stack};
use context::{Context, Transfer};

use super::{Peer, Symmetric};
use crate::slots::{SIZE, Slot};

/// See the module.
pub struct Boost;

/// A context that sends each word back, for ever.
extern "C" fn echo(mut transfer: Transfer) -> ! {
    loop {
        // SAFETY: the stack of whoever resumed us is still there.
        transfer = unsafe { transfer.context.resume(transfer.data) };
    }
}

/// A context that sends one word back, plus one, and is not resumed again.
extern "C" fn once(transfer: Transfer) -> ! {
    // SAFETY: as above.
    unsafe { transfer.context.resume(transfer.data + 1) };
    unreachable!("nobody resumes it again")
}

fn stack(slot: Slot) -> Stack {
    // SAFETY: both ends of the same stack.
    unsafe { Stack::new(slot.top.as_ptr().cast(), slot.limit.as_ptr().cast()) }
}

impl Peer for Boost {
    const NAME: &'static str = "context (boost)";
    type Echo = Option<Context>;

    fn echo(slot: Slot) -> Self::Echo {
        // SAFETY: the stack is never given back.
        Some(unsafe { Context::new(&stack(slot), echo) })
    }

    #[inline]
    fn resume(echo: &mut Self::Echo, word: usize) -> usize {
        let context = echo.take().expect("it was put back");
        // SAFETY: nothing on either stack needs dropping.
        let transfer = unsafe { context.resume(word) };
        *echo = Some(transfer.context);
        transfer.data
    }

    type Kept = Stack;

    fn keep(slot: Slot) -> Self::Kept {
        stack(slot)
    }

    #[inline]
    fn live_and_die(kept: &mut Self::Kept, word: usize) -> usize {
        // SAFETY: the stack is never given back; nothing on it needs dropping.
        unsafe { Context::new(kept, once).resume(word).data }
    }

    #[inline]
    fn live_and_die_fresh(word: usize) -> usize {
        let stack = ProtectedFixedSizeStack::new(SIZE).expect("a stack");
        // SAFETY: nothing on the stack needs dropping, and the context is not resumed after it.
        unsafe { Context::new(&stack, once).resume(word).data }
    }
}

/// Every switch of Boost is a symmetric one: the thread itself is the other context.
impl Symmetric for Boost {
    const NAME: &'static str = "context (boost)";
    type Pair = Option<Context>;

    fn pair([slot, _]: [Slot; 2]) -> Self::Pair {
        Self::echo(slot)
    }

    fn back_and_forth(pair: &mut Self::Pair, rounds: u64) {
        let mut other = pair.take().expect("it was put back");
        for _ in 0..rounds {
            // SAFETY: as above.
            other = unsafe { other.resume(0) }.context;
        }
        *pair = Some(other);
    }
}
