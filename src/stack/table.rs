//! Which stacks exist: every mapped one, with its guard, found by any address within it.
//!
//! A hash table, because it has to serve a hundred thousand stacks that come and go in any order. What is filed is an
//! [`Area`], one stack or a row of them. One of up to 2^k bytes, guards included, is of class k and is filed under the
//! number of the 2^k bytes in which it begins. An address within lies in those or in the next ones; so looking one up takes
//! two probes for each class in use, and programs have few sizes.
//!
//! Whoever maps or unmaps a stack changes the table under a lock. Looking up takes none, so that it scales: a
//! sequence number, odd during a change, tells the reader that what it read may be torn and
//! that it must read again. Only a reader who meets one change after another
//! takes the lock in the end; a signal handler must not, and is told that it has met changes only. A child of `fork` in a process with several
//! threads may find the lock taken for ever and so must not map or unmap stacks. The table only grows; a block of slots that has become too small stays, since somebody may
//! be reading it, and all of them together are no larger than the last.

use core::hint;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

/// No memory for the table.
#[derive(Debug)]
pub(super) struct NoMemory;

/// One stack, or several of one size in a row, each with its guard below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    /// The lowest address, that of the first guard.
    pub(super) start: usize,
    /// The address above the highest.
    pub(super) end: usize,
    /// From one stack to the next. The length is a multiple of it.
    pub(super) stride: usize,
    /// Bytes of guard that each begins with.
    pub(super) guard: usize,
}

impl Area {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn contains(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// The stack in which an address of the area lies, or whose guard. Whoever reads a torn one reads again.
    fn stack(&self, address: usize) -> Found {
        let base = address - (address - self.start) % self.stride;
        Found { base, limit: base.wrapping_add(self.guard), top: base.wrapping_add(self.stride) }
    }
}

/// A stack that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The lowest address of its guard.
    pub(super) base: usize,
    /// The lowest of the stack.
    pub(super) limit: usize,
    /// Above its highest.
    pub(super) top: usize,
}

/// Files stacks.
pub(super) fn insert(area: Area) -> Result<(), NoMemory> {
    TABLE.insert(area)
}

/// Takes out what was filed with this start, before it is unmapped.
pub(super) fn remove(area: Area) {
    TABLE.remove(area);
}

/// The stack in which, or in whose guard, an address lies.
pub(super) fn find(address: usize) -> Option<Found> {
    TABLE.find(address)
}

/// As [`find`], for signal handlers: takes no lock and ends in any case.
///
/// An error may pass, or not: whoever is changing the table may be what the signal has interrupted.
#[cfg_attr(not(all(target_os = "linux", not(miri))), allow(dead_code, reason = "no signal handler"))]
pub(super) fn try_find(address: usize) -> Result<Option<Found>, Changing> {
    TABLE.try_read(ATTEMPTS, || TABLE.look_up(address))
}

/// How many stacks have been taken out. While this stands, what was found is still there.
#[inline(always)]
pub(super) fn removals() -> usize {
    // A thread that runs on a stack has synchronised with whoever mapped it there, who took the lock after whoever had
    // unmapped another one: it sees their count.
    TABLE.removals.0.load(Ordering::Relaxed)
}

/// Somebody is changing the table.
#[derive(Debug)]
pub(super) struct Changing;

/// How often to read again: far more than it takes unless whoever changes the table has been interrupted.
const ATTEMPTS: usize = 1000;

static TABLE: Table = Table::new();

struct Table {
    /// How many areas there are. Locked to change anything.
    areas: Mutex<usize>,
    /// Odd during a change.
    sequence: AtomicUsize,
    /// The block in use. `BLOCKS` means none yet.
    current: AtomicUsize,
    /// Bit k: there has been a stack of class k.
    classes: AtomicUsize,
    /// Block n has `FIRST << n` slots. At least half of those of the one in use are free.
    blocks: [OnceLock<Vec<Slot>>; BLOCKS],
    removals: Apart<AtomicUsize>,
}

