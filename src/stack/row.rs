//! One mapping that holds stacks in a row, each with its guard below it: what every kind of mapped stack is made of.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use super::error::Asked;
use super::system::{Access, With};
use super::{Error, GuardKind, StackSize, guard_kind, mappings, system, table, valgrind};

/// Stacks of one size in one mapping. They become usable from the lowest on, by [`prepare`](Row::prepare).
#[derive(Debug)]
pub(super) struct Row {
    base: NonNull<u8>,
    /// Of each, in whole pages.
    size: StackSize,
    count: usize,
    /// How many can be used.
    prepared: usize,
    access: Access,
}

// SAFETY: it owns its mapping, which any thread may use and unmap.
unsafe impl Send for Row {}

impl Row {
    /// Reserves a row. One system call, two where mappings have names.
    ///
    /// # Errors
    ///
    /// If the size makes no sense, or the system refuses.
    pub(super) fn map(size: StackSize, count: usize) -> Result<Self, Error> {
        let size = size.in_pages()?;
        let bytes = size.all().checked_mul(count).filter(|&bytes| isize::try_from(bytes).is_ok());
        let asked = Asked { stacks: count, size: size.reserve };
        let bytes = bytes.ok_or(Error::too_many(asked))?;
        let (base, access) = system::reserve(bytes).map_err(|refusal| refusal.explain(asked))?;
        let row = Self { base, size, count, prepared: 0, access };
        if table::insert(row.area()).is_err() {
            return Err(Error::no_memory(asked));
        }
        system::name(base, bytes, c"switchback stacks");
        Ok(row)
    }

    /// The row of one stack that was made of [`into_limit`](Self::into_limit).
    ///
    /// # Safety
    ///
    /// The limit must come from there, and be used for this once.
    pub(super) unsafe fn from_limit(limit: NonNull<u8>) -> Option<Self> {
        let found = table::find(limit.addr().get())?;
        let size = StackSize { reserve: found.top - found.limit, commit: 0, guard: found.limit - found.base };
        // SAFETY: the guard is part of the mapping.
        let base = unsafe { limit.sub(size.guard) };
        Some(Self { base, size, count: 1, prepared: 1, access: Access::Free })
    }

    /// Of a row of one stack, that stack's limit. The row is not unmapped before [`from_limit`](Self::from_limit).
    pub(super) fn into_limit(self) -> NonNull<u8> {
        let row = core::mem::ManuallyDrop::new(self);
        row.limit(0)
    }

    pub(super) fn size(&self) -> StackSize {
        self.size
    }

    /// The error if there is no memory for the account of its stacks.
    pub(super) fn no_memory(&self) -> Error {
        Error::no_memory(Asked { stacks: self.count, size: self.size.reserve })
    }

    pub(super) fn prepared(&self) -> usize {
        self.prepared
    }

    /// How many have never been prepared.
    pub(super) fn unprepared(&self) -> usize {
        self.count - self.prepared
    }

    pub(super) fn addresses(&self) -> core::ops::Range<usize> {
        let area = self.area();
        area.start..area.end
    }

    /// Bytes of memory that its stacks hold; none if the system does not say.
    pub(super) fn resident(&self) -> Option<usize> {
        let mut bytes = 0;
        // Guards hold none.
        system::pages(With::Memory, self.addresses(), |pages| bytes += pages.len())?;
        Some(bytes)
    }

    /// The lowest address of a stack.
    pub(super) fn limit(&self, index: usize) -> NonNull<u8> {
        debug_assert!(index < self.count);
        // SAFETY: within the mapping.
        unsafe { self.base.add(index * self.size.all() + self.size.guard) }
    }

    /// Makes the next stacks usable: guarded, committed as their size says.
    ///
    /// With guard regions one system call for 64 of them where the kernel can do that; else one for each. And one for each
    /// that is to be committed.
    ///
    /// # Errors
    ///
    /// If the system refuses. None of them can be used then; it can be tried again.
    pub(super) fn prepare(&mut self, count: usize) -> Result<(), Error> {
        let next = self.prepared..self.prepared + count;
        let splits = mappings_per_stack() * count;
        mappings::take(splits, Asked { stacks: count, size: self.size.reserve })?;
        let answer = self.guard(next.clone()).and_then(|()| {
            next.clone().try_for_each(|index| {
                // SAFETY: nobody uses it yet, and it is guarded.
                unsafe { make_resident(self.limit(index), self.size) }
            })
        });
        if let Err(error) = answer {
            mappings::give_back(splits);
            return Err(error);
        }
        self.register(next);
        self.prepared += count;
        Ok(())
    }

    fn register(&self, stacks: core::ops::Range<usize>) {
        for index in stacks {
            // SAFETY: one past the end of the stack.
            valgrind::register(self.limit(index), unsafe { self.limit(index).add(self.size.reserve) });
        }
    }

