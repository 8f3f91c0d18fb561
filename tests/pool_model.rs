//! Random programs of all that can be done with pools, on several threads, each step beside a plain model of what there
//! must be then.
#![cfg(feature = "std")]

mod common;
#[path = "programs/property.rs"]
mod property;
#[path = "common/system.rs"]
mod system;

use std::collections::BTreeSet;
use std::fmt;
use std::ptr::NonNull;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::in_another_process;
use property::Property;
use quickcheck::{Arbitrary, Gen};
use switchback::stack::{Keep, Pool, Pooled, Stack, StackSize};
use system::page_size;

const TEST: &str = "pools_do_what_a_model_says";

#[test]
fn pools_do_what_a_model_says() {
    Property {
        name: TEST,
        size: if cfg!(miri) { 12 } else { 60 },
        inputs: 240,
        check: |program: &Program| {
            run(program);
            Ok(())
        },
        encode: |program| {
            program.0.iter().map(|&(a, b, c, d)| format!("{:08x}", u32::from_be_bytes([a, b, c, d]))).collect()
        },
        decode: |text| {
            let words = text.as_bytes().chunks(8).map(|word| str::from_utf8(word).expect("ASCII"));
            let words = words.map(|word| u32::from_str_radix(word, 16).expect("as it was encoded").to_be_bytes());
            Program(words.map(|[a, b, c, d]| (a, b, c, d)).collect())
        },
    }
    .holds();
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn pools_do_what_a_model_says_with_guards_that_are_mappings() {
    passes_with("SWITCHBACK_GUARD", "protection");
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn pools_do_what_a_model_says_when_what_is_not_in_use_is_out_of_reach() {
    passes_with("SWITCHBACK_GUARD_RELEASED", "1");
}

fn passes_with(variable: &str, value: &str) {
    let child = in_another_process(TEST, &[(variable, value)]);
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// Four bytes for each step: the thread, what it does, with which pool or stack, and how many times or how deep.
#[derive(Clone)]
struct Program(Vec<(u8, u8, u8, u8)>);

impl Arbitrary for Program {
    fn arbitrary(random: &mut Gen) -> Self {
        Self(Vec::arbitrary(random))
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        Box::new(self.0.shrink().map(Self))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|&step| Step::new(step))).finish()
    }
}

#[derive(Clone, Copy, Debug)]
struct Step {
    thread: usize,
    op: Op,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Take {
        pool: usize,
        count: usize,
    },
    /// Those taken last, or first, of all pools and on whatever thread.
    Give {
        last: bool,
        count: usize,
    },
    /// Writes to so many pages, down from this one.
    Touch {
        stack: usize,
        from: usize,
        pages: usize,
    },
    Trim {
        pool: usize,
    },
    /// The thread ends, and another one has its place.
    End,
    Keep {
        resident: usize,
        cached: usize,
    },
    /// Takes and gives back until all that is not needed for that has decayed.
    Wear {
        pool: usize,
    },
}

impl Step {
    fn new((thread, what, which, amount): (u8, u8, u8, u8)) -> Self {
        let [which, amount] = [which, amount].map(usize::from);
        let (pool, count) = (which % POOLS, [1, 1, 2, 5, 20, 90][amount % 6]);
        let op = match what % 16 {
            0..5 => Op::Take { pool, count },
            5..9 => Op::Give { last: which.is_multiple_of(2), count },
            9..12 => Op::Touch { stack: which, from: [0, 0, amount, 7 * amount][amount % 4], pages: amount % 20 },
            12 => Op::Trim { pool },
            13 => Op::End,
            14 => Op::Keep {
                resident: [0, 1, 16 << 10, usize::MAX][which % 4],
                cached: [0, 300_000, 64 << 20][amount % 3],
            },
            _ => Op::Wear { pool },
        };
        Self { thread: usize::from(thread) % THREADS, op }
    }
}

const THREADS: usize = 3;
const POOLS: usize = 4;
/// What a shelf holds, and what moves between it and the depot at once, as `src/stack/pool/shelf.rs` has it.
const SHELF: usize = 64;
const AT_ONCE: usize = 16;
/// Takes and gives in which a shelf is looked over twenty times: often enough for all that there can be to be halved away.
const WEAR: usize = 20 * 1025;

/// Rows of thousands of stacks, of hundreds, of a few and of two.
fn sizes() -> [StackSize; POOLS] {
    let (several, few) = if cfg!(miri) { (200 << 10, 600 << 10) } else { (1 << 20, 6 << 20) };
    let committed = StackSize { reserve: 64 << 10, commit: 2 * page_size(), guard: 0 };
    [page_size().into(), committed, several.into(), few.into()]
}

/// Whether nothing is kept, and what is not in use is guarded whole.
fn sealed() -> bool {
    std::env::var_os("SWITCHBACK_GUARD_RELEASED").is_some()
}

fn run(program: &Program) {
    Keep { decay: Duration::MAX, ..Keep::default() }.apply();
    let world = Arc::new(Mutex::new(World::new()));
    let mut threads: [_; THREADS] = std::array::from_fn(|_| Some(Worker::new(world.clone())));
    let do_it = |threads: &mut [Option<Worker>; THREADS], Step { thread, op }| {
        if matches!(op, Op::End) {
            if let Some(worker) = threads[thread].take() {
                worker.end();
            }
            threads[thread] = Some(Worker::new(world.clone()));
        } else if let Some(worker) = &threads[thread] {
            worker.run(Step { thread, op });
        }
        let mut world = world.lock().expect("nobody has panicked");
        if matches!(op, Op::End) {
            world.end(thread);
        }
        world.check();
    };
    program.0.iter().for_each(|&step| do_it(&mut threads, Step::new(step)));
    do_it(&mut threads, Step { thread: 0, op: Op::Give { last: false, count: usize::MAX } });
    (0..THREADS).for_each(|thread| do_it(&mut threads, Step { thread, op: Op::End }));
    (0..POOLS).for_each(|pool| do_it(&mut threads, Step { thread: 0, op: Op::Trim { pool } }));
    threads.into_iter().flatten().for_each(Worker::end);
    for model in &world.lock().expect("nobody has panicked").pools {
        assert_eq!(model.pool.stats().mapped, 0, "everything goes back to the system in the end");
    }
}

/// A thread that takes one step at a time.
struct Worker {
    steps: SyncSender<Step>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn new(world: Arc<Mutex<World>>) -> Self {
        let (steps, to_do) = mpsc::sync_channel::<Step>(0);
        let (did, done) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            for step in to_do {
                world.lock().expect("nobody has panicked").apply(step);
                did.send(()).expect("somebody waits for it");
            }
        });
        Self { steps, done, thread }
    }

    fn run(&self, step: Step) {
        self.steps.send(step).expect("it waits for steps");
        self.done.recv().unwrap_or_else(|_| panic!("{step:?} does not do what the model says"));
    }

    fn end(self) {
        drop(self.steps);
        self.thread.join().expect("it has done all its steps");
    }
}

