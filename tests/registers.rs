//! Values that the compiler keeps in registers, or where it spills them, are the same after a switch.
//!
//! What the fixtures of `qemu-tests` do with every register by name, in code that the compiler has optimised: more
//! values than there are callee-saved registers are alive across a switch on both sides of it. Where the switch is
//! inlined everything is spilled around it, for it clobbers all; where it is behind a call, callee-saved registers are
//! full of the caller's values. What comes of it must be what comes of the same steps without a switch.
#![cfg(feature = "std")]

mod common;

use std::hint::black_box;

use common::emulated;
use switchback::context::{Context, Entry, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Resumed, Yielder};

// 128 bits where registers have them.
cfg_select! {
    target_arch = "x86_64" => {
        use std::arch::x86_64::{__m128i as Vector, _mm_add_epi64, _mm_set1_epi64x};

        #[inline(always)]
        fn vector(word: usize) -> Vector {
            // SAFETY: every x86_64 has SSE2.
            unsafe { _mm_set1_epi64x(word as i64) }
        }
        #[inline(always)]
        fn sum(a: Vector, b: Vector) -> Vector {
            // SAFETY: as above.
            unsafe { _mm_add_epi64(a, b) }
        }
    }
    target_arch = "aarch64" => {
        use std::arch::aarch64::{uint64x2_t as Vector, vaddq_u64, vdupq_n_u64};

        #[inline(always)]
        fn vector(word: usize) -> Vector {
            // SAFETY: every aarch64 that Linux runs on has NEON.
            unsafe { vdupq_n_u64(word as u64) }
        }
        #[inline(always)]
        fn sum(a: Vector, b: Vector) -> Vector {
            // SAFETY: as above.
            unsafe { vaddq_u64(a, b) }
        }
    }
    _ => {
        type Vector = f32;

        #[inline(always)]
        fn vector(word: usize) -> Vector {
            (word % 4096) as f32
        }
        #[inline(always)]
        fn sum(a: Vector, b: Vector) -> Vector {
            a * 0.25 + b
        }
    }
}

/// Variables of one side.
trait Live: Copy {
    fn new(seed: usize) -> Self;

    /// What this side answers to a word of the other's.
    fn step(&mut self, word: usize) -> usize;

    fn digest(self) -> Vec<u64>;
}

/// Variables that all depend on their own past, so that none can be computed again after a switch.
macro_rules! live {
    ($name:ident: $($integer:ident)*; $($float:ident)*; $($vector:ident)*) => {
        #[derive(Clone, Copy)]
        struct $name { $($integer: usize,)* $($float: f64,)* $($vector: Vector,)* }

        impl Live for $name {
            #[inline(always)]
            fn new(seed: usize) -> Self {
                let mut n = seed;
                let mut next = || {
                    n = n.wrapping_mul(31).wrapping_add(7);
                    n
                };
                $name {
                    $( $integer: next(), )*
                    $( $float: (next() % 1000) as f64, )*
                    $( $vector: vector(next()), )*
                }
            }

            #[inline(always)]
            fn step(&mut self, word: usize) -> usize {
                let mut word = word;
                $( self.$integer = self.$integer.wrapping_mul(3) ^ word; word = word.wrapping_add(self.$integer); )*
                $( self.$float = self.$float * 0.5 + (word % 251) as f64; word = word.rotate_left(3); )*
                $( self.$vector = sum(self.$vector, vector(word)); word = word.rotate_left(3); )*
                word
            }

            #[inline(never)]
            fn digest(self) -> Vec<u64> {
                #[allow(unused_mut, reason = "not all have vectors")]
                let mut digest = vec![$( self.$integer as u64, )* $( self.$float.to_bits(), )*];
                $(
                    #[allow(unnecessary_transmutes, reason = "some targets have no vectors but integers")]
                    // SAFETY: any bits are bytes, and vectors have no padding.
                    let bytes: [u8; size_of::<Vector>()] = unsafe { std::mem::transmute(self.$vector) };
                    digest.extend(bytes.map(u64::from));
                )*
                digest
            }
        }
    };
}

