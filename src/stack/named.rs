//! The name of what runs on a stack, where a signal handler finds it.
//!
//! The handler knows the ends of a stack, and nothing else of what runs there. So the name lies at its top, as bytes of its
//! own: it is there as long as the stack is, no thread has to be asked for it, a `fork` copies it, and a stack without one
//! has nothing to do. What was there before a name, and what comes after, is told from a name by its seal.

use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};

use super::{ALIGNMENT, Stack};

/// A stack with a name for what runs on it, which [`report_overflows`](super::report_overflows) prints.
///
/// The name is copied to the topmost 64 bytes of the stack. It costs nothing but that, and a stack without a name costs
/// nothing. Of a name with more than 51 bytes (55 where addresses have 32 bits) only the beginning is kept.
///
/// It is found at the top of a stack that is known by its addresses (see the report): on a [`Borrowed`](super::Borrowed) stack
/// a name serves for nothing.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::stack::{Mapped, Named, report_overflows};
/// use switchback::{Coroutine, Yielder};
///
/// report_overflows()?;
/// let stack = Named::new(Mapped::new(64 * 1024)?, "parser");
/// let parser = Coroutine::with_stack(stack, |_: &Yielder<(), ()>, ()| {
///     // If this needs more than 64 KiB, the program ends with a line like
///     // coroutine 'parser' overflowed its stack (64 KiB at 0x7f29c8a41000)
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Named<S: Stack> {
    stack: S,
    /// Where the name is, if there is one.
    record: Option<NonNull<Record>>,
}

// SAFETY: the record is on the stack that it owns.
unsafe impl<S: Stack + Send> Send for Named<S> {}
// SAFETY: a shared reference gives what one of the stack gives.
unsafe impl<S: Stack + Sync> Sync for Named<S> {}

/// What lies at the top of a stack with a name.
#[repr(C, align(16))]
struct Record {
    seal: usize,
    length: u8,
    bytes: [u8; LONGEST],
}

const SIZE: usize = 64;
const LONGEST: usize = SIZE - size_of::<usize>() - 1;
const ELLIPSIS: &str = "…";

const _: () = assert!(size_of::<Record>() == SIZE && align_of::<Record>() == ALIGNMENT);

impl<S: Stack> Named<S> {
    /// Gives a stack a name. An empty one is none, and a stack of less than 128 bytes gets none.
    pub fn new(stack: S, name: &str) -> Self {
        let (top, limit) = (stack.top(), stack.limit());
        let place = place(top.addr().get());
        if name.is_empty() || place < limit.addr().get() + SIZE {
            return Self { stack, record: None };
        }
        // SAFETY: within the stack, whose topmost bytes are free and ours.
        let record = unsafe { top.sub(top.addr().get() - place).cast::<Record>() };
        // SAFETY: as above; it is aligned.
        unsafe { record.write(Record::new(name, place)) };
        // The handler knows the address alone.
        record.expose_provenance();
        Self { stack, record: Some(record) }
    }

    /// The stack, without the name.
    pub fn into_inner(self) -> S {
        let mut this = ManuallyDrop::new(self);
        this.erase();
        // SAFETY: `this` is neither used again nor dropped.
        unsafe { ptr::read(&raw const this.stack) }
    }

    /// So that whoever has the stack next is not taken for this one.
    fn erase(&mut self) {
        if let Some(record) = self.record.take() {
            // SAFETY: it is on our stack, and nobody runs there any more.
            unsafe { (&raw mut (*record.as_ptr()).seal).write(0) };
        }
    }
}

impl<S: Stack> Drop for Named<S> {
    fn drop(&mut self) {
        self.erase();
    }
}

// SAFETY: a part of a stack, which lies still; what is cut off above is used by nobody else.
unsafe impl<S: Stack> Stack for Named<S> {
    #[inline]
    fn top(&self) -> NonNull<u8> {
        self.record.map_or_else(|| self.stack.top(), NonNull::cast)
    }

    #[inline]
    fn limit(&self) -> NonNull<u8> {
        self.stack.limit()
    }
}

impl Record {
    fn new(name: &str, place: usize) -> Self {
        let (kept, mark) = match name.len() {
            ..=LONGEST => (name, ""),
            _ => (&name[..name.floor_char_boundary(LONGEST - ELLIPSIS.len())], ELLIPSIS),
        };
        let mut bytes = [0; LONGEST];
        let length = kept.len() + mark.len();
        bytes[..kept.len()].copy_from_slice(kept.as_bytes());
        bytes[kept.len()..length].copy_from_slice(mark.as_bytes());
        // It fits: `length` is `LONGEST` at the most.
        Self { seal: seal(place), length: length as u8, bytes }
    }
}