/// What there is, and the model of what is not seen from outside.
struct World {
    live: Vec<Live>,
    pools: Vec<Model>,
    /// The last one given to a stack.
    stamp: u64,
}

/// A stack that was taken.
struct Live {
    stack: Pooled,
    pool: usize,
    written: Written,
}

/// What was written to a stack: its stamp, to these pages, counted down from the top.
struct Written {
    limit: NonNull<u8>,
    stamp: u64,
    pages: BTreeSet<usize>,
}

// SAFETY: the address of a stack that the world owns, or has given to the pool.
unsafe impl Send for Written {}

struct Model {
    pool: Pool,
    size: StackSize,
    in_use: usize,
    shelves: [Shelf; THREADS],
    /// How many lie in the depot with some of their pages.
    warm: usize,
    /// The most bytes that one of those has.
    kept: usize,
    /// The most that were in use or on a shelf at a time.
    peak: usize,
}

/// Stacks given back on a thread, and those that came with one that was taken from the depot.
#[derive(Default)]
struct Shelf {
    count: usize,
    /// The uppermost of them, which were given back. What was written to them is still there.
    known: Vec<Written>,
    /// Whether the others have never been used since the system gave them their pages.
    fresh: bool,
}

impl World {
    fn new() -> Self {
        let pools = sizes().into_iter().map(|size| Model::new(Pool::of(size).expect("it makes sense"))).collect();
        Self { live: Vec::new(), pools, stamp: 0 }
    }

