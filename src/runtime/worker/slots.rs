//! The arena of the living tasks of one worker.
//!
//! It grows by chunks, so a place never moves, growing never copies what is there, and the memory it asks for at once
//! stays small. When there is none, [`Slots::vacant`] says so instead of aborting (invariant 6).

use std::sync::Arc;

use super::timers::Timer;
use crate::task::{Fiber, Header, Job, Key};

/// Places in one chunk: 256 of some 100 bytes, so that a chunk stays well below the size from which allocators map
/// memory for a single allocation (mappings are what a program with many stacks is short of).
const CHUNK: usize = 256;

/// A task, as its worker knows it.
pub(super) struct Slot {
    pub(super) header: Arc<Header>,
    pub(super) body: Body,
    /// The reserve of its stack, in bytes, as it was asked for.
    pub(super) stack_size: usize,
    /// The deadline of its park.
    pub(super) timer: Option<Timer>,
}

/// The part of a task that its worker runs.
pub(super) enum Body {
    /// It has not run yet, and has no stack.
    Waiting(Box<dyn Job>),
    /// It is suspended.
    Started(Fiber),
    /// It is running, or about to be launched.
    Absent,
}

#[derive(Default)]
pub(super) struct Slots {
    chunks: Vec<Vec<Place>>,
    vacant: Option<Key>,
    len: usize,
}

enum Place {
    Taken(Slot),
    /// With the next vacant place.
    Vacant(Option<Key>),
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A place that can be filled; `None` if no memory can be had for it.
    pub(super) fn vacant(&mut self) -> Option<Key> {
        if self.vacant.is_none() {
            self.grow()?;
        }
        self.vacant
    }

    /// Puts a task into a place that [`vacant`](Slots::vacant) gave.
    pub(super) fn fill(&mut self, key: Key, slot: Slot) {
        let Place::Vacant(next) = *self.place(key) else { unreachable!("the place is taken") };
        *self.place(key) = Place::Taken(slot);
        self.vacant = next;
        self.len += 1;
    }

    pub(super) fn get_mut(&mut self, key: Key) -> &mut Slot {
        match self.place(key) {
            Place::Taken(slot) => slot,
            Place::Vacant(_) => unreachable!("the task is over"),
        }
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        let Key(index) = key;
        matches!(self.chunks[index as usize / CHUNK][index as usize % CHUNK], Place::Taken(_))
    }

    /// Takes a task out.
    pub(super) fn empty(&mut self, key: Key) -> Slot {
        let vacant = Place::Vacant(self.vacant);
        match std::mem::replace(self.place(key), vacant) {
            Place::Taken(slot) => {
                self.vacant = Some(key);
                self.len -= 1;
                slot
            }
            Place::Vacant(_) => unreachable!("the task is over"),
        }
    }

    /// The keys of all places, taken or not.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        let places = self.chunks.len() * CHUNK;
        (0..places as u32).map(Key)
    }

    fn place(&mut self, key: Key) -> &mut Place {
        let Key(index) = key;
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Adds one chunk of vacant places, the lowest in front.
    fn grow(&mut self) -> Option<()> {
        let first = self.chunks.len() * CHUNK;
        // `Key::NONE` is no place.
        let end = u32::try_from(first + CHUNK).ok()?;
        self.chunks.try_reserve(1).ok()?;
        let mut chunk = Vec::new();
        chunk.try_reserve_exact(CHUNK).ok()?;
        chunk.extend((first as u32 + 1..end).map(|next| Place::Vacant(Some(Key(next)))));
        chunk.push(Place::Vacant(None));
        self.chunks.push(chunk);
        self.vacant = Some(Key(first as u32));
        Some(())
    }
}
