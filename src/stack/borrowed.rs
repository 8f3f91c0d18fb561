//! Memory of the user's as a stack.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::{ALIGNMENT, Error, Stack, valgrind};

/// A stack in memory that its creator had: a static, or something leaked. It needs no operating system.
///
/// Nothing guards it: [`Borrowed::new`] is `unsafe` because an overflow would write over whatever lies below. Valgrind is
/// told that the memory is a stack, for good.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::{Coroutine, Resumed, Yielder, stack::Borrowed};
///
/// static mut MEMORY: [u8; 64 * 1024] = [0; 64 * 1024];
/// // SAFETY: the only reference to it, and the coroutine below needs far less than 64 KiB.
/// let stack = unsafe { Borrowed::new(&mut *(&raw mut MEMORY))? };
/// let mut once = Coroutine::with_stack(stack, |_: &Yielder<u8, ()>, byte| byte + 1)?;
/// assert_eq!(once.resume(1), Resumed::Returned(2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Borrowed {
    limit: NonNull<u8>,
    top: NonNull<u8>,
}

// SAFETY: it holds the only reference to memory that any thread may use.
unsafe impl Send for Borrowed {}
// SAFETY: a shared reference gives addresses only.
unsafe impl Sync for Borrowed {}

impl Borrowed {
    /// Takes memory as a stack. Up to 15 bytes at either end are left unused so that the ends are aligned.
    ///
    /// The memory is borrowed for ever, because a coroutine that is forgotten keeps its stack.
    ///
    /// # Errors
    ///
    /// If nothing is left between the aligned ends.
    ///
    /// # Safety
    ///
    /// What runs on the stack must not need more than it holds: there is no guard.
    pub unsafe fn new(memory: &'static mut [u8]) -> Result<Self, Error> {
        // SAFETY: the caller's promise; bytes that may be uninitialised are a weaker demand than bytes that are not.
        unsafe { Self::from_raw(NonNull::from(&mut *memory).cast(), memory.len()) }
    }

    /// The same for memory that nobody has initialised.
    ///
    /// # Errors
    ///
    /// If nothing is left between the aligned ends.
    ///
    /// # Safety
    ///
    /// What runs on the stack must not need more than it holds: there is no guard.
    pub unsafe fn new_uninit(memory: &'static mut [MaybeUninit<u8>]) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        unsafe { Self::from_raw(NonNull::from(&mut *memory).cast(), memory.len()) }
    }

    /// # Safety
    ///
    /// The `size` bytes at `start` must be writable and unused by others for ever.
    unsafe fn from_raw(start: NonNull<u8>, size: usize) -> Result<Self, Error> {
        let below = start.addr().get().next_multiple_of(ALIGNMENT) - start.addr().get();
        let above = (start.addr().get() + size) % ALIGNMENT;
        if size <= below + above {
            return Err(Error::too_small(size, below + above + ALIGNMENT));
        }
        // SAFETY: both stay within the memory, `below < size - above`.
        let stack = unsafe { Self { limit: start.add(below), top: start.add(size - above) } };
        valgrind::register_for_ever(stack.limit, stack.top);
        Ok(stack)
    }
}

// SAFETY: the addresses are fixed, aligned above, and the memory is borrowed mutably for ever; the creator vouched that
// what runs there stays within it.
unsafe impl Stack for Borrowed {
    #[inline]
    fn top(&self) -> NonNull<u8> {
        self.top
    }

    #[inline]
    fn limit(&self) -> NonNull<u8> {
        self.limit
    }
}
