//! The alternate signal stack of a thread: what the handler runs on.

use core::cell::OnceCell;
use core::mem::ManuallyDrop;
use core::ptr;

use crate::stack::Error;
use crate::stack::row::Row;

/// Bytes that the handler needs beyond what the kernel leaves on the stack. Measured on x86_64: 1,420 optimised, 3,484
/// unoptimised; a sanitizer puts frames of its own between.
const HANDLER: usize = if cfg!(any(debug_assertions, switchback_sanitizer)) { 16 * 1024 } else { 4096 };

/// Bytes that a stack of ours has beyond what the kernel leaves on it: the handlers that faults are passed on to may do
/// more than we do, and what is not touched costs nothing.
const ROOM: usize = 64 * 1024;

/// A mapped alternate stack, with a guard below.
struct Alternate {
    row: ManuallyDrop<Row>,
}

thread_local! {
    /// What the thread got from us: none yet, or nothing because it had one.
    static OURS: OnceCell<Option<Alternate>> = const { OnceCell::new() };
}

/// Sees to it that the thread has an alternate stack on which the handler can run.
///
/// One that is large enough stays. The first call on a thread costs one system call if it is, else five.
pub(super) fn ensure() -> Result<(), Error> {
    // A thread that is ending gets none any more.
    OURS.try_with(|ours| {
        if ours.get().is_none() {
            // Nothing else sets it meanwhile.
            let _ = ours.set(if is_served() { None } else { Some(Alternate::install()?) });
        }
        Ok(())
    })
    .unwrap_or(Ok(()))
}

/// Whether the thread's alternate stack, if it has one, will do.
fn is_served() -> bool {
    let current = current();
    // One that is in use cannot be exchanged.
    let in_use = current.ss_flags & libc::SS_ONSTACK != 0;
    let large_enough = current.ss_flags & libc::SS_DISABLE == 0 && current.ss_size >= frame_size() + HANDLER;
    in_use || large_enough
}

fn current() -> libc::stack_t {
    let mut current = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the place is valid, and nothing is changed.
    unsafe { libc::sigaltstack(ptr::null(), &mut current) };
    current
}

/// What the kernel leaves on the stack when it delivers a signal, in bytes: the registers, and some have thousands of bytes of them.
fn frame_size() -> usize {
    // SAFETY: no preconditions. Zero where the kernel does not say.
    let said = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) };
    (said as usize).max(libc::MINSIGSTKSZ)
}

impl Alternate {
    fn install() -> Result<Self, Error> {
        let mut row = Row::map((frame_size() + ROOM).into(), 1)?;
        row.prepare(1)?;
        let (start, size) = (row.limit(0), row.size().reserve);
        let stack = libc::stack_t { ss_sp: start.as_ptr().cast(), ss_flags: 0, ss_size: size };
        // SAFETY: the memory is ours for that, until it is taken down. It cannot fail: none is in use, and the size will do.
        unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
        Ok(Self { row: ManuallyDrop::new(row) })
    }
}

impl Drop for Alternate {
    /// At the end of the thread. What stood before is not put back: the standard library has unmapped its own by now.
    fn drop(&mut self) {
        let current = current();
        if current.ss_sp == self.row.limit(0).as_ptr().cast() {
            let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            // SAFETY: it is ours to take down.
            if unsafe { libc::sigaltstack(&none, ptr::null_mut()) } != 0 {
                // The thread ends in a signal handler that runs on it.
                return;
            }
        }
        // SAFETY: not used again, and no signal is delivered there any more.
        unsafe { ManuallyDrop::drop(&mut self.row) }
    }
}
