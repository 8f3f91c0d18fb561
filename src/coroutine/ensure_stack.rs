//! Growing on demand: a call on another stack when little is left of this one.
//!
//! `stacker` does this for threads: it keeps the end of the stack in a thread-local that only its own growing sets. It
//! knows nothing of a coroutine's stack, which it takes for one with nothing left or with plenty, depending on which lies
//! higher; and a coroutine that suspends on a stack it grew leaves that stack's end behind for whoever runs next. Here the
//! stack pointer itself is looked up, so both are right. Nor is a limit met a panic here, but an error; and the red zone
//! is kept even if `size` is smaller.
//!
//! Measured with callgrind on x86_64, in a level of a recursion that does nothing else: 10 instructions without either,
//! 26 with this, 41 with `stacker` 0.1.

use super::on_stack;
use crate::stack::{Error, LEAST_FREE, Mapped, is_left};

/// Runs `f` where at least `red_zone` bytes of stack are left: right here if they are, else on a new stack of `size`
/// bytes (or of `red_zone` and a little more, if that is larger), which is unmapped when `f` is over.
///
/// For recursion whose depth comes from outside. Each level calls it, on a thread as well as in a coroutine, whose stack
/// can then be small. Choose `red_zone` so that what runs between one call and the next fits, with whatever it calls: 64
/// KiB is plenty for Rust code, a panic's backtrace included; and `size` so that many levels do, since a new stack costs
/// system calls.
///
/// `f` may borrow, panic, call anything, and suspend a coroutine around this call, which then keeps the new stack until
/// it goes on.
///
/// What is left is found as [`stack::remaining`](crate::stack::remaining) says. On a stack that it does not know
/// ([`Borrowed`](crate::stack::Borrowed), a user's own kind) every call takes a new one, on which further calls are
/// cheap.
///
/// Where enough is left it costs a handful of instructions and the call of `f`. A new stack costs what
/// [`Mapped::new`] costs, the page faults of what is touched, and one system call to unmap it: a loop that calls down
/// across the border each time pays that each time, unless the loop itself runs within a call.
///
/// # Errors
///
/// If a new stack is needed and none can be had. `f` is dropped without having run; what it only borrowed is as it was.
/// So capture by reference whatever has to survive: the caller can go on with it, or run out politely.
///
/// # Panics
///
/// With the panic of `f`.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// # // Miri's stacks have no end.
/// # if cfg!(miri) { return Ok(()) }
/// use switchback::{ensure_stack, stack::Error};
///
/// enum List { Nil, Cons(u64, Box<List>) }
///
/// fn sum(list: &List) -> Result<u64, Error> {
///     ensure_stack(64 << 10, 1 << 20, || match list {
///         List::Nil => Ok(0),
///         List::Cons(n, rest) => Ok(n + sum(rest)?),
///     })?
/// }
///
/// let mut list = List::Nil;
/// for n in 0..100_000 {
///     list = List::Cons(n, Box::new(list));
/// }
/// assert_eq!(sum(&list)?, 4_999_950_000);
/// # // Its drop would recurse too.
/// # std::mem::forget(list);
/// # Ok(())
/// # }
/// ```
#[inline]
pub fn ensure_stack<F: FnOnce() -> R, R>(red_zone: usize, size: usize, f: F) -> Result<R, Error> {
    if is_left(red_zone) { Ok(f()) } else { on_a_new_stack(red_zone, size, f) }
}

#[cold]
#[inline(never)]
fn on_a_new_stack<F: FnOnce() -> R, R>(red_zone: usize, size: usize, f: F) -> Result<R, Error> {
    let mut stack = Mapped::new(size.max(red_zone.saturating_add(LEAST_FREE)))?;
    Ok(on_stack(&mut stack, f))
}
