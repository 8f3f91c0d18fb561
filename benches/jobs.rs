//! What is measured, written once for all peers.

use std::hint::black_box;
use std::time::Instant;

use crate::peers::{Boost, Corosensei, Generator, OnStack, Peer, PlainCall, Psm, Switchback, Symmetric};
use crate::slots::{self, Slot};
use crate::{Contender, Job, Work, repeat};

/// A job that those who have a skill do, and for comparison what others do.
macro_rules! job {
    ($name:literal: $prepare:ident as $skill:ident by $($who:ident),+ $(; $other:literal: $more:expr)*) => {
        Job {
            name: $name,
            contenders: &[
                $(Contender { name: <$who as $skill>::NAME, prepare: $prepare::<$who> },)+
                $(Contender { name: $other, prepare: $more },)*
            ],
        }
    };
}

/// The jobs that rest on the processor alone, whose instructions are worth counting.
pub const SWITCHES: &[Job] = &[
    job!("resume + suspend": resume_and_suspend as Peer by Switchback, Corosensei, Generator, Boost),
    job!("resume + suspend, 8 floats live": resume_with_floats as Peer by Switchback, Corosensei, Generator, Boost),
    job!("symmetric switch": back_and_forth as Symmetric by Switchback, Boost;
        "half a resume + suspend of ours": half_a_pair::<Switchback>;
        "half a resume + suspend of corosensei": half_a_pair::<Corosensei>),
    job!("create + run + drop, stack reused": live_and_die as Peer by Switchback, Corosensei, Generator, Boost),
    job!("on_stack": call_on_stack as OnStack by Switchback, Corosensei, Psm, PlainCall),
];

/// The jobs that the system or the caches have a say in.
pub const PLACES: &[Job] = &[
    job!("create + run + drop, fresh mapping": live_and_die_fresh as Peer by Switchback, Corosensei, Generator, Boost),
    job!("ring of 10": ring_of_10 as Peer by Switchback, Corosensei, Generator, Boost),
    job!("ring of 1,000": ring_of_1_000 as Peer by Switchback, Corosensei, Generator, Boost),
    // generator maps its stacks itself, two mappings each; the kernel allows a process 65,530.
    job!("ring of 100,000": ring_of_100_000 as Peer by Switchback, Corosensei, Boost),
    // Addresses that differ in few bits are hard to stagger.
    job!("ring of 1,000, stacks 64 KiB apart": ring_of_adjacent as Peer by Switchback, Corosensei, Boost),
    // What staggered stacks are worth, to us and to who does not stagger them.
    job!("ring of 10, small stacks, staggered": ring_staggered as Peer by Switchback;
        "switchback, aligned": ring_aligned::<Switchback>;
        "corosensei, staggered": ring_staggered::<Corosensei>;
        "corosensei, aligned": ring_aligned::<Corosensei>),
];

fn one_slot() -> Slot {
    slots::slots(1).next().expect("one")
}

/// One resume and the suspend that answers it, a word each way.
fn resume_and_suspend<P: Peer>() -> Work {
    let mut echo = P::echo(one_slot());
    Box::new(move |count| {
        repeat(count, || {
            black_box(P::resume(&mut echo, black_box(1)));
        })
    })
}

/// A switch, where that takes a resume and the suspend that answers it to make two.
fn half_a_pair<P: Peer>() -> Work {
    let mut pairs = resume_and_suspend::<P>();
    Box::new(move |count| pairs(count.div_ceil(2)))
}

/// The same while the caller has floating-point values in use.
fn resume_with_floats<P: Peer>() -> Work {
    let mut echo = P::echo(one_slot());
    Box::new(move |count| {
        let mut sums = black_box([0.0; 8]);
        let elapsed = repeat(count, || {
            black_box(P::resume(&mut echo, black_box(1)));
            for (sum, addend) in sums.iter_mut().zip([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) {
                *sum += addend;
            }
        });
        black_box(sums);
        elapsed
    })
}

/// One switch between two contexts.
fn back_and_forth<P: Symmetric>() -> Work {
    let mut stacks = slots::slots(2);
    let mut pair = P::pair([(); 2].map(|()| stacks.next().expect("one of two")));
    Box::new(move |count| {
        let start = Instant::now();
        P::back_and_forth(&mut pair, count.div_ceil(2));
        start.elapsed()
    })
}

/// A coroutine created, run to its end and dropped, on a stack that is used again and again.
fn live_and_die<P: Peer>() -> Work {
    let mut kept = P::keep(one_slot());
    Box::new(move |count| {
        repeat(count, || {
            black_box(P::live_and_die(&mut kept, black_box(1)));
        })
    })
}

/// The same with a new mapping each time.
fn live_and_die_fresh<P: Peer>() -> Work {
    Box::new(|count| {
        repeat(count, || {
            black_box(P::live_and_die_fresh(black_box(1)));
        })
    })
}

/// A function called on another stack.
fn call_on_stack<P: OnStack>() -> Work {
    let mut stack = one_slot();
    Box::new(move |count| {
        repeat(count, || {
            let word = black_box(1);
            black_box(P::on_stack(&mut stack, || black_box(word) + 1));
        })
    })
}

fn ring_of_10<P: Peer>() -> Work {
    ring::<P>(slots::slots(10))
}

fn ring_of_1_000<P: Peer>() -> Work {
    ring::<P>(slots::slots(1_000))
}

fn ring_of_100_000<P: Peer>() -> Work {
    ring::<P>(slots::slots(100_000))
}

fn ring_of_adjacent<P: Peer>() -> Work {
    ring::<P>(slots::adjacent(1_000))
}

fn ring_aligned<P: Peer>() -> Work {
    ring::<P>(slots::aligned(10))
}

fn ring_staggered<P: Peer>() -> Work {
    ring::<P>(slots::staggered(10))
}

/// One resume and suspend of another coroutine each time: what caches and branch predictors make of it.
fn ring<P: Peer>(stacks: impl Iterator<Item = Slot>) -> Work {
    let mut ring: Vec<_> = stacks.map(P::echo).collect();
    // From here on every page is there.
    for echo in &mut ring {
        P::resume(echo, 1);
    }
    let mut next = 0;
    Box::new(move |count| {
        repeat(count, || {
            next = if next + 1 == ring.len() { 0 } else { next + 1 };
            black_box(P::resume(&mut ring[next], black_box(1)));
        })
    })
}
