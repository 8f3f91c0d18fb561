//! The one allocation of a task: its header, and behind it what it is to do and then what came of that.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Mutex;

use super::handle::Cause;
use super::header::{Header, Mine, Owner, Reference};
use super::{handle, quietly};

/// What is done with a task by those who do not know its types.
pub(super) struct VTable {
    /// Calls its function and delivers what becomes of it. To be called once, on the task's stack.
    pub(super) run: unsafe fn(Mine),
    /// Drops its function, if it still has it, and delivers why nothing will come of it.
    pub(super) refuse: unsafe fn(Mine, Cause),
    /// Moves the result to the given `Option<Result<T, Cause>>`.
    pub(super) take: unsafe fn(NonNull<Header>, *mut ()),
    pub(super) free: unsafe fn(NonNull<Header>),
}

#[repr(C)]
struct Cell<F, T> {
    header: Header,
    /// The task's, until it is over by the handle's word; then the handle's.
    stage: UnsafeCell<Stage<F, T>>,
}

enum Stage<F, T> {
    Waiting(F),
    Over(Result<T, Cause>),
    Empty,
}

/// A new task, with as many counts as it is to have references at once.
///
/// # Errors
///
/// If there is no memory: name and `function` are given back.
#[inline(always)]
pub(super) fn new<F, T, const COUNTS: usize>(
    owner: Owner,
    name: Option<Box<str>>,
    stack_size: usize,
    function: F,
) -> Result<[Reference; COUNTS], (Option<Box<str>>, F)>
where
    F: FnOnce() -> T,
{
    // SAFETY: a header is not empty.
    let place = unsafe { alloc(Layout::new::<Cell<F, T>>()) }.cast::<Cell<F, T>>();
    let Some(place) = NonNull::new(place) else { return Err((name, function)) };
    // SAFETY: it has the layout; the header comes first; there are as many counts as references.
    unsafe {
        place.write(Cell {
            header: Header::new(owner, name, stack_size, Cell::<F, T>::VTABLE, COUNTS),
            stage: UnsafeCell::new(Stage::Waiting(function)),
        });
        Ok([(); COUNTS].map(|()| Reference::from_raw(place.cast())))
    }
}

impl<F: FnOnce() -> T, T> Cell<F, T> {
    const VTABLE: &'static VTable =
        &VTable { run: Self::run, refuse: Self::refuse, take: Self::take, free: Self::free };

    /// # Safety
    ///
    /// The header must be that of a cell with these types, and the caller the one whom the stage belongs to.
    unsafe fn stage<'a>(header: NonNull<Header>) -> &'a mut Stage<F, T> {
        // SAFETY: the caller's promise; the pointer was made from one to the whole cell.
        unsafe { &mut *header.cast::<Self>().as_ref().stage.get() }
    }

    unsafe fn run(task: Mine) {
        // SAFETY: the caller's promise: the task is not over, so the stage is its own.
        let stage = unsafe { Self::stage(task.as_ptr()) };
        let Stage::Waiting(function) = std::mem::replace(stage, Stage::Empty) else { return };
        match catch_unwind(AssertUnwindSafe(function)) {
            // Also when the runtime is ending: what was achieved in spite of that is reported.
            Ok(value) => Self::deliver(task, Ok(value)),
            Err(payload) if task.own().is_unwinding.get() => {
                Self::deliver(task, Err(Cause::Cancelled));
                resume_unwind(payload);
            }
            Err(payload) => Self::deliver(task, Err(Cause::Panic(Mutex::new(payload)))),
        }
    }

    unsafe fn refuse(task: Mine, cause: Cause) {
        // SAFETY: as in `run`.
        let stage = unsafe { Self::stage(task.as_ptr()) };
        let stage = std::mem::replace(stage, Stage::Empty);
        quietly(|| drop(stage));
        Self::deliver(task, Err(cause));
    }

    fn deliver(task: Mine, result: Result<T, Cause>) {
        // SAFETY: the task's until the next line.
        *unsafe { Self::stage(task.as_ptr()) } = Stage::Over(result);
        if handle::end(task) == handle::End::Unwanted {
            // SAFETY: there is no handle to have it.
            drop(std::mem::replace(unsafe { Self::stage(task.as_ptr()) }, Stage::Empty));
        }
    }

    unsafe fn take(header: NonNull<Header>, to: *mut ()) {
        // SAFETY: the caller's promise: the task is over, and it is the handle that asks.
        unsafe {
            if let Stage::Over(result) = std::mem::replace(Self::stage(header), Stage::Empty) {
                *to.cast::<Option<Result<T, Cause>>>() = Some(result);
            }
        }
    }

    unsafe fn free(header: NonNull<Header>) {
        let cell = header.cast::<Self>();
        // SAFETY: the caller's promise: nobody has it any more.
        unsafe {
            cell.drop_in_place();
            dealloc(cell.as_ptr().cast(), Layout::new::<Self>());
        }
    }
}