const FIRST: usize = 64;
/// No more would fit into the address space.
const BLOCKS: usize = usize::BITS as usize - FIRST.ilog2() as usize - size_of::<Slot>().ilog2() as usize;

/// An area, or zeroes.
#[derive(Default)]
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    stride: AtomicUsize,
    guard: AtomicUsize,
}

/// On a cache line of its own (a pair of them, where they are fetched in pairs): it is read far more often than its
/// neighbours are written.
#[repr(align(128))]
struct Apart<T>(T);

impl Table {
    const fn new() -> Self {
        Self {
            areas: Mutex::new(0),
            sequence: AtomicUsize::new(0),
            current: AtomicUsize::new(BLOCKS),
            classes: AtomicUsize::new(0),
            blocks: [const { OnceLock::new() }; BLOCKS],
            removals: Apart(AtomicUsize::new(0)),
        }
    }

    fn insert(&self, area: Area) -> Result<(), NoMemory> {
        let mut areas = self.areas.lock().unwrap_or_else(PoisonError::into_inner);
        let block = match self.block() {
            Some(block) if *areas < block.len() / 2 => block,
            _ => self.grow()?,
        };
        self.change(|| {
            self.classes.fetch_or(1 << class(&area), Ordering::Relaxed);
            file(block, &area);
        });
        *areas += 1;
        Ok(())
    }

    fn remove(&self, area: Area) {
        let mut areas = self.areas.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(block) = self.block() else { return };
        let Some(place) = probe(block, home(block, &area)).find(|&place| block[place].start() == area.start) else {
            return;
        };
        self.change(|| take_out(block, place));
        *areas -= 1;
        self.removals.0.fetch_add(1, Ordering::Relaxed);
    }

    fn find(&self, address: usize) -> Option<Found> {
        self.try_read(ATTEMPTS, || self.look_up(address)).unwrap_or_else(|_| {
            let _areas = self.areas.lock().unwrap_or_else(PoisonError::into_inner);
            self.look_up(address)
        })
    }

    /// What was read while nothing changed; an error if there was a change each time. Async-signal-safe.
    fn try_read<T>(&self, attempts: usize, mut read: impl FnMut() -> T) -> Result<T, Changing> {
        for _ in 0..attempts {
            // Pairs with the last store of `change`: what is read next is at least as new.
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let value = read();
                // Pairs with the fence in `change`: whoever has read anything of a change sees its odd number here.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return Ok(value);
                }
            }
            hint::spin_loop();
        }
        Err(Changing)
    }

    /// What it says holds if there was no change meanwhile. Ends in any case.
    fn look_up(&self, address: usize) -> Option<Found> {
        let block = self.block()?;
        let mut classes = self.classes.load(Ordering::Relaxed);
        while classes != 0 {
            let class = classes.trailing_zeros();
            classes &= classes - 1;
            let granule = address >> class;
            for granule in [granule, granule.saturating_sub(1)] {
                let found = probe(block, hash(block, class, granule))
                    .map(|place| block[place].area())
                    .find(|area| area.contains(address) && area.stride != 0);
                if let Some(area) = found {
                    return Some(area.stack(address));
                }
            }
        }
        None
    }

    fn block(&self) -> Option<&[Slot]> {
        // Pairs with the store in `grow`.
        self.blocks.get(self.current.load(Ordering::Acquire))?.get().map(Vec::as_slice)
    }

    /// Copies everything to a block of twice the size. To be called under the lock.
    fn grow(&self) -> Result<&[Slot], NoMemory> {
        let next = match self.current.load(Ordering::Relaxed) {
            BLOCKS => 0,
            current => current + 1,
        };
        let length = FIRST << next;
        let mut block = Vec::new();
        block.try_reserve_exact(length).map_err(|_| NoMemory)?;
        block.resize_with(length, Slot::default);
        for slot in self.block().unwrap_or_default() {
            if slot.start() != 0 {
                file(&block, &slot.area());
            }
        }
        let block = self.blocks.get(next).ok_or(NoMemory)?.get_or_init(|| block);
        // What is in use does not change by this, so no reader is disturbed.
        self.current.store(next, Ordering::Release);
        Ok(block)
    }

    /// Changes the table. To be called under the lock.
    fn change(&self, change: impl FnOnce()) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        // The number becomes odd before anything changes, and even after all has: see `try_read`.
        fence(Ordering::Release);
        change();
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }
}