    fn guard(&self, stacks: core::ops::Range<usize>) -> Result<(), Error> {
        let size = self.size;
        let asked = Asked { stacks: stacks.len(), size: size.reserve };
        // SAFETY: within the mapping.
        let guard = |index: usize| unsafe { self.limit(index).sub(size.guard) };
        // SAFETY: nobody uses these pages.
        let answer = unsafe {
            match (self.access, guard_kind()) {
                // All that is not committed is out of reach.
                (Access::Counted, _) => {
                    stacks.into_iter().try_for_each(|index| system::commit(self.limit(index), size.reserve))
                }
                (Access::Free, GuardKind::Protection) => {
                    stacks.into_iter().try_for_each(|index| system::protect(guard(index), size.guard))
                }
                (Access::Free, GuardKind::Region) => {
                    let mut places = [system::place(self.base, 0); system::PLACES];
                    let mut next = stacks;
                    loop {
                        let mut filled = 0;
                        for (place, index) in places.iter_mut().zip(&mut next) {
                            *place = system::place(guard(index), size.guard);
                            filled += 1;
                        }
                        if filled == 0 {
                            break Ok(());
                        }
                        if let refused @ Err(_) = system::guard_all(&places[..filled]) {
                            break refused;
                        }
                    }
                }
            }
        };
        answer.map_err(|refusal| refusal.explain(asked))
    }

    /// Takes all memory from a stack; it stays reserved, and usable where the system does not count what can be written.
    ///
    /// # Safety
    ///
    /// Nobody may use it before [`restore`](Self::restore).
    pub(super) unsafe fn retire(&self, limit: NonNull<u8>) {
        let reserve = self.size.reserve;
        // SAFETY: the caller's promise. If the system refuses, the stack just keeps its memory, and its pages stay in reach.
        let _ = unsafe {
            match (self.access, seals_retired(), guard_kind()) {
                (Access::Counted, ..) => system::uncommit(limit, reserve),
                (Access::Free, false, _) => system::decommit(limit, reserve),
                (Access::Free, true, GuardKind::Region) => system::guard(limit, reserve),
                (Access::Free, true, GuardKind::Protection) => {
                    system::protect(limit, reserve).and_then(|()| system::decommit(limit, reserve))
                }
            }
        };
    }

    /// Makes a retired stack usable again.
    ///
    /// # Errors
    ///
    /// If the system refuses; it is still retired then.
    ///
    /// # Safety
    ///
    /// It must be one of the row that was retired.
    pub(super) unsafe fn restore(&self, limit: NonNull<u8>) -> Result<(), Error> {
        let reserve = self.size.reserve;
        // SAFETY: the caller's promise.
        let answer = unsafe {
            match (self.access, seals_retired(), guard_kind()) {
                (Access::Free, false, _) => Ok(()),
                (Access::Free, true, GuardKind::Region) => system::unguard(limit, reserve),
                (Access::Counted, ..) | (Access::Free, true, GuardKind::Protection) => system::commit(limit, reserve),
            }
        };
        answer.map_err(|refusal| refusal.explain(reserve))?;
        // SAFETY: it is in reach now.
        unsafe { make_resident(limit, self.size) }
    }

    fn area(&self) -> table::Area {
        let start = self.base.addr().get();
        let stride = self.size.all();
        table::Area { start, end: start + stride * self.count, stride, guard: self.size.guard }
    }

    /// Unmaps the row, by one system call. If that is refused it is still there.
    ///
    /// # Safety
    ///
    /// Nobody may use a stack of it any more.
    pub(super) unsafe fn unmap(&mut self) -> bool {
        // First, so that nobody is taken for it who is mapped in its place.
        table::remove(self.area());
        (0..self.prepared).for_each(|index| valgrind::deregister(self.limit(index)));
        // SAFETY: the caller's promise; the mapping is ours.
        if unsafe { system::release(self.base, self.size.all() * self.count) }.is_err() {
            // There is room where it was.
            let _ = table::insert(self.area());
            self.register(0..self.prepared);
            return false;
        }
        mappings::give_back(mappings_per_stack() * self.prepared);
        (self.count, self.prepared) = (0, 0);
        true
    }
}

impl Drop for Row {
    /// Unmaps it. If the system refuses, its pages at least can go; its addresses are lost.
    fn drop(&mut self) {
        // SAFETY: whoever used one of the stacks owned the row.
        if self.count > 0 && unsafe { !self.unmap() } {
            table::remove(self.area());
            // SAFETY: as above. If that is refused too, nothing more can be done.
            let _ = unsafe { system::decommit(self.base, self.size.all() * self.count) };
        }
    }
}

/// Mappings that a stack takes. With guard regions a row is one, and the kernel makes one of neighbours.
fn mappings_per_stack() -> usize {
    match guard_kind() {
        GuardKind::Region => 0,
        GuardKind::Protection => 2,
    }
}

/// Whether pooled stacks that are not in use are out of reach, so that whoever uses one faults: on request, by the
/// environment variable `SWITCHBACK_GUARD_RELEASED=1`.
pub(super) fn seals_retired() -> bool {
    const UNKNOWN: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);
    match ANSWER.load(Ordering::Relaxed) {
        UNKNOWN => {
            let wanted = std::env::var_os("SWITCHBACK_GUARD_RELEASED").is_some_and(|wanted| wanted == "1");
            ANSWER.store(wanted.into(), Ordering::Relaxed);
            wanted
        }
        answer => answer != 0,
    }
}

/// Makes resident what the size says.
///
/// # Safety
///
/// The stack must be ours, and usable.
unsafe fn make_resident(limit: NonNull<u8>, size: StackSize) -> Result<(), Error> {
    if size.commit == 0 {
        return Ok(());
    }
    // SAFETY: the highest bytes of it.
    let answer = unsafe { system::populate(limit.add(size.reserve - size.commit), size.commit) };
    answer.map_err(|refusal| refusal.explain(size.reserve))
}
