//! What tests of stacks ask of the system. Not a part of `common`, which has users without `libc`.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::os::fd::AsRawFd;

/// Bytes of a page.
pub fn page_size() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page size")
}

/// Reads a byte through the kernel, which answers instead of dying.
pub fn is_readable(address: *mut u8) -> bool {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: nothing is written to memory; the kernel checks the address it reads from.
    unsafe { libc::write(writer.as_raw_fd(), address.cast(), 1) == 1 }
}

/// Sets a limit of the process, for good.
pub fn set_limit(resource: libc::__rlimit_resource_t, amount: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: amount, rlim_max: amount };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}
