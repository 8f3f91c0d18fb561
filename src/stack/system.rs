//! The border to the operating system: everything here is a system call or a reading of its limits. Unix.

use core::fmt;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::Asked;
use super::{Error, mappings};

/// Bytes of a page. A run-time value: 4, 16 or 64 KiB on the same architecture.
pub(super) fn page_size() -> usize {
    static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: no preconditions.
            let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            // POSIX demands an answer; 64 KiB is a multiple of every page size in use.
            let size = usize::try_from(answer).ok().filter(|size| size.is_power_of_two()).unwrap_or(64 * 1024);
            PAGE_SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// What may be done with reserved address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Pages come into being as they are touched.
    Free,
    /// The system counts what could be written as if it were used, so pages are out of reach until [`commit`].
    Counted,
}

/// Reserves address space: for use at once, or out of reach where the system counts what can be written as used.
pub(super) fn reserve(size: usize) -> Result<(NonNull<u8>, Access), Refusal> {
    if !counts_what_can_be_written() {
        match map(ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE) {
            // It may have begun to count since.
            Err(refusal) if refusal.errno == libc::ENOMEM => {}
            answer => return answer.map(|base| (base, Access::Free)),
        }
    }
    map(ptr::null_mut(), size, libc::PROT_NONE).map(|base| (base, Access::Counted))
}

/// Whether the system counts pages that can be written as used: if it promises no more memory than it has, or the process
/// has a limit of such pages. Asked once.
fn counts_what_can_be_written() -> bool {
    const UNKNOWN: usize = 2;
    static ANSWER: AtomicUsize = AtomicUsize::new(UNKNOWN);
    match ANSWER.load(Ordering::Relaxed) {
        UNKNOWN => {
            let counts = overcommits_nothing() || data_limit().is_some();
            ANSWER.store(counts.into(), Ordering::Relaxed);
            counts
        }
        answer => answer != 0,
    }
}

fn map(place: *mut u8, size: usize, protection: libc::c_int) -> Result<NonNull<u8>, Refusal> {
    let place_flag = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | stack_flag() | place_flag;
    call("mmap", || {
        // SAFETY: a new private mapping disturbs no other, and one at a place is asked for by `uncommit` alone.
        let base = unsafe { libc::mmap(place.cast(), size, protection, flags, -1, 0) };
        // The kernel places nothing at address zero unless asked to.
        NonNull::new(base.cast()).filter(|_| base != libc::MAP_FAILED)
    })
}

/// Makes pages readable and writable that [`Access::Counted`] keeps out of reach.
///
/// # Safety
///
/// They must be ours.
pub(super) unsafe fn commit(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { set_protection(start, size, libc::PROT_READ | libc::PROT_WRITE) }
}

/// The reverse of [`commit`]: the system no longer counts them, and what was in them is lost.
///
/// # Safety
///
/// They must be ours, and nobody may use them.
pub(super) unsafe fn uncommit(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // Nothing but a new mapping in their place makes the kernel forget that they were counted.
    map(start.as_ptr(), size, libc::PROT_NONE).map(|_| ())
}

/// Puts pages out of reach, at the price of a mapping of their own.
///
/// # Safety
///
/// They must be ours, and nobody may use them.
pub(super) unsafe fn protect(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { set_protection(start, size, libc::PROT_NONE) }
}

/// # Safety
///
/// The pages must be ours.
unsafe fn set_protection(start: NonNull<u8>, size: usize, protection: libc::c_int) -> Result<(), Refusal> {
    call("mprotect", || {
        // SAFETY: the caller's promise.
        let answer = unsafe { libc::mprotect(start.as_ptr().cast(), size, protection) };
        (answer == 0).then_some(())
    })
}

