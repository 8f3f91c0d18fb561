//! Where memory has run out stacks are refused with an error: nothing aborts, and nothing is lost. And what is done often
//! asks for no memory at all.
#![cfg(feature = "std")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::{self, Write};
use std::thread;

use switchback::stack::{Error, Mapped, Pool, Slab, StackSize, guard_kind, usage};

/// The system's allocator, which refuses what a thread wants to have refused.
struct Short;

#[global_allocator]
static ALLOCATOR: Short = Short;

thread_local! {
    /// Allocations of this thread until one is refused; none is if there are fewer.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Whether those that follow are refused as well.
    static FOR_GOOD: Cell<bool> = const { Cell::new(false) };
    static REFUSED: Cell<usize> = const { Cell::new(0) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has allocated, less those that it has freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn is_refused() -> bool {
    ASKED.set(ASKED.get() + 1);
    let left = LEFT.get();
    if left > 0 {
        LEFT.set(left - 1);
        return false;
    }
    LEFT.set(if FOR_GOOD.get() { 0 } else { usize::MAX });
    REFUSED.set(REFUSED.get() + 1);
    true
}

// SAFETY: the system's, or a refusal. What is counted in has no destructor and allocates nothing.
unsafe impl GlobalAlloc for Short {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused() {
            return std::ptr::null_mut();
        }
        HELD.set(HELD.get().wrapping_add_unsigned(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub_unsigned(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

/// What became of a run.
struct Answer<T> {
    value: T,
    asked: usize,
    refused: usize,
    /// Bytes that it has kept.
    kept: isize,
}

/// Runs this with the n-th allocation refused, and perhaps all after it.
fn with_refused<T>(nth: usize, for_good: bool, run: impl FnOnce() -> T) -> Answer<T> {
    let before = HELD.get();
    ASKED.set(0);
    REFUSED.set(0);
    FOR_GOOD.set(for_good);
    LEFT.set(nth);
    let value = run();
    LEFT.set(usize::MAX);
    Answer { value, asked: ASKED.get(), refused: REFUSED.get(), kept: HELD.get() - before }
}

/// An error's sentence, for which nothing is allocated.
struct Sentence {
    text: [u8; 400],
    len: usize,
}

impl Write for Sentence {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let place = self.text.get_mut(self.len..self.len + part.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(part.as_bytes());
        self.len += part.len();
        Ok(())
    }
}

/// Says that there was no memory, without any.
fn says_why(error: Error) {
    let mut sentence = Sentence { text: [0; 400], len: 0 };
    let said = with_refused(0, true, || write!(sentence, "{error}"));
    let sentence = str::from_utf8(&sentence.text[..sentence.len]).expect("text");
    assert!(said.value.is_ok() && said.asked == 0, "{} allocations to say: {sentence}", said.asked);
    assert!(sentence.starts_with("the allocator refused ") || cfg!(miri), "{sentence}");
}

/// Runs `run` with each of its allocations refused, alone and with all that follow, each time on a new thread and with
/// what `prepare` makes. What is refused is an error, after which `after` is called with the bytes that were kept. Answers
/// how many errors there were.
fn refuse_each<P: Copy + Send, T>(
    prepare: impl Fn() -> P + Sync,
    run: impl Fn(P) -> Result<T, Error> + Sync,
    after: impl Fn(P, isize) + Sync,
) -> usize {
    let (mut tried, mut errors) = (0, 0);
    for for_good in [false, true] {
        for nth in 0.. {
            let one = || {
                let prepared = prepare();
                let Answer { value, refused, kept, .. } = with_refused(nth, for_good, || run(prepared));
                let error = value.err();
                if let Some(error) = error {
                    assert!(refused > 0, "{error}");
                    says_why(error);
                    after(prepared, kept);
                }
                (refused, error)
            };
            let (refused, error) = thread::scope(|scope| scope.spawn(one).join().expect("it has an answer"));
            if refused == 0 {
                break;
            }
            (tried, errors) = (tried + 1, errors + usize::from(error.is_some()));
        }
    }
    println!("{tried} points tried, {errors} errors");
    errors
}

/// A size of which there is no pool yet.
fn new_size() -> StackSize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let guard = NEXT.fetch_add(1, Ordering::Relaxed) * 64 * 1024;
    StackSize { reserve: 64 * 1024, commit: 0, guard }
}

/// What lasts as long as the process is made.
fn begin() {
    guard_kind();
    drop(Mapped::new(1).expect("a stack"));
}

#[test]
fn a_mapped_stack_is_refused_where_there_is_no_memory_for_the_table() {
    begin();
    let mut stacks = Vec::with_capacity(300);
    let mut errors = 0;
    // Now and then the table grows.
    while stacks.len() < 200 {
        let Answer { value, refused, kept, .. } = with_refused(0, true, || Mapped::new(4096));
        match value {
            Ok(stack) => stacks.push(stack),
            Err(error) => {
                errors += 1;
                assert!(refused > 0 && kept == 0, "{kept} bytes are kept");
                says_why(error);
                stacks.push(Mapped::new(4096).expect("there is memory again"));
            }
        }
    }
    assert!(errors >= 2, "{errors} times it grew");
}

#[test]
fn a_slab_is_refused_where_there_is_no_memory_for_its_account() {
    begin();
    let run = |()| {
        let slab = Slab::new(4096, 20)?;
        let stack = slab.take()?;
        drop(slab);
        Ok(stack)
    };
    let errors = refuse_each(|| (), run, |(), kept| assert_eq!(kept, 0, "bytes are lost"));
    assert!(errors >= 4, "the stacks that are free, and what is shared");
}

#[test]
fn a_pool_is_refused_where_there_is_no_memory_for_it() {
    begin();
    let errors = refuse_each(new_size, Pool::of, |size, kept| {
        assert_eq!(kept, 0, "bytes are lost");
        Pool::of(size).expect("there is memory again");
    });
    assert!(errors >= 2, "what threads share");
}

#[test]
fn a_stack_from_a_pool_is_had_without_a_shelf_or_refused_where_there_is_no_memory() {
    begin();
    let run = |pool: Pool| {
        let stacks = [pool.take()?, pool.take()?];
        drop(stacks);
        pool.trim();
        pool.take()
    };
    let pool = || Pool::of(new_size()).expect("there is memory");
    let errors = refuse_each(pool, run, |pool, _| {
        drop(pool.take().expect("there is memory again"));
        assert_eq!(pool.stats().in_use, 0);
    });
    assert!(errors >= 4, "what the depot keeps account with");
}

#[test]
fn what_is_done_often_allocates_nothing() {
    begin();
    let pool = Pool::of(new_size()).expect("a pool");
    let slab = Slab::new(64 * 1024, 100).expect("a slab");
    let round = || {
        let mut stacks = [const { (None, None) }; 100];
        for (pooled, slabbed) in &mut stacks {
            *pooled = Some(pool.take().expect("a stack"));
            *slabbed = Some(slab.take().expect("not all are in use"));
        }
        assert!(slab.take().is_err());
        let _ = (slab.in_use(), pool.stats(), stacks[0].0.as_ref().and_then(usage));
        drop(stacks);
        slab.trim();
    };
    // The pool maps what it needs.
    round();
    let Answer { asked, .. } = with_refused(usize::MAX, false, || (0..3).for_each(|_| round()));
    assert_eq!(asked, 0, "allocations");
}
