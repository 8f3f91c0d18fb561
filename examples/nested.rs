//! A coroutine in a coroutine that computes: something for debuggers and profilers to look at.
//!
//!     gdb -ex 'break nested::in_the_inner_coroutine' -ex run -ex backtrace target/debug/examples/nested
//!     perf record --call-graph dwarf target/debug/examples/nested 50000000
//!     RUSTFLAGS=-Cforce-frame-pointers=yes cargo build --release --example nested
//!     perf record --call-graph fp target/release/examples/nested 50000000

use std::hint::black_box;

use switchback::{Coroutine, Resumed, Yielder};

#[inline(never)]
fn in_the_inner_coroutine(steps: u64) -> u64 {
    let mut state = 1_u64;
    for step in 0..steps {
        state = black_box(state.wrapping_mul(6364136223846793005).wrapping_add(step));
    }
    state
}

#[inline(never)]
fn the_inner_resumer(inner: &mut Coroutine<u64, (), u64>, steps: u64) -> u64 {
    let Resumed::Returned(state) = inner.resume(steps) else { unreachable!("it does not suspend") };
    black_box(state)
}

#[inline(never)]
fn in_the_outer_coroutine(yielder: &Yielder<u64, ()>, steps: u64) -> u64 {
    let steps = steps + yielder.suspend(());
    let mut inner =
        Coroutine::new(|_: &Yielder<u64, ()>, steps| black_box(in_the_inner_coroutine(steps))).expect("a stack");
    black_box(the_inner_resumer(&mut inner, steps))
}

#[inline(never)]
fn the_outer_resumer(outer: &mut Coroutine<u64, (), u64>, steps: u64) -> Resumed<(), u64> {
    black_box(outer.resume(steps))
}

fn main() -> Result<(), switchback::stack::Error> {
    let steps = std::env::args().nth(1).and_then(|steps| steps.parse().ok()).unwrap_or(1000);
    let mut outer = Coroutine::new(|yielder: &Yielder<u64, ()>, steps| in_the_outer_coroutine(yielder, steps))?;
    let mut resumes = 0;
    // The first resume comes from here, the other from a function: the way back is that of the last one.
    let mut resumed = outer.resume(0);
    while resumed == Resumed::Yielded(()) {
        resumes += 1;
        resumed = the_outer_resumer(&mut outer, steps);
    }
    println!("{resumed:?} after {resumes} resumes");
    Ok(())
}