/// Makes pages resident.
///
/// # Safety
///
/// They must be ours, and readable and writable. What is in them stays.
pub(super) unsafe fn populate(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    #[cfg(target_os = "linux")]
    {
        /// Linux 5.14.
        const MADV_POPULATE_WRITE: libc::c_int = 23;
        // SAFETY: the caller's promise.
        match unsafe { advise(start, size, MADV_POPULATE_WRITE) } {
            // Not known to the kernel.
            Err(refusal) if refusal.errno == libc::EINVAL => {}
            answer => answer?,
        }
    }
    // Whoever does not know the advice may have said yes, as QEMU does. Of a page that is there it costs a cache line.
    for offset in (0..size).step_by(page_size()) {
        // SAFETY: the caller's promise; a byte is read and written back.
        unsafe {
            let page = start.add(offset).as_ptr();
            page.write_volatile(page.read_volatile());
        }
    }
    Ok(())
}

/// Gives pages back to the system: they stay what they are, but what was in them is lost. Guards stay.
///
/// # Safety
///
/// They must be ours, and nobody may use them.
pub(super) unsafe fn decommit(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { advise(start, size, libc::MADV_DONTNEED) }
}

/// The same for many places.
///
/// # Safety
///
/// As for [`decommit`].
pub(super) unsafe fn decommit_all(places: &[Place]) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { advise_all(places, libc::MADV_DONTNEED) }
}

/// Puts pages out of reach without a mapping of their own: what [`GuardKind::Region`](super::GuardKind::Region) means.
///
/// # Safety
///
/// They must be ours, and nobody may use them.
pub(super) unsafe fn guard(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { advise(start, size, MADV_GUARD_INSTALL) }
}

/// The same for many places.
///
/// # Safety
///
/// As for [`guard`].
pub(super) unsafe fn guard_all(places: &[Place]) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { advise_all(places, MADV_GUARD_INSTALL) }
}

/// Takes back [`guard`].
///
/// # Safety
///
/// As for [`guard`].
pub(super) unsafe fn unguard(start: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    unsafe { advise(start, size, MADV_GUARD_REMOVE) }
}

/// Linux 6.13. Elsewhere no kernel knows the number, and [`guards_hold`] says so.
const MADV_GUARD_INSTALL: libc::c_int = 102;
const MADV_GUARD_REMOVE: libc::c_int = 103;

/// # Safety
///
/// As the advice has it.
unsafe fn advise(start: NonNull<u8>, size: usize, advice: libc::c_int) -> Result<(), Refusal> {
    call("madvise", || {
        // SAFETY: the caller's promise.
        let answer = unsafe { libc::madvise(start.as_ptr().cast(), size, advice) };
        (answer == 0).then_some(())
    })
}

/// As many places as one call takes.
pub(super) const PLACES: usize = 64;

/// Pages, as the kernel wants to have many of them described.
pub(super) type Place = libc::iovec;

/// Describes pages.
pub(super) fn place(start: NonNull<u8>, size: usize) -> Place {
    Place { iov_base: start.as_ptr().cast(), iov_len: size }
}

/// Whether the kernel may take advice for many places in one call. False once it has said that it does not.
pub(super) static AT_ONCE: AtomicBool = AtomicBool::new(true);

/// The same advice for many places: in one system call for [`PLACES`] of them where the kernel takes it (Linux 6.15), which costs
/// less than half of one call for each.
///
/// # Safety
///
/// As the advice has it.
unsafe fn advise_all(places: &[Place], advice: libc::c_int) -> Result<(), Refusal> {
    for places in places.chunks(PLACES) {
        // SAFETY: the caller's promise.
        let advised = unsafe { advise_at_once(places, advice) };
        // What has been advised already is advised again, which does no harm.
        let mut rest = advised;
        for place in places {
            if rest >= place.iov_len {
                rest -= place.iov_len;
            } else if let Some(start) = NonNull::new(place.iov_base.cast()) {
                rest = 0;
                // SAFETY: as above.
                unsafe { advise(start, place.iov_len, advice)? };
            }
        }
    }
    Ok(())
}

