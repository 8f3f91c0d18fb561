//! The peers, each as its users would write the same few programs.

mod boost;
mod corosensei;
mod generator;
mod on_stack;
mod switchback;

pub use boost::Boost;
pub use corosensei::Corosensei;
pub use generator::Generator;
pub use on_stack::{PlainCall, Psm};
pub use switchback::Switchback;

use crate::slots::Slot;

/// A library of coroutines.
pub trait Peer: 'static {
    /// As the tables name it.
    const NAME: &'static str;

    /// A coroutine that suspends with each word it is resumed with, for ever.
    type Echo;
    /// Makes one on this stack, or on one of the same size where the library brings its own.
    fn echo(stack: Slot) -> Self::Echo;
    /// Resumes it with a word and returns what it suspends with.
    fn resume(echo: &mut Self::Echo, word: usize) -> usize;

    /// What is kept between the lives of coroutines that use the same stack.
    type Kept;
    /// Takes a stack to be used again and again.
    fn keep(stack: Slot) -> Self::Kept;
    /// Creates a coroutine on it that returns its word plus one, runs it to its end and drops it.
    fn live_and_die(kept: &mut Self::Kept, word: usize) -> usize;
    /// The same on a stack mapped for it, of the library's own kind, with its guard.
    fn live_and_die_fresh(word: usize) -> usize;
}

/// A library with which two contexts can switch to each other, with no third between them.
pub trait Symmetric: 'static {
    /// As the tables name it.
    const NAME: &'static str;
    /// Two contexts.
    type Pair;
    /// Makes them.
    fn pair(stacks: [Slot; 2]) -> Self::Pair;
    /// Has them switch to each other this many times, back and forth.
    fn back_and_forth(pair: &mut Self::Pair, rounds: u64);
}

/// A library that calls a function on another stack.
pub trait OnStack: 'static {
    /// As the tables name it.
    const NAME: &'static str;
    /// Calls it there.
    fn on_stack(stack: &mut Slot, function: impl FnOnce() -> usize) -> usize;
}