    fn apply(&mut self, Step { thread, op }: Step) {
        match op {
            Op::Take { pool, count } => {
                // No more address space than 32 bits can spare; under Miri it is memory.
                let most = if cfg!(miri) { 8 << 20 } else { 256 << 20 } / self.pools[pool].size.reserve;
                let count = count.min(most.min(200) - self.pools[pool].in_use);
                (0..count).for_each(|_| self.take(thread, pool));
            }
            Op::Give { last, count } => {
                for _ in 0..count.min(self.live.len()) {
                    let live = self.live.remove(if last { self.live.len() - 1 } else { 0 });
                    self.pools[live.pool].give(thread, live);
                }
            }
            Op::Touch { stack, from, pages } if !self.live.is_empty() => {
                let stack = stack % self.live.len();
                let live = &mut self.live[stack];
                let from = from % (live.stack.reserve() / page_size());
                (from..from + pages).for_each(|page| live.written.write(page, live.stack.reserve()));
            }
            Op::Trim { pool } => self.pools[pool].trim(thread),
            Op::Keep { resident, cached } => Keep { resident, cached, decay: Duration::MAX }.apply(),
            Op::Wear { pool } if !cfg!(miri) && !sealed() => {
                self.take(thread, pool);
                if let Some(live) = self.live.pop() {
                    self.pools[pool].give(thread, live);
                }
                self.pools[pool].wear(thread);
            }
            Op::End | Op::Touch { .. } | Op::Wear { .. } => {}
        }
    }

    fn take(&mut self, thread: usize, pool: usize) {
        let stack = self.pools[pool].take(thread);
        let area = |stack: &Pooled, pool: usize| {
            let limit = stack.limit().addr().get();
            // Of the others' guards at least as much as everyone has.
            limit - self.pools[pool].size.guard..limit + stack.reserve()
        };
        let new = area(&stack, pool);
        for other in &self.live {
            let other = area(&other.stack, other.pool);
            assert!(new.end <= other.start || other.end <= new.start, "{new:x?} and {other:x?} overlap");
        }
        self.stamp += 1;
        let mut written = Written { limit: stack.limit(), stamp: self.stamp, pages: BTreeSet::new() };
        // As every coroutine does.
        written.write(0, stack.reserve());
        self.live.push(Live { stack, pool, written });
    }

    fn end(&mut self, thread: usize) {
        self.pools.iter_mut().for_each(|model| model.empty_shelf(thread));
    }

    fn check(&self) {
        self.live.iter().for_each(|live| live.written.check(live.stack.reserve()));
        for (number, model) in self.pools.iter().enumerate() {
            assert_eq!(model.in_use, self.live.iter().filter(|live| live.pool == number).count());
            model.check();
        }
    }
}

impl Written {
    /// Stamps a page at both ends, if there is such a page.
    fn write(&mut self, page: usize, reserve: usize) {
        if let Some([first, last]) = self.ends(page, reserve) {
            // SAFETY: within a stack that was taken and on which nothing runs.
            unsafe { [first, last].into_iter().for_each(|end| end.write(self.stamp + page as u64)) };
            self.pages.insert(page);
        }
    }

    fn check(&self, reserve: usize) {
        for &page in &self.pages {
            let ends = self.ends(page, reserve).expect("it was written");
            // SAFETY: as above; the pool has not been told that anything else may be done with it.
            let found = ends.map(|end| unsafe { end.read() });
            assert_eq!(found, [self.stamp + page as u64; 2], "page {page} below the top of {:?}", self.limit);
        }
    }

    fn ends(&self, page: usize, reserve: usize) -> Option<[NonNull<u64>; 2]> {
        let start = reserve.checked_sub((page + 1) * page_size())?;
        // SAFETY: within the stack.
        Some([start, start + page_size() - size_of::<u64>()].map(|offset| unsafe { self.limit.add(offset).cast() }))
    }
}

impl Model {
    /// Of a pool that has been emptied, if it has been used.
    fn new(pool: Pool) -> Self {
        let stats = pool.stats();
        Self { pool, size: stats.size, in_use: 0, shelves: Default::default(), warm: 0, kept: 0, peak: stats.peak }
    }