impl Slot {
    /// Zero if it is free.
    fn start(&self) -> usize {
        self.start.load(Ordering::Relaxed)
    }

    /// Torn if it is being changed.
    fn area(&self) -> Area {
        let load = |field: &AtomicUsize| field.load(Ordering::Relaxed);
        Area { start: load(&self.start), end: load(&self.end), stride: load(&self.stride), guard: load(&self.guard) }
    }

    fn set(&self, area: &Area) {
        self.start.store(area.start, Ordering::Relaxed);
        self.end.store(area.end, Ordering::Relaxed);
        self.stride.store(area.stride, Ordering::Relaxed);
        self.guard.store(area.guard, Ordering::Relaxed);
    }
}

/// The least k for which the area has no more than 2^k bytes.
fn class(area: &Area) -> u32 {
    (area.len() - 1).ilog2() + 1
}

/// Where an area belongs.
fn home(block: &[Slot], area: &Area) -> usize {
    let class = class(area);
    hash(block, class, area.start >> class)
}

/// Fibonacci hashing: numbers that follow one another are spread evenly.
fn hash(block: &[Slot], class: u32, granule: usize) -> usize {
    const GOLDEN_RATIO: usize = (0x9e37_79b9_7f4a_7c15_u64 >> (u64::BITS - usize::BITS)) as usize | 1;
    // The classes share what a granule's number, shifted by its class, leaves unused above.
    let key = granule ^ (class as usize).rotate_right(8);
    key.wrapping_mul(GOLDEN_RATIO) >> (usize::BITS - block.len().ilog2())
}

/// The places in use from `home` on, up to the first that is free.
fn probe(block: &[Slot], home: usize) -> impl Iterator<Item = usize> {
    let mask = block.len() - 1;
    (home..home + block.len()).map(move |place| place & mask).take_while(|&place| block[place].start() != 0)
}

/// Puts an area into the first place from its home on that is free; half of them are.
fn file(block: &[Slot], area: &Area) {
    let home = home(block, area);
    let mask = block.len() - 1;
    let free = home + probe(block, home).count();
    block[free & mask].set(area);
}

