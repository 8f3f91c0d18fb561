//! The first and the last of a coroutine: how its function comes onto the stack, runs, and leaves its result.

use core::cell::Cell;
use core::mem::ManuallyDrop;

use super::unwind::{self, Panic};
use super::value;
use super::yielder::Yielder;
use crate::arch::{self, Link, Signal, StackPointer, Word};
use crate::stack::{ALIGNMENT, Error, LEAST_FREE, Stack};

/// What lies at the top of a coroutine's stack. `Link::data` points at it.
#[repr(C)]
struct Start<F, Return> {
    flags: Flags,
    slot: Slot<F, Return>,
}

/// The part of [`Start`] that does not depend on types.
#[repr(C)]
pub(super) struct Flags {
    /// The resumer was panicking when it resumed; cleared when the coroutine suspends.
    pub(super) resumer_is_panicking: Cell<bool>,
    /// Drops the function of a coroutine that never ran.
    drop_function: unsafe fn(*mut ()),
}

/// First the function, then, once it has ended, its result.
union Slot<F, Return> {
    function: ManuallyDrop<F>,
    result: ManuallyDrop<Result<Return, Panic>>,
}

/// Moves a function onto a stack so that the first resume runs it.
#[inline]
pub(super) fn prepare<Input, Yield, Return, F>(stack: &impl Stack, f: F) -> Result<StackPointer, Error>
where
    F: FnOnce(&Yielder<Input, Yield>, Input) -> Return,
{
    let size = stack.top().addr().get() - stack.limit().addr().get();
    let align = align_of::<Start<F, Return>>().max(ALIGNMENT);
    // Alignment may cost up to `align` bytes, the frame below takes four words.
    let needed = size_of::<Start<F, Return>>().saturating_add(align + 4 * size_of::<usize>() + LEAST_FREE);
    if size < needed {
        return Err(Error::too_small(size, needed));
    }
    // SAFETY: by the contract of `Stack` the memory between limit and top is ours and writable; what is written stays
    // within `needed` bytes of top, which is no more than its size.
    unsafe {
        let top = stack.top().as_ptr();
        let start = top.sub(size_of::<Start<F, Return>>());
        let start = start.sub(start.addr() % align).cast::<Start<F, Return>>();
        // Field by field: a large function is not copied once more.
        (&raw mut (*start).flags)
            .write(Flags { resumer_is_panicking: Cell::new(false), drop_function: drop_function::<F, Return> });
        (&raw mut (*start).slot).cast::<F>().write(f);
        Ok(arch::prepare(start.cast(), entry::<Input, Yield, Return, F>, start.cast()))
    }
}

/// What the trampoline calls: runs the function, keeps its panic, leaves the result in the slot.
///
/// # Safety
///
/// Called once by the trampoline with what a resume sent and the link that [`prepare`] made, for the same types.
unsafe extern "C" fn entry<Input, Yield, Return, F>(word: Word, signal: Signal, _: usize, link: *const Link) -> Word
where
    F: FnOnce(&Yielder<Input, Yield>, Input) -> Return,
{
    // SAFETY: the caller's promise. The function is taken once, the slot is written after.
    unsafe {
        let start = (*link).data.cast::<Start<F, Return>>();
        let yielder = Yielder::<Input, Yield>::from_link(link);
        if signal != 0 {
            yielder.heed(signal);
        }
        let input = value::decode::<Input>(word);
        let function = ManuallyDrop::take(&mut (*start).slot.function);
        let result = unwind::catch(move || function(yielder, input));
        (*start).slot.result = ManuallyDrop::new(result);
        Word::new((&raw mut (*start).slot.result).cast())
    }
}

/// Takes the result of a coroutine that has just ended.
///
/// # Safety
///
/// The word must be the last one of a coroutine that returns `Return`, its stack still be mapped, and this be called
/// once.
#[inline(always)]
pub(super) unsafe fn take_result<Return>(word: Word) -> Result<Return, Panic> {
    // SAFETY: the caller's promise: the word points at the result in the slot.
    unsafe { word.assume_init().cast::<Result<Return, Panic>>().read() }
}

/// Drops the function of a coroutine that never ran.
///
/// # Safety
///
/// The context must come from [`prepare`], never have been resumed, and not be used again.
pub(super) unsafe fn drop_unstarted(context: StackPointer) {
    // SAFETY: the caller's promise: the data of an unstarted context is its `Start`, which begins with its flags.
    unsafe {
        let start = arch::data_of_unstarted(context);
        ((*start.cast::<Flags>()).drop_function)(start)
    }
}

/// # Safety
///
/// `start` must be a `Start<F, Return>` that still holds its function, which is not used again.
unsafe fn drop_function<F, Return>(start: *mut ()) {
    // SAFETY: the caller's promise.
    unsafe { ManuallyDrop::drop(&mut (*start.cast::<Start<F, Return>>()).slot.function) }
}
