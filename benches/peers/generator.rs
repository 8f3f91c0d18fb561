//! generator-rs, which maps every stack itself. One that is done can be given another function, which reuses its stack.

use generator::{Generator as Coroutine, Gn, Scope};

use super::Peer;
use crate::slots::{SIZE, Slot};

/// See the module.
pub struct Generator;

/// It counts stacks in words.
const WORDS: usize = SIZE / size_of::<usize>();

impl Peer for Generator {
    const NAME: &'static str = "generator";
    type Echo = Coroutine<'static, usize, usize>;

    fn echo(_: Slot) -> Self::Echo {
        Gn::new_scoped_opt(WORDS, |mut scope: Scope<usize, usize>| {
            let mut word = scope.get_yield().expect("resumed with a word");
            loop {
                word = scope.yield_(word).expect("resumed with a word");
            }
        })
    }

    #[inline]
    fn resume(echo: &mut Self::Echo, word: usize) -> usize {
        echo.send(word)
    }

    type Kept = Coroutine<'static, usize, usize>;

    fn keep(_: Slot) -> Self::Kept {
        let mut kept = Gn::new_scoped_opt(WORDS, plus_one);
        kept.send(0);
        kept
    }

    #[inline]
    fn live_and_die(kept: &mut Self::Kept, word: usize) -> usize {
        kept.scoped_init(plus_one);
        kept.send(word)
    }

    #[inline]
    fn live_and_die_fresh(word: usize) -> usize {
        Gn::new_scoped_opt(WORDS, plus_one).send(word)
    }
}

fn plus_one(mut scope: Scope<usize, usize>) -> usize {
    scope.get_yield().expect("resumed with a word") + 1
}