/// A copy of a stack's name. Empty if it has none.
#[cfg_attr(not(all(target_os = "linux", not(miri))), allow(dead_code, reason = "no signal handler"))]
pub(super) struct Name {
    bytes: [u8; LONGEST],
    length: usize,
}

#[cfg_attr(not(all(target_os = "linux", not(miri))), allow(dead_code, reason = "no signal handler"))]
impl Name {
    /// Reads the name at the top of a stack. Async-signal-safe.
    ///
    /// # Safety
    ///
    /// The stack must be mapped, at least 128 bytes large, and what runs there must not go on meanwhile.
    pub(super) unsafe fn at(top: usize) -> Self {
        let place = place(top);
        let record = ptr::with_exposed_provenance::<Record>(place);
        let mut name = Self { bytes: [0; LONGEST], length: 0 };
        // SAFETY: the caller's promise. Without the seal it is bytes of the coroutine's, which are read and ignored; volatile,
        // since to the compiler they might be uninitialised, or change.
        unsafe {
            if (&raw const (*record).seal).read_volatile() == seal(place) {
                name.length = usize::from((&raw const (*record).length).read_volatile()).min(LONGEST);
                name.bytes = (&raw const (*record).bytes).read_volatile();
            }
        }
        name
    }

    /// UTF-8, unless somebody wrote over it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Where the record of a stack with this top is.
fn place(top: usize) -> usize {
    (top - top % ALIGNMENT).saturating_sub(SIZE)
}

/// What tells a record from other bytes: a random number, and the place, so that a copy of a stack's bytes is none.
fn seal(place: usize) -> usize {
    const RANDOM: u64 = 0xd1b5_4a32_d192_ed03;
    RANDOM as usize ^ place
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::stack::Mapped;

    fn name_at(top: NonNull<u8>) -> Vec<u8> {
        // SAFETY: the stacks here are large enough, and nothing runs on them.
        unsafe { Name::at(top.addr().get()) }.as_bytes().to_vec()
    }

    #[test]
    fn a_name_is_at_the_top_until_it_is_taken_away() {
        let stack = Mapped::new(4096).expect("a stack");
        let top = stack.top();
        assert_eq!(name_at(top), b"");
        let named = Named::new(stack, "first");
        assert_eq!(name_at(top), b"first");
        assert!(named.top() < top && top.addr().get() - named.top().addr().get() == SIZE);
        let stack = named.into_inner();
        assert_eq!(name_at(top), b"");
        // One that has none leaves everything as it is.
        assert_eq!(Named::new(stack, "").top(), top);
    }

    #[test]
    fn a_copy_of_a_name_is_none() {
        let named = Named::new(Mapped::new(4096).expect("a stack"), "original");
        let other = Mapped::new(4096).expect("a stack");
        // SAFETY: the topmost bytes of two stacks, where nothing runs.
        unsafe { named.top().copy_to_nonoverlapping(other.top().sub(SIZE), SIZE) };
        assert_eq!(name_at(other.top()), b"");
    }

    #[test]
    fn a_name_of_any_length_is_whole_or_ends_between_characters() {
        for character in ["x", "é", "€", "🍰"] {
            for count in 0..=LONGEST {
                let whole = character.repeat(count);
                let mut stack = Some(Mapped::new(4096).expect("a stack"));
                let top = stack.as_ref().map(Stack::top).expect("a stack");
                let named = Named::new(stack.take().expect("a stack"), &whole);
                let name = String::from_utf8(name_at(top)).expect("whole characters");
                drop(named);
                if whole.len() <= LONGEST {
                    assert_eq!(name, whole);
                } else {
                    let kept = name.strip_suffix(ELLIPSIS).expect("a mark that there was more");
                    assert!(whole.starts_with(kept) && name.len() + character.len() > LONGEST, "{name}");
                }
            }
        }
    }

    #[test]
    fn a_stack_without_room_for_a_name_gets_none() {
        let memory = Box::leak(Box::new([0_u8; 100]));
        // SAFETY: nothing runs on it.
        let stack = unsafe { crate::stack::Borrowed::new(memory) }.expect("room");
        let top = stack.top();
        assert_eq!(Named::new(stack, "too much").top(), top);
    }
}
