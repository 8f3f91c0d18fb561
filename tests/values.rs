//! Values of every size and alignment arrive, in the right place, and are dropped once.
#![cfg(feature = "std")]

use std::array;
use std::hint::black_box;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use switchback::stack::Mapped;
use switchback::{Coroutine, Resumed, Yielder, scoped};

/// Not thread-locals, since a coroutine may be a thread: each test counts [`alone`].
static MADE: AtomicU32 = AtomicU32::new(0);
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// Keeps the other tests from counting, and counts anew.
fn alone() -> MutexGuard<'static, ()> {
    static COUNTS: Mutex<()> = Mutex::new(());
    let guard = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    MADE.store(0, Relaxed);
    DROPPED.store(0, Relaxed);
    guard
}

/// The bytes that stand for a number, all different but under Miri, which would take minutes.
fn pattern<const N: usize>(number: u8) -> [u8; N] {
    let first = number.wrapping_mul(37);
    if cfg!(miri) { [first; N] } else { array::from_fn(|n| first ^ (n % 251) as u8) }
}

/// `N` bytes aligned like `A`, the bytes a function of a number, that count how often they are made and dropped.
struct Value<A, const N: usize> {
    _aligned: [A; 0],
    bytes: [u8; N],
}

impl<A, const N: usize> Value<A, N> {
    fn new(number: u8) -> Self {
        MADE.fetch_add(1, Relaxed);
        Value { _aligned: [], bytes: pattern(number) }
    }

    /// That it is whole and lies where it may.
    fn check(&self, number: u8) {
        // The compiler may take alignment for granted and must not see where the address comes from.
        assert!(black_box(&raw const *self).addr().is_multiple_of(align_of::<A>()));
        assert_eq!(self.bytes, pattern(number));
    }
}

impl<A, const N: usize> Drop for Value<A, N> {
    fn drop(&mut self) {
        assert!(DROPPED.fetch_add(1, Relaxed) < MADE.load(Relaxed));
        assert!(black_box(&raw const *self).addr().is_multiple_of(align_of::<A>()));
    }
}

fn no_value_is_left_or_dropped_twice() {
    assert_eq!(MADE.load(Relaxed), DROPPED.load(Relaxed));
}

/// Room for the copies that unoptimised code makes of several pages.
fn stack() -> Mapped {
    Mapped::new(1 << 20).expect("a stack")
}

/// In, out and back at the end: each of a type of its own.
fn travel<I, Y, R, const IN: usize, const OUT: usize, const END: usize>() {
    type Of<A, const N: usize> = Value<A, N>;
    let body = |yielder: &Yielder<Of<I, IN>, Of<Y, OUT>>, first: Of<I, IN>| {
        first.check(1);
        let second = yielder.suspend(Of::new(2));
        first.check(1);
        second.check(3);
        drop(first);
        let third = yielder.suspend(Of::new(4));
        second.check(3);
        third.check(5);
        Of::<R, END>::new(6)
    };
    let steps = |resume: &mut dyn FnMut(Of<I, IN>) -> Resumed<Of<Y, OUT>, Of<R, END>>| {
        let Resumed::Yielded(first) = resume(Of::new(1)) else { panic!("it yields first") };
        first.check(2);
        let Resumed::Yielded(second) = resume(Of::new(3)) else { panic!("it yields twice") };
        first.check(2);
        second.check(4);
        let Resumed::Returned(end) = resume(Of::new(5)) else { panic!("it returns then") };
        end.check(6);
        // Refused, with the input.
        let refused = panic::catch_unwind(AssertUnwindSafe(|| resume(Of::new(7))));
        refused.map(|_| ()).expect_err("it is finished");
    };
    scoped(stack(), body, |mut coroutine| steps(&mut |input| coroutine.resume(input))).expect("it fits");
    no_value_is_left_or_dropped_twice();

    // Ended before they arrive anywhere: inputs on the coroutine's stack, and a yield answered by nobody.
    for resumes in 0..3 {
        scoped(stack(), body, |mut coroutine| {
            for n in 0..resumes {
                drop(coroutine.resume(Of::new(1 + 2 * n)));
            }
        })
        .expect("it fits");
        no_value_is_left_or_dropped_twice();
    }
}

/// These sizes with this alignment.
macro_rules! sizes {
    ($align:literal: $($size:literal)*) => {{
        #[repr(align($align))]
        struct Aligned;
        assert_eq!(align_of::<Aligned>(), $align);
        $(
            assert_eq!(size_of::<Value<Aligned, $size>>(), usize::next_multiple_of($size, $align));
            travel::<Aligned, Aligned, Aligned, $size, $size, $size>();
        )*
    }};
}

#[test]
fn values_of_every_size_arrive_and_are_dropped_once() {
    let _alone = alone();
    sizes!(1: 0 1 3 4 5 7 8 9 12 16 17 24 33 4096);
}

#[test]
fn values_of_every_alignment_arrive_aligned_and_are_dropped_once() {
    let _alone = alone();
    sizes!(2: 0 2 8 24);
    sizes!(4: 0 4 8 16);
    sizes!(8: 0 8 16 24 4096);
    sizes!(16: 0 1 16 24 4096);
    sizes!(32: 0 1 24 4096);
    sizes!(64: 0 1 64 4096);
}

#[test]
fn values_aligned_like_pages_arrive_aligned_and_are_dropped_once() {
    let _alone = alone();
    sizes!(4096: 0 1 4096);
}

#[test]
fn values_of_three_types_do_not_meet() {
    let _alone = alone();
    #[repr(align(64))]
    struct Line;
    travel::<u8, u64, Line, 0, 8, 64>();
    travel::<Line, u8, u64, 64, 3, 0>();
    travel::<u64, Line, u8, 24, 0, 1>();
    travel::<u8, u8, u64, 4096, 1, 24>();
    travel::<u16, u32, u8, 2, 4096, 8>();
    travel::<u32, u16, u8, 4, 16, 4096>();
}

/// What is under way when a panic or an unwinding comes instead of it.
#[test]
fn values_that_meet_a_panic_are_dropped_once() {
    let _alone = alone();
    fn meet<A: 'static, const N: usize>() {
        let mut coroutine =
            Coroutine::with_stack(stack(), |yielder: &Yielder<Value<A, N>, Value<A, N>>, first: Value<A, N>| {
                let kept = yielder.suspend(first);
                // Swallows its unwinding, and yields a value to whoever drops it.
                let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(yielder.suspend(Value::new(2)))));
                dropped.expect_err("it is dropped");
                drop(yielder.suspend(Value::new(3)));
                kept
            })
            .expect("it fits");
        for number in [1, 2] {
            drop(coroutine.resume(Value::new(number)));
        }
        drop(coroutine);
        no_value_is_left_or_dropped_twice();

        let panics = |_: &Yielder<Value<A, N>, ()>, _input: Value<A, N>| -> Value<A, N> {
            let _local = Value::<A, N>::new(4);
            panic::resume_unwind(Box::new(Value::<u64, 16>::new(5)))
        };
        let mut coroutine = Coroutine::with_stack(stack(), panics).expect("it fits");
        let caught = panic::catch_unwind(AssertUnwindSafe(|| drop(coroutine.resume(Value::new(1)))));
        caught.expect_err("it panics").downcast::<Value<u64, 16>>().expect("its own payload").check(5);
        drop(coroutine);
        no_value_is_left_or_dropped_twice();
    }
    meet::<u8, 0>();
    meet::<u8, 1>();
    meet::<u64, 8>();
    meet::<u64, 24>();
    meet::<u128, 4096>();
}
