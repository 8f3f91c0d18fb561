//! The stacks of one size that are on no thread's shelf: with pages (warm), without (cold), or never used.

use core::ptr::NonNull;
use core::time::Duration;
use std::time::Instant;

use super::Keep;
use crate::stack::row::{self, Row};
use crate::stack::{Error, StackSize, system};

/// See the module. Shared under a lock.
///
/// All that threads share is changed under that one lock, by `&mut self`, so no order of accesses is there for a model checker
/// to permute; what a thread did on a stack comes before what the next one does there, because both held the lock between.
/// The one thing read outside it, how many stacks lie on another thread's shelf, is a number for [`Pool::stats`](super::Pool::stats)
/// that nothing is decided by.
pub(super) struct Depot {
    size: StackSize,
    rows: Vec<Cut>,
    /// Limits of stacks, those given back last at the end. There is always capacity for all that exist.
    warm: Vec<NonNull<u8>>,
    /// The same.
    cold: Vec<NonNull<u8>>,
    decayed: Option<Instant>,
    peak: usize,
}

// SAFETY: the limits are of stacks that it owns; any thread may use them.
unsafe impl Send for Depot {}

/// A row, and how many of its stacks are not cold: handed out, on a shelf, or warm.
struct Cut {
    row: Row,
    alive: usize,
}

/// Numbers of stacks.
pub(super) struct Figures {
    /// Handed out or on a shelf.
    pub(super) out: usize,
    pub(super) warm: usize,
    pub(super) mapped: usize,
    pub(super) peak: usize,
}

/// Bytes of the first row of a pool.
const FIRST_ROW: usize = if cfg!(miri) { 1 << 20 } else { 16 << 20 };
/// No row has more bytes, but for one that holds a single stack.
const LARGEST_ROW: usize = if cfg!(miri) {
    4 << 20
} else if cfg!(target_pointer_width = "32") {
    64 << 20
} else {
    (16_u64 << 30) as usize
};
/// Page tables span this many bytes on most systems. Stacks so large are prepared one at a time, because the guard of each
/// takes a page table of its own.
const PAGE_TABLE: usize = 2 << 20;

impl Depot {
    pub(super) fn new(size: StackSize) -> Self {
        Self { size, rows: Vec::new(), warm: Vec::new(), cold: Vec::new(), decayed: None, peak: 0 }
    }

    /// Fills as many places as it easily can, at least one, from the first on.
    pub(super) fn take(&mut self, places: &mut [NonNull<u8>]) -> Result<usize, Error> {
        let count = self.take_warm(places);
        let count = if count > 0 { count } else { self.take_cold(places)? };
        let count = if count > 0 { count } else { self.take_new(places)? };
        self.peak = self.peak.max(self.figures().out);
        Ok(count)
    }

    fn take_warm(&mut self, places: &mut [NonNull<u8>]) -> usize {
        let count = places.len().min(self.warm.len());
        let from = self.warm.len() - count;
        places.iter_mut().zip(self.warm.drain(from..)).for_each(|(place, limit)| *place = limit);
        count
    }