/// Frees a place, and moves up those behind it that could not be put there.
fn take_out(block: &[Slot], place: usize) {
    let mask = block.len() - 1;
    let mut hole = place;
    for next in probe(block, (place + 1) & mask) {
        let area = block[next].area();
        // Not if its home lies between the hole and its place: it would not be found any more.
        let from_home = next.wrapping_sub(home(block, &area)) & mask;
        if from_home >= next.wrapping_sub(hole) & mask {
            block[hole].set(&area);
            hole = next;
        }
    }
    block[hole].set(&Area { start: 0, end: 0, stride: 0, guard: 0 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ops::Range;
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    /// Numbers that look random, the same each time (xorshift).
    struct Random(u32);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 17;
            self.0 ^= self.0 << 5;
            self.0 as usize % end
        }
    }

    const GUARD: usize = 100;

    /// A row of so many stacks, or fewer if they do not fill the range.
    fn row(range: Range<usize>, count: usize) -> Area {
        let count = if range.len().is_multiple_of(count) { count } else { 1 };
        Area { start: range.start, end: range.end, stride: range.len() / count, guard: GUARD }
    }

    /// The stack of a row in which an address lies.
    fn stack(area: Area, address: usize) -> Found {
        let mut base = area.start;
        while base + area.stride <= address {
            base += area.stride;
        }
        Found { base, limit: base + GUARD, top: base + area.stride }
    }

    /// Puts a stack where the model has room for it.
    fn place(random: &mut Random, model: &BTreeMap<usize, usize>) -> Option<Range<usize>> {
        const PAGE: usize = 4096;
        let pages = if random.below(4) == 0 { 1 + random.below(100) } else { 17 };
        let start = (1 + random.below(40_000)) * PAGE;
        let end = start + pages * PAGE;
        let free = model.range(..end).next_back().is_none_or(|(_, &last)| last <= start);
        free.then_some(start..end)
    }

    #[test]
    fn every_address_of_every_stack_is_found_and_no_other() {
        const ROW: usize = 4;
        let rounds = if cfg!(miri) { 30 } else { 3_000 };
        let table = Table::new();
        let mut model = BTreeMap::new();
        let mut random = Random(1);
        let mut most = 0;
        for round in 0..rounds {
            // Grows, shrinks, grows again.
            if random.below(10) < if round / 1_000 % 2 == 0 { 7 } else { 3 } {
                if let Some(stack) = place(&mut random, &model) {
                    table.insert(row(stack.clone(), ROW)).expect("memory");
                    model.insert(stack.start, stack.end);
                }
            } else if let Some((&start, &end)) = model.range(random.below(40_000) * 4096..).next() {
                table.remove(row(start..end, ROW));
                model.remove(&start);
            }
            most = most.max(model.len());
            if round % 100 == 0 {
                for (&start, &end) in &model {
                    for address in [start, (start + end) / 2, end - 1] {
                        assert_eq!(table.find(address), Some(stack(row(start..end, ROW), address)));
                    }
                }
            }
            let address = random.below(40_000 * 4096);
            let expected = model.range(..=address).next_back().filter(|&(_, &end)| address < end);
            assert_eq!(table.find(address), expected.map(|(&start, &end)| stack(row(start..end, ROW), address)));
        }
        assert!(most > FIRST || cfg!(miri), "the table has not grown: {most} stacks");
        for (&start, &end) in &model {
            table.remove(row(start..end, ROW));
        }
        assert!(model.keys().all(|&start| table.find(start).is_none()));
    }

    #[test]
    fn a_stack_is_found_while_others_come_and_go() {
        let rounds = if cfg!(miri) { 10 } else { 300 };
        let table = Table::new();
        let stack_at = |n: usize| (n + 1) * 0x10000..(n + 1) * 0x10000 + 0x10000 - 4096 * (n % 3);
        let lasting: Vec<_> = (0..FIRST / 4).map(|n| stack_at(4 * n)).collect();
        for stack in &lasting {
            table.insert(row(stack.clone(), 1)).expect("memory");
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for stack in &lasting {
                        assert_eq!(
                            table.find(stack.start + 5),
                            Some(self::stack(row(stack.clone(), 1), stack.start + 5))
                        );
                        assert_eq!(table.find(stack.start - 5), None, "nobody has mapped that");
                    }
                }
            });
            for round in 0..rounds {
                // More and more, so that the block is changed as well.
                let others = || (0..2 * round).map(|n| stack_at(4 * n + 1));
                others().for_each(|stack| table.insert(row(stack, 1)).expect("memory"));
                others().for_each(|stack| table.remove(row(stack, 1)));
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn what_was_read_during_a_change_is_read_again() {
        let table = Table::new();
        let mut reads = 0;
        let read = table.try_read(3, || {
            reads += 1;
            if reads == 1 {
                table.change(|| ());
            }
            reads
        });
        assert_eq!(read.expect("no change the second time"), 2);
        table.change(|| assert!(table.try_read(3, || ()).is_err()));
    }
}
