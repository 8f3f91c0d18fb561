//! How much is left of the stack that is running, without any help of the switch.
//!
//! Each thread remembers the stack it was found on last. That is right as long as the stack pointer lies within it and no
//! stack has been unmapped since, by any thread; else the thread's own stack and the [`table`] are asked.

use core::cell::Cell;
use core::ops::Range;

use super::{system, table};
use crate::arch;

/// A stack that a thread was found on.
#[derive(Clone, Copy)]
struct Found {
    limit: usize,
    /// Zero if none was.
    size: usize,
    /// [`table::removals`] when it was.
    removals: usize,
}

// Without destructors: they need no registration and are there until the thread's very end.
thread_local! {
    static LAST: Cell<Found> = const { Cell::new(Found { limit: 0, size: 0, removals: 0 }) };
    /// The thread's own stack, once it was asked for; empty if the system does not say.
    static OWN: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// Bytes left of the stack that the caller runs on, or `None` if it is not known which one that is.
///
/// Known are the stack that the system gave the thread and all that are mapped here, also below a call of
/// [`on_stack`](crate::on_stack). A [`Borrowed`](super::Borrowed) stack is not, nor a user's own kind, nor an alternate
/// signal stack. Of the thread that runs `main` it is the limit (`RLIMIT_STACK`) at the first call that counts.
///
/// A handful of instructions on the stack of the call before; a look-up without a lock on another. The first call on a
/// thread's own stack asks the system, and glibc reads `/proc/self/maps` to answer for the main thread. Not for signal
/// handlers.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// # // Miri's stacks have no end.
/// # if cfg!(miri) { return Ok(()) }
/// use switchback::{on_stack, stack};
///
/// let mut small = stack::Mapped::new(64 * 1024)?;
/// let left = on_stack(&mut small, || stack::remaining()).expect("it is mapped");
/// assert!(left < 64 * 1024 && left > 60 * 1024);
/// # Ok(())
/// # }
/// ```
#[inline]
pub fn remaining() -> Option<usize> {
    if cfg!(miri) {
        return None;
    }
    let pointer = arch::native::stack_pointer();
    last(pointer).or_else(|| find_out(pointer))
}

/// Whether at least so many bytes are left.
#[inline]
pub(crate) fn is_left(bytes: usize) -> bool {
    // Miri's stacks have no end.
    if cfg!(miri) {
        return true;
    }
    let pointer = arch::native::stack_pointer();
    // One way out for all that is not the common case, also when too little is left: what comes then costs far more.
    last(pointer).is_some_and(|left| left >= bytes) || is_left_after_all(pointer, bytes)
}

#[cold]
#[inline(never)]
fn is_left_after_all(pointer: usize, bytes: usize) -> bool {
    find_out(pointer).is_some_and(|left| left >= bytes)
}

/// What is left if the stack is still the last one.
#[inline(always)]
fn last(pointer: usize) -> Option<usize> {
    let last = LAST.get();
    let left = pointer.wrapping_sub(last.limit);
    (left < last.size && last.removals == table::removals()).then_some(left)
}

/// What is left on any stack; remembers it.
#[cold]
#[inline(never)]
fn find_out(pointer: usize) -> Option<usize> {
    // Read first: if a stack is unmapped meanwhile, what is found is looked up again next time.
    let removals = table::removals();
    let mapped = table::find(pointer).map(|stack| stack.limit..stack.top);
    // Beyond the limit, in the guard, nothing is left.
    let stack = mapped.or_else(|| Some(own()).filter(|own| own.contains(&pointer)))?;
    LAST.set(Found { limit: stack.start, size: stack.len(), removals });
    Some(pointer.saturating_sub(stack.start))
}

/// The thread's own stack.
fn own() -> Range<usize> {
    let (limit, top) = OWN.get().unwrap_or_else(|| {
        let own = system::thread_stack().map_or((0, 0), |stack| (stack.start, stack.end));
        OWN.set(Some(own));
        own
    });
    limit..top
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::on_stack;
    use crate::stack::{Borrowed, Stack, guard_size};

    /// As when a stack is unmapped and another one is mapped in its place, which cannot be had at will.
    #[test]
    fn a_stack_in_the_place_of_another_is_not_taken_for_it() {
        let memory = Box::leak(vec![0_u8; 512 * 1024].into_boxed_slice());
        // SAFETY: what runs on it needs far less.
        let mut stack = unsafe { Borrowed::new(memory) }.expect("room");
        let (limit, top) = (stack.limit().addr().get(), stack.top().addr().get());
        on_stack(&mut stack, || {
            for size in [256 * 1024, 64 * 1024, 128 * 1024] {
                assert_eq!(remaining(), None, "not filed yet, or not any more");
                let guard = guard_size();
                let filed = table::Area { start: top - size - guard, end: top, stride: size + guard, guard };
                assert!(filed.start > limit);
                table::insert(filed).expect("memory");
                // The second time from memory.
                for _ in 0..2 {
                    let left = remaining().expect("it is filed");
                    assert!(left < size && left > size - 16 * 1024, "{left} of {size}");
                }
                table::remove(filed);
            }
        });
    }
}