    fn on_shelves(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.count).sum()
    }

    fn check(&self) {
        let stats = self.pool.stats();
        let cached = self.on_shelves() + self.warm;
        assert_eq!((stats.in_use, stats.cached, stats.peak), (self.in_use, cached, self.peak), "{stats:?}");
        assert!(stats.mapped >= stats.in_use + stats.cached, "{stats:?}");
    }

    fn take(&mut self, thread: usize) -> Pooled {
        let before = self.pool.stats();
        let stack = self.pool.take().expect("a stack");
        let after = self.pool.stats();
        let shelf = &mut self.shelves[thread];
        if shelf.count > 0 {
            shelf.count -= 1;
            match shelf.known.pop() {
                Some(written) => {
                    assert_eq!(stack.limit(), written.limit, "last in, first out");
                    written.check(self.size.reserve);
                }
                None => check_resident(&stack, self.size, if shelf.fresh { None } else { Some(self.kept) }),
            }
        } else if self.warm > 0 {
            let count = self.warm.min(AT_ONCE);
            self.warm -= count;
            *shelf = Shelf { count: count - 1, known: Vec::new(), fresh: false };
            check_resident(&stack, self.size, Some(self.kept));
        } else {
            // How many are had at once is the pool's affair.
            let more = after.cached - before.cached;
            assert!(more < if sealed() { 1 } else { AT_ONCE }, "{more} more");
            *shelf = Shelf { count: more, known: Vec::new(), fresh: true };
            check_resident(&stack, self.size, None);
            let idle = before.mapped - before.in_use - before.cached;
            assert!(idle == 0 || after.mapped == before.mapped, "there were {idle} more: {after:?}");
        }
        self.in_use += 1;
        if before.cached > 0 && after.cached < before.cached {
            assert_eq!(after.mapped, before.mapped, "what is kept is used");
        }
        self.peak = self.peak.max(self.in_use + self.on_shelves());
        self.check();
        stack
    }

    fn give(&mut self, thread: usize, live: Live) {
        live.written.check(self.size.reserve);
        let before = self.pool.stats();
        drop(live.stack);
        self.in_use -= 1;
        if !sealed() {
            if self.shelves[thread].count == SHELF {
                self.leave_shelf(AT_ONCE);
                let shelf = &mut self.shelves[thread];
                shelf.count -= AT_ONCE;
                shelf.known.drain(..shelf.known.len().saturating_sub(shelf.count));
            }
            self.shelves[thread].count += 1;
            self.shelves[thread].known.push(live.written);
        }
        assert_eq!(self.pool.stats().mapped, before.mapped);
        self.check();
    }

    /// So many stacks leave a shelf.
    fn leave_shelf(&mut self, count: usize) {
        if count > 0 {
            let keep = Keep::current();
            let resident = keep.resident.checked_next_multiple_of(page_size()).unwrap_or(usize::MAX);
            let kept = resident.max(self.size.commit).min(self.size.reserve);
            self.kept = self.kept.max(kept);
            self.warm = (self.warm + count).min(keep.cached / kept.max(1));
        }
    }

    fn empty_shelf(&mut self, thread: usize) {
        let shelf = std::mem::take(&mut self.shelves[thread]);
        self.leave_shelf(shelf.count);
    }

    fn trim(&mut self, thread: usize) {
        let before = self.pool.stats();
        self.pool.trim();
        self.empty_shelf(thread);
        self.warm = 0;
        self.check();
        let after = self.pool.stats();
        assert!(after.mapped <= before.mapped);
        assert!(after.in_use + after.cached > 0 || after.mapped == 0, "{after:?}");
    }

    /// One lies on the shelf.
    fn wear(&mut self, thread: usize) {
        let keep = Keep::current();
        Keep { decay: Duration::ZERO, ..keep }.apply();
        (0..WEAR).for_each(|_| drop(self.pool.take().expect("a stack")));
        keep.apply();
        self.leave_shelf(1);
        self.warm = 0;
        self.shelves[thread] = Shelf { count: 1, known: Vec::new(), fresh: false };
        self.check();
    }
}

/// A stack has no pages but what is committed, and may have so many bytes at the top if it was in use before.
fn check_resident(stack: &Pooled, size: StackSize, kept: Option<usize>) {
    if cfg!(miri) {
        return;
    }
    let mut pages = vec![0_u8; stack.reserve() / page_size()];
    // SAFETY: whole pages of a mapping, and a byte for each.
    let answer = unsafe { libc::mincore(stack.limit().as_ptr().cast(), stack.reserve(), pages.as_mut_ptr().cast()) };
    assert_eq!(answer, 0);
    let is_resident = |page: &u8| page & 1 != 0;
    let committed = pages.len() - size.commit / page_size();
    assert!(pages[committed..].iter().all(is_resident), "{} of {size:?} are committed", pages.len() - committed);
    let beyond = pages.len() - kept.unwrap_or(size.commit) / page_size();
    let found = pages[..beyond].iter().filter(|page| is_resident(page)).count();
    assert_eq!(found, 0, "pages of {size:?} beyond those that are kept ({kept:?})");
}