// Callee-saved registers are at most 12 integer ones and 12 floating-point ones, and 5 and none at the least. Where there
// are a few variables more than registers, some stay in memory; where there are fewer, all are in registers.
live!(Few: a b c d;;);
live!(Medium: a b c d e f g h i; o p q r s t u v w x;);
live!(Many: a b c d e f g h i j k l m n; o p q r s t u v w x y z aa bb; cc dd ee ff gg hh);

const SEEDS: [usize; 2] = [11, 22];

fn rounds() -> usize {
    if emulated() || cfg!(miri) { 50 } else { 5_000 }
}

/// Both sides' values in the end, by the same steps without a switch.
fn without_switches<L: Live>() -> [Vec<u64>; 2] {
    let [mut outside, mut inside] = SEEDS.map(L::new);
    let mut word = 0;
    for _ in 0..rounds() {
        word = outside.step(word);
        word = inside.step(word);
    }
    [outside.digest(), inside.digest()]
}

/// One side: makes its steps with `switch` in between, which answers with the other side's.
#[inline(always)]
fn with_switches<L: Live>(seed: usize, first: usize, mut switch: impl FnMut(usize) -> usize) -> (Vec<u64>, usize) {
    let mut live = L::new(black_box(seed));
    let mut word = live.step(first);
    for _ in 1..rounds() {
        word = switch(word);
        word = live.step(word);
    }
    (live.digest(), word)
}

type Inside = Coroutine<usize, usize, (Vec<u64>, usize)>;

/// A coroutine's two sides, by these two ways to resume and to suspend.
#[inline(always)]
fn through_a_coroutine<L: Live>(
    resume: impl Fn(&mut Inside, usize) -> Resumed<usize, (Vec<u64>, usize)>,
    suspend: impl Fn(&Yielder<usize, usize>, usize) -> usize + 'static,
) {
    let mut coroutine: Inside = Coroutine::new(move |yielder: &Yielder<usize, usize>, first| {
        with_switches::<L>(SEEDS[1], first, |word| suspend(yielder, word))
    })
    .expect("a stack");
    let (outside, word) = with_switches::<L>(SEEDS[0], 0, |word| match resume(&mut coroutine, word) {
        Resumed::Yielded(word) => word,
        Resumed::Returned(_) => panic!("it makes as many steps"),
    });
    let Resumed::Returned((inside, _)) = coroutine.resume(word) else { panic!("it has made its steps") };
    assert_eq!([outside, inside], without_switches::<L>());
}

#[inline(never)]
fn resume_behind_a_call(coroutine: &mut Inside, word: usize) -> Resumed<usize, (Vec<u64>, usize)> {
    coroutine.resume(word)
}

#[inline(never)]
fn suspend_behind_a_call(yielder: &Yielder<usize, usize>, word: usize) -> usize {
    yielder.suspend(word)
}

/// A test's body with each number of variables.
macro_rules! with_each {
    ($body:ident($($argument:expr),*)) => {
        $body::<Few>($($argument),*);
        $body::<Medium>($($argument),*);
        $body::<Many>($($argument),*);
    };
}

#[test]
fn values_live_across_inlined_switches_are_kept() {
    with_each!(through_a_coroutine(Inside::resume, Yielder::suspend));
}

#[test]
fn values_live_across_switches_behind_calls_are_kept() {
    with_each!(through_a_coroutine(resume_behind_a_call, suspend_behind_a_call));
}

#[test]
fn values_live_across_a_switch_inlined_on_one_side_are_kept() {
    with_each!(through_a_coroutine(Inside::resume, suspend_behind_a_call));
    with_each!(through_a_coroutine(resume_behind_a_call, Yielder::suspend));
}

/// What two contexts share, and what each leaves there.
struct Pair {
    contexts: [Context; 2],
    word: usize,
    digests: [Vec<u64>; 2],
}

/// How one of them goes to the other.
trait Switch {
    fn switch(running: Running, other: Context, pair: *mut Pair);
}

struct Inlined;
struct BehindACall;

impl Switch for Inlined {
    #[inline(always)]
    fn switch(running: Running, other: Context, pair: *mut Pair) {
        // SAFETY: both contexts are of this thread and expect the pair; `running` is the caller's own.
        unsafe { running.switch_to(other, pair.cast()) };
    }
}

