//! The first and the last of a coroutine: how its function comes onto the stack, runs, and leaves its result.

use core::alloc::Layout;
use core::mem::ManuallyDrop;

use super::unwind::{self, Panic};
use super::value;
use super::yielder::Yielder;
use crate::arch::{self, Link, Word};
use crate::stack::{Error, LEAST_FREE, Stack};
use crate::switch;

/// First the function, then, once it has ended, its result.
union Slot<F, Return> {
    function: ManuallyDrop<F>,
    result: ManuallyDrop<Result<Return, Panic>>,
}

/// Moves a function onto a stack so that the first resume runs it.
#[inline]
pub(super) fn prepare<Input, Yield, Return, F>(stack: &impl Stack, f: F) -> Result<*const Link, Error>
where
    F: FnOnce(&Yielder<Input, Yield>, Input) -> Return,
{
    // When it runs, the function is moved to a frame of its own, and unoptimised code makes further copies on the way.
    let copies = size_of::<F>().saturating_mul(4);
    let slot = Layout::new::<Slot<F, Return>>();
    let slot = place(stack, slot.size(), slot.align(), copies)?;
    // Until it runs, the link's word tells how to drop the function.
    let drop_function: DropFunction = drop_function::<F, Return>;
    // SAFETY: `place` found room for the slot, and for the link below.
    unsafe {
        slot.cast::<F>().write(f);
        Ok(switch::prepare(stack, slot, entry::<Input, Yield, Return, F>, drop_function as *mut ()))
    }
}

/// Where on a stack `size` bytes may lie with the link of a context right below them: as far up as their alignment and
/// the stagger allow.
///
/// # Errors
///
/// If less is left below the link than any context needs, and `more`; if the thread has a shadow stack.
#[inline]
pub(super) fn place(stack: &impl Stack, size: usize, align: usize, more: usize) -> Result<*mut u8, Error> {
    if arch::has_shadow_stack() {
        return Err(Error::shadow_stack());
    }
    let top = stack.top().as_ptr();
    let room = top.addr().saturating_sub(stack.limit().addr().get());
    let align = align.max(align_of::<Link>());
    let stagger = stagger(top.addr(), room);
    // Alignment may cost up to `align` bytes.
    let needed = size.saturating_add(more).saturating_add(stagger + align + size_of::<Link>() + LEAST_FREE);
    if room < needed {
        return Err(Error::too_small(room, needed));
    }
    // What is left below stays within the stack: all this is less than `needed`.
    let place = top.wrapping_sub(size + stagger);
    Ok(place.wrapping_sub(place.addr() % align))
}

/// Drops the function in a slot.
type DropFunction = unsafe fn(*mut ());

/// The slot of a coroutine lies right above its link.
///
/// # Safety
///
/// The link must be that of a coroutine made by [`prepare`] with these types.
#[inline(always)]
unsafe fn slot_above<F, Return>(link: *const Link) -> *mut Slot<F, Return> {
    // SAFETY: the caller's promise; both are on the coroutine's stack.
    unsafe { link.add(1).cast_mut().cast() }
}

/// Bytes at the top of a stack that are left unused, so that not all stacks have their busiest lines in the same sets of
/// the caches, as equally aligned stacks have: one of 16 multiples of 128 (a pair of cache lines), by the address.
///
/// Nothing for stacks so small that it would matter. Measured on an AMD EPYC (Zen), resume + suspend around a ring of 10
/// on stacks that follow one another at an odd number of pages, without and with it: 7.7 and 3.8 ns (`cargo bench -p
/// switchback-benches -- "ring of 10, small"`). Scattering the offsets instead of stepping through them costs more than it
/// gains when coroutines run in the order of their stacks: the processor no longer recognises the stride and stops to
/// prefetch (10,000: 50 instead of 20 ns). Stacks at a distance of 64 KiB all get the same offset; adding in higher bits
/// makes a ring of 1,000 of those slower, 8.9 instead of 7.7 ns.
fn stagger(top: usize, size: usize) -> usize {
    if size < 32 * 1024 { 0 } else { (top >> 12) % 16 * 128 }
}

/// What the trampoline calls: runs the function, keeps its panic, leaves the result in the slot.
///
/// # Safety
///
/// Called once by the trampoline with what a resume sent and the link that [`prepare`] made, for the same types.
unsafe extern "C" fn entry<Input, Yield, Return, F>(word: Word, link: *const Link) -> Word
where
    F: FnOnce(&Yielder<Input, Yield>, Input) -> Return,
{
    // SAFETY: the caller's promise. The function is taken once, the slot is written after.
    unsafe {
        switch::begin();
        let slot = slot_above::<F, Return>(link);
        let yielder = Yielder::<Input, Yield>::from_link(link);
        let input = value::decode::<Input>(word);
        let function = ManuallyDrop::take(&mut (*slot).function);
        let result = unwind::catch(move || function(yielder, input));
        (*slot).result = ManuallyDrop::new(result);
        Word::new((&raw mut (*slot).result).cast())
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
/// The link must come from [`prepare`], its context never have been resumed, and not be used again.
pub(super) unsafe fn drop_unstarted(link: *const Link) {
    // SAFETY: the caller's promise: the link's word is a `DropFunction` until the coroutine runs.
    unsafe {
        let drop_function = core::mem::transmute::<*mut (), DropFunction>((*link).data);
        drop_function(slot_above::<(), ()>(link).cast());
    }
}

/// # Safety
///
/// `slot` must be a `Slot<F, Return>` that still holds its function, which is not used again.
unsafe fn drop_function<F, Return>(slot: *mut ()) {
    // SAFETY: the caller's promise.
    unsafe { ManuallyDrop::drop(&mut (*slot.cast::<Slot<F, Return>>()).function) }
}