    fn take_cold(&mut self, places: &mut [NonNull<u8>]) -> Result<usize, Error> {
        let mut count = 0;
        for place in places {
            let Some(&limit) = self.cold.last() else { break };
            let Some(cut) = cut_of(&mut self.rows, limit) else { break };
            // SAFETY: it is cold, so it was retired.
            match unsafe { cut.row.restore(limit) } {
                Ok(()) => {}
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
            cut.alive += 1;
            self.cold.pop();
            *place = limit;
            count += 1;
        }
        Ok(count)
    }

    fn take_new(&mut self, places: &mut [NonNull<u8>]) -> Result<usize, Error> {
        let easily = (2 * PAGE_TABLE / self.size.all()).max(1);
        let cut = match self.rows.iter().position(|cut| cut.row.unprepared() > 0) {
            Some(index) => &mut self.rows[index],
            None => self.map()?,
        };
        let mut count = places.len().min(cut.row.unprepared()).min(easily);
        loop {
            match cut.row.prepare(count) {
                Ok(()) => break,
                Err(error) if count == 1 => return Err(error),
                // Perhaps one alone can be had.
                Err(_) => count = 1,
            }
        }
        let first = cut.row.prepared() - count;
        // Each time the lowest last, which the caller takes first.
        places[..count].iter_mut().rev().enumerate().for_each(|(index, place)| *place = cut.row.limit(first + index));
        cut.alive += count;
        Ok(count)
    }

    /// Maps another row, twice as large as the last one if the system allows it.
    fn map(&mut self) -> Result<&mut Cut, Error> {
        let stacks_in = |bytes: usize| (bytes / self.size.all()).max(1);
        let exist: usize = self.stacks();
        let mut count = exist.clamp(stacks_in(FIRST_ROW), stacks_in(LARGEST_ROW));
        let row = loop {
            match Row::map(self.size, count) {
                Ok(row) => break row,
                Err(error) if count == 1 => return Err(error),
                Err(_) => count /= 2,
            }
        };
        let no_memory = |_| Error::no_memory(self.size.reserve);
        // Whoever gives a stack back must not have to allocate.
        self.rows.try_reserve(1).map_err(no_memory)?;
        for list in [&mut self.warm, &mut self.cold] {
            list.try_reserve_exact(exist + count - list.len()).map_err(no_memory)?;
        }
        self.rows.push(Cut { row, alive: 0 });
        let last = self.rows.len() - 1;
        Ok(&mut self.rows[last])
    }

    /// Takes stacks back. Their pages beyond what is kept have been given back.
    pub(super) fn give(&mut self, stacks: &[NonNull<u8>]) {
        self.warm.extend_from_slice(stacks);
        let most = if row::seals_retired() { 0 } else { Keep::current().cached / kept(self.size).max(1) };
        if self.warm.len() > most {
            self.cool(self.warm.len() - most);
        }
    }

    /// If it is time: half of what is warm becomes cold, and rows that are wholly cold are unmapped.
    pub(super) fn decay(&mut self, now: Instant, period: Duration) {
        if self.decayed.is_none_or(|then| now.saturating_duration_since(then) >= period) {
            self.decayed = Some(now);
            self.cool(self.warm.len().div_ceil(2));
            self.unmap_cold_rows();
        }
    }

    /// Gives back all that it can.
    pub(super) fn trim(&mut self) {
        self.cool(self.warm.len());
        self.unmap_cold_rows();
    }

    /// Takes all pages from so many of the warm stacks, those that have lain longest.
    fn cool(&mut self, count: usize) {
        for limit in self.warm.drain(..count) {
            let Some(cut) = cut_of(&mut self.rows, limit) else { continue };
            // SAFETY: it is in the depot, so nobody uses it.
            unsafe { cut.row.retire(limit) };
            cut.alive -= 1;
            self.cold.push(limit);
        }
    }

    fn unmap_cold_rows(&mut self) {
        for index in (0..self.rows.len()).rev() {
            let row = &mut self.rows[index];
            let area = row.row.addresses();
            // SAFETY: no stack of it is in use. If the system refuses, it is kept for the next time.
            if row.alive == 0 && unsafe { row.row.unmap() } {
                self.rows.swap_remove(index);
                self.cold.retain(|limit| !area.contains(&limit.addr().get()));
            }
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let alive: usize = self.rows.iter().map(|cut| cut.alive).sum();
        Figures { out: alive - self.warm.len(), warm: self.warm.len(), mapped: self.stacks(), peak: self.peak }
    }

    pub(super) fn resident(&self) -> Option<usize> {
        self.rows.iter().map(|cut| cut.row.resident()).sum()
    }

    fn stacks(&self) -> usize {
        self.rows.iter().map(|cut| cut.row.prepared() + cut.row.unprepared()).sum()
    }
}

/// The row in which a stack lies.
fn cut_of(rows: &mut [Cut], limit: NonNull<u8>) -> Option<&mut Cut> {
    rows.iter_mut().find(|cut| cut.row.addresses().contains(&limit.addr().get()))
}

/// Bytes that a stack of this size keeps in the depot.
fn kept(size: StackSize) -> usize {
    let page = system::page_size();
    let resident = Keep::current().resident.checked_next_multiple_of(page).unwrap_or(size.reserve);
    resident.max(size.commit).min(size.reserve)
}

/// Takes from stacks that nobody uses what they have touched beyond what is kept.
pub(super) fn give_pages_back(stacks: &[NonNull<u8>], size: StackSize) {
    let beyond = size.reserve - kept(size);
    if beyond == 0 {
        return;
    }
    for stacks in stacks.chunks(system::PLACES) {
        let mut places = [system::place(NonNull::dangling(), 0); system::PLACES];
        places.iter_mut().zip(stacks).for_each(|(place, &limit)| *place = system::place(limit, beyond));
        // SAFETY: the caller owns these stacks. If the system refuses, they just keep what they have.
        let _ = unsafe { system::decommit_all(&places[..stacks.len()]) };
    }
}
