//! The border to the operating system: everything here is a system call or a reading of its limits. Unix.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Error;

/// Reservations that exist, to tell which limit a refused one met. Counting only: no ordering needed.
static RESERVATIONS: AtomicUsize = AtomicUsize::new(0);

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

/// Reserves address space that faults when touched.
pub(super) fn reserve(size: usize) -> Result<NonNull<u8>, Error> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | stack_flag();
    // SAFETY: a new private mapping disturbs no other.
    let base = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(refused("mmap", size));
    }
    RESERVATIONS.fetch_add(1, Ordering::Relaxed);
    // The kernel places nothing at address zero unless asked to.
    NonNull::new(base.cast()).ok_or(Error::refused("mmap", 0, size))
}

/// Makes reserved pages readable and writable; they come into being as they are touched.
pub(super) fn commit(start: NonNull<u8>, size: usize) -> Result<(), Error> {
    // SAFETY: the pages are a reservation of ours that nobody uses yet.
    match unsafe { libc::mprotect(start.as_ptr().cast(), size, libc::PROT_READ | libc::PROT_WRITE) } {
        0 => Ok(()),
        _ => Err(refused("mprotect", size)),
    }
}

/// Gives a reservation back.
///
/// # Safety
///
/// It must come from [`reserve`] with the same size, and nobody may use it any more.
pub(super) unsafe fn release(base: NonNull<u8>, size: usize) {
    // SAFETY: the caller's promise.
    let answer = unsafe { libc::munmap(base.as_ptr().cast(), size) };
    // The kernel refuses when giving back would split a mapping and no mapping is left. The pages at least can go;
    // the address space stays reserved.
    if answer != 0 {
        // SAFETY: as above.
        unsafe { libc::madvise(base.as_ptr().cast(), size, libc::MADV_DONTNEED) };
    }
    RESERVATIONS.fetch_sub(1, Ordering::Relaxed);
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

/// Says which limit the call that just failed has met. Allocates nothing.
fn refused(call: &'static str, size: usize) -> Error {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if errno != libc::ENOMEM {
        return Error::refused(call, errno, size);
    }
    let stacks = RESERVATIONS.load(Ordering::Relaxed);
    if let Some(limit) = max_map_count() {
        // Two mappings a stack; the program's own code and heap have the rest.
        if stacks * 2 >= limit / 8 * 7 {
            return Error::mapping_limit(stacks, limit, size);
        }
    }
    // SAFETY: the pointer is to a live value.
    if let Some(limit) = limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_AS, limit) }) {
        return Error::address_space_limit(limit, size);
    }
    Error::refused(call, errno, size)
}

/// A limit of the process, if there is one. `get` asks for it.
fn limit(get: impl FnOnce(&mut libc::rlimit) -> libc::c_int) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let answer = get(&mut limit);
    #[allow(clippy::useless_conversion, reason = "rlim_t has 32 bits on some targets")]
    (answer == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then(|| limit.rlim_cur.into())
}

/// Linux's limit of mappings a process may have.
fn max_map_count() -> Option<usize> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    // SAFETY: the path is a C string.
    let file = unsafe { libc::open(c"/proc/sys/vm/max_map_count".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
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
