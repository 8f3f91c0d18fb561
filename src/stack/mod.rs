//! Floor 2: memory for coroutines to run on.
//!
//! [`Stack`] is what a coroutine asks of its stack. There are four kinds, and a user's own, who implements it:
//!
//! | kind | where it lies | to have one | to be rid of it |
//! |---|---|---|---|
//! | [`Pooled`] | in a mapping with many others | a handful of instructions, or a share of a system call | a handful of instructions |
//! | [`SlabStack`] | in a mapping with a fixed number of others, a [`Slab`] of the user's | a lock | a lock |
//! | [`Mapped`] | in a mapping of its own | two or three system calls | one system call |
//! | [`Borrowed`] | in memory of the user's, without an operating system | nothing | nothing |
//!
//! [`Coroutine::new`](crate::Coroutine::new) takes a pooled one. What differs is the cost; all but a borrowed one have a
//! guard, and cost memory only for the pages that were touched.
//!
//! # Sizes
//!
//! A [`StackSize`] has a *reserve* of address space, all of which can be used, a *commit*, which is memory from the start,
//! and a *guard*. Address space is what one has to budget: of the 47 bits of x86_64 and most aarch64 systems a million stacks
//! of 256 KiB take a five-hundredth; riscv64 may have 38 bits, a 32-bit process 3 GiB in all. Nothing is a constant that
//! the system decides: pages have 4, 16 or 64 KiB, on one architecture even.
//!
//! # How many
//!
//! Where [`guard_kind`] is a guard region, stacks are limited by memory: each costs the pages it has touched and 8 bytes of
//! page table for every page of its reserve that shares a page table with those (128 bytes for 64 KiB). Where it is not,
//! each takes two of the mappings that Linux allows a process (`vm.max_map_count`, 65,530 if nobody raised it), of which
//! stacks leave some to the rest of the program.
//!
//! # Where memory is counted before it is used
//!
//! Under `vm.overcommit_memory=2`, or with a limit of the process's memory that can be written (`RLIMIT_DATA`), the
//! whole reserve of a stack that is handed out counts as used, and that of one given back to the system does not. So every
//! page can always be used, also by the kernel on the program's behalf. The remedy for too few stacks is a smaller reserve.
//! Against a limit of address space (`RLIMIT_AS`) all that is mapped counts; a pool maps less at once then.
//!
//! The limit of a memory cgroup is not an error of a mapping or of a commit: whoever touches the page that is too many, the
//! kernel ends a process of the group for it, so a service that is to refuse politely needs a limit of its own below that.
//!
//! # Overflow
//!
//! An overflow is a fault in the guard and ends the process. [`report_overflows`] makes it say so, with the name that
//! [`Named`] gives a stack.

mod borrowed;
#[cfg_attr(all(miri, feature = "std"), expect(dead_code, reason = "Miri has none of the system's limits"))]
mod error;
#[cfg(all(test, feature = "std", not(miri)))]
mod faults;
#[cfg(feature = "std")]
mod guard;
#[cfg(feature = "std")]
mod mapped;
#[cfg(feature = "std")]
mod mappings;
#[cfg(feature = "std")]
mod named;
#[cfg(feature = "std")]
mod overflow;
#[cfg(feature = "std")]
mod pool;
#[cfg(feature = "std")]
mod remaining;
#[cfg(feature = "std")]
mod row;
#[cfg(feature = "std")]
mod size;
#[cfg(feature = "std")]
mod slab;
#[cfg(feature = "std")]
#[cfg_attr(miri, path = "system_miri.rs")]
mod system;
#[cfg(feature = "std")]
mod table;
#[cfg(feature = "std")]
mod try_box;
#[cfg(feature = "std")]
mod usage;
mod valgrind;

use core::ptr::NonNull;

pub use borrowed::Borrowed;
pub use error::Error;
#[cfg(feature = "std")]
pub use guard::{GuardKind, guard_kind, guard_size};
#[cfg(feature = "std")]
pub use mapped::Mapped;
#[cfg(feature = "std")]
pub use named::Named;
#[cfg(feature = "std")]
pub use overflow::report_overflows;
#[cfg(feature = "std")]
pub use pool::{Keep, Pool, PoolStats, Pooled, pools};
#[cfg(feature = "std")]
pub(crate) use remaining::is_left;
#[cfg(feature = "std")]
pub use remaining::remaining;
#[cfg(feature = "std")]
pub use size::StackSize;
#[cfg(feature = "std")]
pub use slab::{Slab, SlabStack};
#[cfg(feature = "std")]
pub use usage::{Usage, usage};

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
/// The kinds here register themselves with Valgrind. Another one does so with the client requests
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
