//! Floor 2: memory for coroutines to run on.
//!
//! [`Stack`] is what a coroutine asks of its stack. [`Mapped`] is a mapping of its own with a guard below it, given
//! back when it is dropped; [`Borrowed`] is memory of the user's, for systems without an operating system. A user's own
//! kind implements [`Stack`].

mod borrowed;
#[cfg_attr(all(miri, feature = "std"), expect(dead_code, reason = "Miri has none of the system's limits"))]
mod error;
#[cfg(feature = "std")]
mod mapped;
#[cfg(feature = "std")]
mod remaining;
#[cfg(feature = "std")]
#[cfg_attr(miri, path = "system_miri.rs")]
mod system;
#[cfg(feature = "std")]
mod table;
mod valgrind;

use core::ptr::NonNull;

pub use borrowed::Borrowed;
pub use error::Error;
#[cfg(feature = "std")]
pub use mapped::{Mapped, guard_size};
#[cfg(feature = "std")]
pub(crate) use remaining::is_left;
#[cfg(feature = "std")]
pub use remaining::remaining;

use crate::arch;

/// Usable bytes of a stack whose creator did not say how many: 256 KiB, or 128 KiB where addresses have 32 bits.
///
/// Only pages that were touched cost memory, so what the number spends is address space: a million stacks of 256 KiB
/// take 256 GiB of the 128 TiB of a 47-bit address space. It leaves room for the standard library to format a
/// backtrace, which a panic does on the stack it happens on.
pub const DEFAULT_RESERVE: usize = if cfg!(target_pointer_width = "32") { 128 * 1024 } else { 256 * 1024 };

/// Bytes that must remain on a stack below a coroutine's own state: room for the first frames of its function.
///
/// It is the least a coroutine that does nothing needs, not a useful size. A coroutine that may panic needs 64 KiB.
pub(crate) const LEAST_FREE: usize = 1024;

/// The alignment of [`Stack::top`] that every architecture is content with.
pub(crate) const ALIGNMENT: usize = 16;

const _: () = assert!(ALIGNMENT >= arch::STACK_ALIGNMENT && ALIGNMENT.is_multiple_of(arch::STACK_ALIGNMENT));

/// Memory that a coroutine can run on. It grows downwards, from [`top`](Stack::top) to [`limit`](Stack::limit).
///
/// # Safety
///
/// - `top` and `limit` return the same addresses each time, also after the value was moved, `limit` not above `top`.
///   They need not be aligned.
/// - Everything from `limit` up to (not including) `top` can be read and written for as long as the value lives, and
///   for ever if the value is forgotten rather than dropped.
/// - Nobody else uses that memory while the value lives. To the compiler a field that is a `Box` of it or a reference to
///   it is somebody else, who claims it whenever the value is moved or looked at: hold it by a raw pointer.
/// - An access below `limit` ends in a fault before it reaches memory that something else uses, as far below as a frame
///   of the program may reach; or the implementor vouches that it does not happen.
///
/// # Valgrind
///
/// [`Mapped`] and [`Borrowed`] register themselves with Valgrind. Another kind does so with the client requests
/// `VALGRIND_STACK_REGISTER` and `VALGRIND_STACK_DEREGISTER`, from `limit` to the last byte below `top`.
pub unsafe trait Stack {
    /// The address just above the highest byte.
    fn top(&self) -> NonNull<u8>;
    /// The address of the lowest byte.
    fn limit(&self) -> NonNull<u8>;
}

/// Whether the caller runs on the stack that the system gave its thread, rather than on a coroutine's.
///
/// For code that must not be suspended by a coroutine around it, because it leaves something behind in a thread-local
/// while it runs: such code can refuse to start. The answer is no as well if the system does not say where the thread's
/// stack lies.
///
/// Not for hot paths: glibc reads `/proc/self/maps` to answer for the main thread.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// use switchback::{Coroutine, Resumed, Yielder, stack};
///
/// assert!(stack::is_the_threads());
/// let mut inside = Coroutine::new(|_: &Yielder<(), ()>, ()| stack::is_the_threads())?;
/// assert_eq!(inside.resume(()), Resumed::Returned(false));
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "std")]
pub fn is_the_threads() -> bool {
    cfg_select! {
        any(miri, switchback_threads) => { arch::native::on_the_threads_stack() }
        _ => {
            let here = 0_u8;
            system::thread_stack().is_some_and(|stack| stack.contains(&(&raw const here).addr()))
        }
    }
}