/// How many bytes have been advised, from the first place on: zero if the kernel does not know the call.
///
/// # Safety
///
/// As the advice has it.
unsafe fn advise_at_once(places: &[Place], advice: libc::c_int) -> usize {
    #[cfg(target_os = "linux")]
    if places.len() > 1 && AT_ONCE.load(Ordering::Relaxed) {
        /// A descriptor that stands for the calling process (Linux 6.14).
        const PIDFD_SELF: libc::c_int = -10_000;
        let advised = call("process_madvise", || {
            // SAFETY: the caller's promise.
            let answer = unsafe {
                libc::syscall(libc::SYS_process_madvise, PIDFD_SELF, places.as_ptr(), places.len(), advice, 0)
            };
            usize::try_from(answer).ok()
        });
        if advised.is_err_and(|refusal| !refusal.may_pass()) {
            AT_ONCE.store(false, Ordering::Relaxed);
        }
        return advised.unwrap_or(0);
    }
    let _ = (places, advice);
    0
}

/// Gives a reservation back. The kernel refuses when that would split a mapping and no mapping is left.
///
/// # Safety
///
/// It must come from [`reserve`] with the same size, and nobody may use it any more.
pub(super) unsafe fn release(base: NonNull<u8>, size: usize) -> Result<(), Refusal> {
    call("munmap", || {
        // SAFETY: the caller's promise.
        let answer = unsafe { libc::munmap(base.as_ptr().cast(), size) };
        (answer == 0).then_some(())
    })
}

/// What a page is to have in order to be found by [`pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    /// Memory, or what was in it swapped out, if the system tells that. To the kernel a guard region is swapped out.
    Contents,
    /// Memory.
    Memory,
}

/// Calls `found` with each run of such pages in a range. None if the system does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn pages(with: With, range: Range<usize>, mut found: impl FnMut(Range<usize>)) -> Option<()> {
    scan(with, range.clone(), &mut found).or_else(|| look_at_each(range, found))
}

/// Not known how to ask here yet.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn pages(_: With, _: Range<usize>, _: impl FnMut(Range<usize>)) -> Option<()> {
    None
}

