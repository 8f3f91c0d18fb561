//! More coroutines alive than there may be mappings.
#![cfg(feature = "std")]

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

use switchback::stack::{Mapped, Stack};
use switchback::{Coroutine, Resumed, Yielder};

const COUNT: usize = if cfg!(miri) {
    50
} else if cfg!(switchback_threads) {
    1_000
} else {
    100_000
};
/// Room to be unwound in; 1.6 GiB in all, which 32 bits can still address.
const SLOT: usize = 16 << 10;

/// One mapping that serves as many stacks.
struct Slab {
    memory: Mapped,
    free: RefCell<Vec<usize>>,
}

/// A part of it. No guard: what runs here is known, and whether it came to the end is checked when it is over.
struct Slot {
    slab: Rc<Slab>,
    number: usize,
}

impl Slab {
    fn new(count: usize) -> Rc<Slab> {
        let memory = Mapped::new(count * SLOT).expect("address space");
        Rc::new(Slab { memory, free: RefCell::new((0..count).collect()) })
    }

    fn slot(self: &Rc<Self>) -> Slot {
        let number = self.free.borrow_mut().pop().expect("a free slot");
        Slot { slab: self.clone(), number }
    }
}

// SAFETY: slots do not overlap, the mapping stays until the last one is dropped, and one that is forgotten keeps it. No
// test here needs more than a slot.
unsafe impl Stack for Slot {
    fn top(&self) -> NonNull<u8> {
        // SAFETY: within the mapping or at its end.
        unsafe { self.limit().add(SLOT) }
    }
    fn limit(&self) -> NonNull<u8> {
        // SAFETY: within the mapping.
        unsafe { self.slab.memory.limit().add(self.number * SLOT) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the lowest word of memory that nobody runs on any more, zero when it was mapped.
        let lowest = unsafe { self.limit().cast::<usize>().read() };
        assert_eq!(lowest, 0, "a stack of {SLOT} bytes was used up");
        #[cfg(not(miri))]
        // What was touched is given to the system, or all stacks would be resident several pages deep in the end.
        // SAFETY: whole pages of an anonymous mapping, in use no longer.
        unsafe {
            libc::madvise(self.limit().as_ptr().cast(), SLOT, libc::MADV_DONTNEED);
        }
        self.slab.free.borrow_mut().push(self.number);
    }
}

/// The numbers below `count` in an order without pattern, another for each seed.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut order: Vec<_> = (0..count).collect();
    for n in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(n, (state >> 33) as usize % (n + 1));
    }
    order
}

#[test]
fn a_hundred_thousand_coroutines_are_alive_at_once_and_each_keeps_its_own() {
    struct CountedDown(Rc<Cell<usize>>);
    impl Drop for CountedDown {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    let slab = Slab::new(COUNT);
    let alive = Rc::new(Cell::new(0));
    let mut coroutines: Vec<_> = (0..COUNT)
        .map(|id| {
            let alive = alive.clone();
            let body = move |yielder: &Yielder<usize, usize>, first| {
                alive.set(alive.get() + 1);
                let _guard = CountedDown(alive);
                let mut sum: usize = first;
                for _ in 0..3 {
                    sum += yielder.suspend(sum ^ id);
                }
                sum ^ id
            };
            Coroutine::with_stack(slab.slot(), body).expect("it fits")
        })
        .collect();
    for round in 1..=3 {
        for id in shuffled(COUNT, round) {
            let sum = id * round as usize;
            assert_eq!(coroutines[id].resume(id), Resumed::Yielded(sum ^ id));
        }
        assert_eq!(alive.get(), COUNT);
    }
    // A third of them end by themselves.
    for id in shuffled(COUNT, 4).into_iter().filter(|id| id % 3 == 0) {
        assert_eq!(coroutines[id].resume(id), Resumed::Returned((4 * id) ^ id));
        assert!(coroutines[id].is_finished());
    }
    assert_eq!(alive.get(), COUNT - COUNT.div_ceil(3));
    // The others are unwound, in no order either.
    let mut coroutines: Vec<_> = coroutines.into_iter().map(Some).collect();
    shuffled(COUNT, 5).into_iter().for_each(|id| drop(coroutines[id].take()));
    assert_eq!(alive.get(), 0);
    assert_eq!(slab.free.borrow().len(), COUNT);
}

/// Each in the last one's function.
const LEVELS: usize = if cfg!(miri) { 20 } else { 1_000 };

type Level = Coroutine<usize, usize, usize>;

fn nest(depth: usize, innermost: fn(&Yielder<usize, usize>), ended: Rc<RefCell<Vec<usize>>>) -> Level {
    struct Ends(usize, Rc<RefCell<Vec<usize>>>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }

    let body = move |yielder: &Yielder<usize, usize>, mut word: usize| {
        let _ends = Ends(depth, ended.clone());
        if depth + 1 == LEVELS {
            innermost(yielder);
            return word + 1;
        }
        let mut inner = nest(depth + 1, innermost, ended);
        loop {
            match inner.resume(word + 1) {
                Resumed::Yielded(value) => word = yielder.suspend(value + 1),
                Resumed::Returned(value) => return value + 1,
            }
        }
    };
    Coroutine::new(body).expect("a stack")
}

#[test]
fn a_word_goes_down_and_up_a_thousand_levels() {
    let ended = Rc::default();
    let suspend_twice: fn(&Yielder<usize, usize>) = |yielder| {
        assert_eq!(yielder.suspend(10_000), 20_000 + LEVELS - 1);
        assert_eq!(yielder.suspend(30_000), 40_000 + LEVELS - 1);
    };
    let mut outermost = nest(0, suspend_twice, Rc::clone(&ended));
    assert_eq!(outermost.resume(0), Resumed::Yielded(10_000 + LEVELS - 1));
    assert_eq!(outermost.resume(20_000), Resumed::Yielded(30_000 + LEVELS - 1));
    assert_eq!(outermost.resume(40_000), Resumed::Returned(LEVELS - 1 + LEVELS));
    assert!(ended.borrow().iter().copied().eq((0..LEVELS).rev()));
}

#[test]
fn a_thousand_levels_are_unwound_from_the_outside_innermost_first() {
    let ended = Rc::default();
    let mut outermost = nest(0, |yielder| assert_eq!(yielder.suspend(0), 0, "nobody resumes it"), Rc::clone(&ended));
    assert_eq!(outermost.resume(0), Resumed::Yielded(LEVELS - 1));
    drop(outermost);
    assert!(ended.borrow().iter().copied().eq((0..LEVELS).rev()));
}

#[test]
fn a_panic_goes_up_a_thousand_levels() {
    let ended = Rc::default();
    let mut outermost = nest(0, |_| std::panic::resume_unwind(Box::new("from below")), Rc::clone(&ended));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| outermost.resume(0)));
    assert_eq!(caught.expect_err("it panics").downcast_ref(), Some(&"from below"));
    assert!(outermost.is_finished());
    assert!(ended.borrow().iter().copied().eq((0..LEVELS).rev()));
}