impl Switch for BehindACall {
    #[inline(never)]
    fn switch(running: Running, other: Context, pair: *mut Pair) {
        Inlined::switch(running, other, pair);
    }
}

/// Makes its steps, going to the other context in between. The first to have made them all lets the other one end.
unsafe extern "C" fn alternate<L: Live, S: Switch, const ME: usize>(pair: *mut (), running: Running) -> *mut () {
    let pair = pair.cast::<Pair>();
    // SAFETY: the word is the test's pair, which the context that runs has for itself.
    unsafe {
        let (digest, word) = with_switches::<L>(SEEDS[ME], (*pair).word, |word| {
            (*pair).word = word;
            S::switch(running, (*pair).contexts[1 - ME], pair);
            (*pair).word
        });
        (*pair).word = word;
        (*pair).digests[ME] = digest;
        if ME == 0 {
            S::switch(running, (*pair).contexts[1], pair);
        }
    }
    pair.cast()
}

fn through_contexts<L: Live, S: Switch>() {
    let stacks = [(); 2].map(|()| Mapped::new(DEFAULT_RESERVE).expect("a stack"));
    // SAFETY: stacks and pair outlive the contexts. The first context is not continued once the second has ended.
    let digests = unsafe {
        let entries: [Entry; 2] = [alternate::<L, S, 0>, alternate::<L, S, 1>];
        let contexts = [0, 1].map(|me| Context::new(&stacks[me], entries[me]).expect("it fits"));
        let mut pair = Pair { contexts, word: 0, digests: Default::default() };
        assert!(matches!(contexts[0].enter((&raw mut pair).cast()), Left::Ended(_)));
        pair.digests
    };
    assert_eq!(digests, without_switches::<L>());
}

#[test]
#[cfg_attr(miri, ignore = "leaves contexts waiting, so it needs -Zmiri-ignore-leaks: .ci/miri runs it")]
fn values_live_across_inlined_transfers_are_kept() {
    through_contexts::<Few, Inlined>();
    through_contexts::<Medium, Inlined>();
    through_contexts::<Many, Inlined>();
}

#[test]
#[cfg_attr(miri, ignore = "leaves contexts waiting, so it needs -Zmiri-ignore-leaks: .ci/miri runs it")]
fn values_live_across_transfers_behind_calls_are_kept() {
    through_contexts::<Few, BehindACall>();
    through_contexts::<Medium, BehindACall>();
    through_contexts::<Many, BehindACall>();
}

/// The same with a stack of frames, all with values of their own, below each switch.
#[test]
fn values_live_in_every_frame_below_a_switch_are_kept() {
    #[inline(never)]
    fn descend<L: Live>(depth: usize, switch: &mut dyn FnMut(usize) -> usize) -> (Vec<u64>, usize) {
        let mut live = L::new(black_box(depth));
        let mut word = depth;
        for _ in 0..3 {
            word = match depth {
                0 => switch(live.step(word)),
                _ => descend::<L>(depth - 1, switch).1 ^ live.step(word),
            };
            word = live.step(word);
        }
        (live.digest(), word)
    }

    fn through_towers<L: Live>() {
        const DEPTH: usize = if cfg!(miri) { 1 } else { 5 };
        const ANSWERS_FROM: usize = if cfg!(miri) { 1 } else { 2 };
        // The coroutine's frames ask, the resumer's answer, each from below a tower of its own.
        let answer = |word: usize| descend::<L>(ANSWERS_FROM, &mut |below| below ^ word).1;
        let expected = descend::<L>(DEPTH, &mut |word| answer(word));
        let mut coroutine = Coroutine::new(|yielder: &Yielder<usize, usize>, _| {
            descend::<L>(DEPTH, &mut |word| suspend_behind_a_call(yielder, word))
        })
        .expect("a stack");
        let mut word = 0;
        let reached = loop {
            match resume_behind_a_call(&mut coroutine, word) {
                Resumed::Yielded(asked) => word = answer(asked),
                Resumed::Returned(reached) => break reached,
            }
        };
        assert_eq!(reached, expected);
    }
    with_each!(through_towers());
}