/// Linux 6.7: walks the page tables, so that what is not there costs nothing.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn scan(with: With, range: Range<usize>, mut found: impl FnMut(Range<usize>)) -> Option<()> {
    // From `linux/fs.h`.
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        size: u64,
        flags: u64,
        start: u64,
        end: u64,
        walk_end: u64,
        regions: u64,
        regions_length: u64,
        max_pages: u64,
        category_inverted: u64,
        category_mask: u64,
        category_anyof_mask: u64,
        return_mask: u64,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Region {
        start: u64,
        end: u64,
        categories: u64,
    }
    const PAGEMAP_SCAN: u32 = 0xc060_6610;
    const PAGE_IS_PRESENT: u64 = 1 << 3;
    const PAGE_IS_SWAPPED: u64 = 1 << 4;
    let categories = match with {
        With::Contents => PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        With::Memory => PAGE_IS_PRESENT,
    };
    // SAFETY: the path is a C string.
    let file = unsafe { libc::open(c"/proc/self/pagemap".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    let mut start = range.start as u64;
    let end = range.end as u64;
    let answer = loop {
        let mut regions = [Region::default(); 32];
        let mut arguments = Arguments {
            size: size_of::<Arguments>() as u64,
            start,
            end,
            regions: regions.as_mut_ptr().expose_provenance() as u64,
            regions_length: regions.len() as u64,
            category_anyof_mask: categories,
            return_mask: categories,
            ..Arguments::default()
        };
        // SAFETY: the kernel writes as many regions as there are, and where it has stopped.
        let count = unsafe { libc::ioctl(file, PAGEMAP_SCAN as _, &raw mut arguments) };
        let Ok(count) = usize::try_from(count) else { break None };
        regions[..count.min(regions.len())].iter().for_each(|region| found(region.start as usize..region.end as usize));
        if arguments.walk_end >= end || arguments.walk_end <= start {
            break Some(());
        }
        start = arguments.walk_end;
    };
    // SAFETY: it is ours.
    unsafe { libc::close(file) };
    answer
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn look_at_each(range: Range<usize>, mut found: impl FnMut(Range<usize>)) -> Option<()> {
    let page = page_size();
    for start in range.clone().step_by(256 * page) {
        let end = range.end.min(start + 256 * page);
        let mut pages = [0_u8; 256];
        // SAFETY: only the page tables are looked at, and there is a byte for each page.
        if unsafe { libc::mincore(ptr::without_provenance_mut(start), end - start, pages.as_mut_ptr().cast()) } != 0 {
            return None;
        }
        let resident = (start..end).step_by(page).zip(pages).filter(|(_, resident)| resident & 1 != 0);
        resident.for_each(|(start, _)| found(start..start + page));
    }
    Some(())
}

/// Gives a mapping a name that `/proc/PID/smaps` shows, where the kernel keeps names (Linux 5.17, if built so).
pub(super) fn name(base: NonNull<u8>, size: usize, name: &'static core::ffi::CStr) {
    #[cfg(target_os = "linux")]
    {
        const PR_SET_VMA: libc::c_int = 0x53_56_4d_41;
        const PR_SET_VMA_ANON_NAME: libc::c_ulong = 0;
        // SAFETY: changes nothing but the name; the string is copied. Without it nothing is lost.
        unsafe { libc::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, base.as_ptr(), size, name.as_ptr()) };
    }
    let _ = (base, size, name);
}

/// Whether [`guard`] holds, which is tried: there are kernels that do not know it, and emulators that say yes and do
/// nothing.
pub(super) fn guards_hold() -> bool {
    let size = page_size();
    let Ok((page, access)) = reserve(size) else { return false };
    // SAFETY: the page is ours; if it is not in reach the kernel says so.
    let holds = access == Access::Free && unsafe { guard(page, size).is_ok() && !is_readable(page) };
    // SAFETY: nobody knows of it. If it is refused, a page of addresses is lost.
    let _ = unsafe { release(page, size) };
    holds
}

/// Whether a byte can be read, asked of the kernel, who answers `EFAULT` where we would die. If it cannot be asked: yes.
fn is_readable(byte: NonNull<u8>) -> bool {
    let mut pipe = [0; 2];
    // SAFETY: the pointers are to live values, but for `byte`, which the kernel reads, if it can.
    unsafe {
        if libc::pipe(pipe.as_mut_ptr()) != 0 {
            return true;
        }
        let answer = libc::write(pipe[1], byte.as_ptr().cast(), 1);
        let refused = answer < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
        !refused
    }
}

/// Writes what an error number means, in the system's words. Allocates nothing, as `std::io::Error` does to say it.
pub(super) fn write_reason(f: &mut fmt::Formatter<'_>, errno: i32) -> fmt::Result {
    let mut text = [0_u8; 128];
    // SAFETY: it writes no more than the buffer holds. Called so it is POSIX's, which answers with a number.
    let answer = unsafe { libc::strerror_r(errno, text.as_mut_ptr().cast(), text.len()) };
    let text = core::ffi::CStr::from_bytes_until_nul(&text).ok().and_then(|text| text.to_str().ok());
    match text {
        Some(text) if answer == 0 => write!(f, "{text} (os error {errno})"),
        _ => write!(f, "os error {errno}"),
    }
}

/// What the system said when it refused a call. Making one allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    call: &'static str,
    errno: i32,
}

/// Every system call that can be refused goes through here, so that tests can have each of them refused.
fn call<T>(name: &'static str, call: impl FnOnce() -> Option<T>) -> Result<T, Refusal> {
    #[cfg(test)]
    if let Some(errno) = super::faults::next(name) {
        return Err(Refusal { call: name, errno });
    }
    call().ok_or_else(|| Refusal { call: name, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0) })
}

