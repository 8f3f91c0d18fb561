//! The report of an overflow: what a coroutine that ran out of stack says before it dies.
//!
//! The guard below a stack turns an overflow into a fault, and the system answers a fault with a signal that ends the
//! process and says nothing. Here is a handler for that signal. In reading order:
//!
//! - this file: whether a fault is an overflow, and of which stack;
//! - `handler`: how the signal comes here, and how it goes on to whoever was there before;
//! - `alternate`: what the handler runs on, as there is no stack left;
//! - `message`: what it says.
//!
//! All that the handler calls is async-signal-safe: it takes no lock, allocates nothing, and asks no thread-local.

cfg_select! {
    all(target_os = "linux", not(miri)) => {
        mod alternate;
        mod handler;
        mod message;

        use core::sync::atomic::{AtomicBool, Ordering};

        use super::table;

        /// Whether overflows are reported. Read by threads that map a stack, and orders nothing.
        static ON: AtomicBool = AtomicBool::new(false);
    }
    _ => {}
}

use super::Error;

/// From now on, a coroutine that overflows its stack says so before the process dies of it.
///
/// It is one line on the standard error, with the coroutine's [name](super::Named), the size of its stack, and the stack's
/// lowest address:
///
/// ```text
/// coroutine 'parser' overflowed its stack (64 KiB at 0x7f29c8a41000)
/// coroutine '<unnamed>' overflowed its stack (256 KiB at 0x7f29c8a63000)
/// ```
///
/// Then the signal of the fault ends the process, as it would have without the line: exit status and core dump are the
/// same. To go on is not possible, since the frames on the stack cannot be left halfway.
///
/// Every other fault goes to the handler of the signal that stood before, or does what the signal does without one: so a
/// thread's own overflow is still reported by the standard library.
///
/// It is a choice of the program's, because a signal handler belongs to the whole process: so libraries, this one included,
/// install none unasked. A runtime may; `switchback-runtime` does, unless it is told not to. There is no way back. To call it again does
/// nothing, but for a thread's alternate stack (see below).
///
/// Costs a few system calls. Stacks are mapped and switched as before; a fault that is no overflow is passed on after a look
/// into a table. On Linux; elsewhere nothing happens yet.
///
/// # What is an overflow
///
/// A fault in the guard of a stack while the stack pointer is on that stack, no further up than an instruction reaches. So a
/// wild pointer into a guard is none, nor is a null pointer in a coroutine. Known are the guards of all kinds but
/// [`Borrowed`](super::Borrowed), also when they serve [`on_stack`](crate::on_stack) or a user's own kind whose memory is
/// part of one: there it is the whole of that one that is named. A single frame that jumps over the guard is not seen; see
/// [`guard_size`](super::guard_size).
///
/// # Other handlers
///
/// - Installed *before* this call, they get every fault but overflows, with the same arguments. The signals that their
///   `sigaction` blocks are blocked, `SA_NODEFER` and `SA_RESETHAND` do what they do. They run on the alternate stack, though,
///   with `SA_ONSTACK` or without.
/// - Installed *after* it, they stand in front. What they pass on to the handler before them, as `sigaction` returned it and
///   with all three arguments (its flags say `SA_SIGINFO`), comes here. What they keep is theirs. They need `SA_ONSTACK`, or
///   an overflow ends the process before they are called.
/// - A handler that wants overflows as well, such as one that uploads what remains of a crash, is installed after this
///   call and passes the signal on when it is done.
///
/// # Alternate stacks
///
/// The signal is handled on an alternate stack (`sigaltstack`), because the coroutine's has nothing left. The standard
/// library gives one to each thread that it starts. A thread that has none, or one too small, gets one here (the calling
/// thread) or when it maps a stack, and gives it back when it ends. So only a thread that Rust did not start and that runs coroutines on
/// stacks that others mapped has to call this itself. Where there is none, an overflow ends the process without a word.
///
/// # Errors
///
/// If there is no memory for the calling thread's alternate stack.
///
/// ```
/// # fn main() -> Result<(), switchback::stack::Error> {
/// switchback::stack::report_overflows()?;
/// # Ok(())
/// # }
/// ```
pub fn report_overflows() -> Result<(), Error> {
    cfg_select! {
        all(target_os = "linux", not(miri)) => {
            ON.store(true, Ordering::Relaxed);
            handler::install();
            alternate::ensure()
        }
        _ => { Ok(()) }
    }
}

/// Prepares the calling thread for the report, if there is to be one. Called when it maps a stack.
#[inline]
pub(super) fn on_this_thread() {
    #[cfg(all(target_os = "linux", not(miri)))]
    if ON.load(Ordering::Relaxed) {
        // Without one the thread can do all but report.
        let _ = alternate::ensure();
    }
}

cfg_select! {
    all(target_os = "linux", not(miri)) => {
        /// Where a stack lies.
        #[derive(Clone, Copy)]
        struct Bounds {
            /// The lowest address of its guard.
            guard: usize,
            limit: usize,
            top: usize,
        }

        /// How far below the stack pointer an instruction may touch the stack: the red zone and the largest push take 1,024
        /// bytes at most (`stp` of aarch64, with an offset).
        const REACH: usize = 4096;

        /// The stack that has overflowed, if a fault at this address is an overflow. Async-signal-safe.
        fn overflowed(address: usize, stack_pointer: usize) -> Option<Bounds> {
            let stack = stack_at(address)?;
            let in_its_guard = address < stack.limit;
            // It is this stack that runs: the pointer is also in the guard if a frame was made and then filled.
            let runs = (stack.guard..=stack.top).contains(&stack_pointer);
            // What is on a stack is above its pointer. A wild pointer may lead to one's own guard as well.
            let on_the_stack = stack_pointer.saturating_sub(address) <= REACH;
            (in_its_guard && runs && on_the_stack).then_some(stack)
        }

        /// The stack that has this address in its guard or above. Async-signal-safe.
        fn stack_at(address: usize) -> Option<Bounds> {
            // If another thread has been stopped in the middle of a change, it goes on meanwhile. If it is this one, in
            // vain: an overflow in the change itself is not reported.
            const WAITS: usize = 100;
            let found = (0..WAITS).find_map(|_| table::try_find(address).inspect_err(|_| wait()).ok())??;
            Some(Bounds { guard: found.base, limit: found.limit, top: found.top })
        }

        /// Lets others run for a millisecond. Async-signal-safe.
        fn wait() {
            // SAFETY: it waits for no descriptor, so none is looked at.
            unsafe { libc::poll(core::ptr::null_mut(), 0, 1) };
        }
    }
    _ => {}
}
