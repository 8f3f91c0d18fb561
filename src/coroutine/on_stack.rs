//! Calling a function on another stack, without a coroutine.

use core::mem::ManuallyDrop;

use super::unwind::{self, Panic};
use crate::stack::{ALIGNMENT, Stack};
use crate::switch;

/// What lies on the caller's stack meanwhile.
union Call<F, R> {
    function: ManuallyDrop<F>,
    result: ManuallyDrop<Result<R, Panic>>,
}

/// Runs `f` on `stack` and returns what it returns: for a function that needs more stack than there is.
///
/// It is a call: `f` may borrow, panic, and call anything; if it suspends a coroutine around this call, it is suspended
/// with it. Costs a call and a return; no allocation, no system call.
///
/// # Panics
///
/// With the panic of `f`. Without the `std` feature it aborts instead.
///
/// ```
/// use switchback::{on_stack, stack::Mapped};
///
/// fn depth(n: usize) -> usize {
///     if n == 0 { 0 } else { 1 + std::hint::black_box(depth(n - 1)) }
/// }
/// # fn main() -> Result<(), switchback::stack::Error> {
/// let mut deep = Mapped::new(256 << 20)?;
/// assert_eq!(on_stack(&mut deep, || depth(100_000)), 100_000);
/// # Ok(())
/// # }
/// ```
#[inline]
pub fn on_stack<S: Stack, F: FnOnce() -> R, R>(stack: &mut S, f: F) -> R {
    /// Takes the function, leaves its result.
    unsafe extern "C" fn run<F: FnOnce() -> R, R>(call: *mut ()) {
        let call = call.cast::<Call<F, R>>();
        // SAFETY: `call` is the one below, which holds its function; nobody else uses it before we return.
        unsafe {
            let function = ManuallyDrop::take(&mut (*call).function);
            let result = unwind::catch(function);
            (*call).result = ManuallyDrop::new(result);
        }
    }

    let top = stack.top().as_ptr();
    let top = top.wrapping_sub(top.addr() % ALIGNMENT);
    let mut call = Call { function: ManuallyDrop::new(f) };
    // SAFETY: by the contract of `Stack` its memory up to the aligned `top` is ours while it is borrowed, and what
    // exceeds it faults. If this call is suspended within a coroutine it is still borrowed. `run` does not unwind.
    let result = unsafe {
        switch::call_on(stack, (&raw mut call).cast(), run::<F, R>, top);
        ManuallyDrop::take(&mut call.result)
    };
    match result {
        Ok(value) => value,
        Err(panic) => unwind::resume_panic(panic),
    }
}