/// The stack that the system gave the calling thread, from its lowest byte to above its highest; None if it cannot say.
///
/// Without a limit (`ulimit -s unlimited`) the system says that of the main thread's stack reaches down to the next
/// mapping, but more may be mapped there later: no more than 1 GiB is counted.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn thread_stack() -> Option<core::ops::Range<usize>> {
    let mut attributes = core::mem::MaybeUninit::uninit();
    let mut base = ptr::null_mut();
    let mut size = 0;
    let mut guard = 0;
    // SAFETY: the first call initialises the attributes unless it fails, the others take what it initialised.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let answer = libc::pthread_attr_getstack(attributes.as_ptr(), &mut base, &mut size);
        let answer = answer | libc::pthread_attr_getguardsize(attributes.as_ptr(), &mut guard);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        if answer != 0 {
            return None;
        }
        let top = base.addr() + size;
        // Some versions of glibc count the guard in. Where they do not, this is less than there is.
        let mut lowest = base.addr() + guard;
        if limit(|limit| libc::getrlimit(libc::RLIMIT_STACK, limit)).is_none() {
            lowest = lowest.max(top.saturating_sub(1 << 30));
        }
        (lowest < top).then_some(lowest..top)
    }
}

/// Not known how to ask here yet.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn thread_stack() -> Option<core::ops::Range<usize>> {
    None
}

/// Linux keeps huge pages off a mapping with this flag (since 6.7).
fn stack_flag() -> libc::c_int {
    if cfg!(target_os = "linux") { libc::MAP_STACK } else { 0 }
}

impl Refusal {
    /// Whether the same call may be granted another time: it was for lack of memory, or interrupted.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "no call has another way round it"))]
    fn may_pass(self) -> bool {
        matches!(self.errno, libc::ENOMEM | libc::EAGAIN | libc::EINTR)
    }

    /// Says which limit was met by a call for this. Allocates nothing.
    pub(super) fn explain(self, asked: impl Into<Asked>) -> Error {
        let Self { call, errno } = self;
        let asked = asked.into();
        // The kernel says so of a mapping that is to be locked at once, because the process has asked for that (`mlockall`).
        if call == "mmap" && errno == libc::EAGAIN {
            // SAFETY: the pointer is to a live value.
            if let Some(limit) = limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, limit) }) {
                return Error::lock_limit(limit, asked);
            }
        }
        if errno != libc::ENOMEM {
            return Error::refused(call, errno, asked);
        }
        if let Some(error) = mappings::exhausted(asked) {
            return error;
        }
        // SAFETY: the pointer is to a live value.
        if let Some(limit) = limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_AS, limit) }) {
            return Error::address_space_limit(limit, asked);
        }
        if let Some(limit) = data_limit() {
            return Error::data_limit(limit, asked);
        }
        if overcommits_nothing() {
            return Error::commit_limit(asked);
        }
        Error::refused(call, errno, asked)
    }
}

/// The process's limit of pages that can be written (on Linux), if it has one.
fn data_limit() -> Option<u64> {
    // SAFETY: the pointer is to a live value.
    limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_DATA, limit) })
}

/// Whether the system promises no more memory than it has (`vm.overcommit_memory=2`).
fn overcommits_nothing() -> bool {
    cfg!(target_os = "linux") && number_in(c"/proc/sys/vm/overcommit_memory") == Some(2)
}

/// A limit of the process, if there is one. `get` asks for it.
fn limit(get: impl FnOnce(&mut libc::rlimit) -> libc::c_int) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let answer = get(&mut limit);
    #[allow(clippy::useless_conversion, reason = "rlim_t has 32 bits on some targets")]
    (answer == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then(|| limit.rlim_cur.into())
}

/// Linux's limit of mappings a process may have. Read each time: it can be raised while the program runs.
pub(super) fn max_map_count() -> Option<usize> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    number_in(c"/proc/sys/vm/max_map_count")
}

/// A number that the kernel shows in a file. Allocates nothing.
fn number_in(path: &core::ffi::CStr) -> Option<usize> {
    // SAFETY: the path is a C string.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    let mut text = [0u8; 32];
    // SAFETY: the buffer has that many bytes, and the descriptor is ours to read and close.
    let length = unsafe {
        let length = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        length
    };
    let text = text.get(..usize::try_from(length).ok()?)?;
    str::from_utf8(text).ok()?.trim().parse().ok()
}
