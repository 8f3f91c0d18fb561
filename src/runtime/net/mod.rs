//! TCP with the names, signatures and behaviour of [`std::net`]; waiting parks the task instead of blocking the thread.
//!
//! What differs from the standard library:
//!
//! - An operation whose timeout elapses fails with [`TimedOut`](std::io::ErrorKind::TimedOut) on every system; `std`
//!   gives `WouldBlock` on Unix.
//! - A call interrupted by a signal is retried, never reported.
//! - The descriptors are in non-blocking mode, which shows if one is used directly ([`AsFd`](std::os::fd::AsFd)) or
//!   duplicated. Converting to the standard library's type makes it blocking again.
//! - Looking up a host name blocks the thread, since the operating system has no other way; an address does not.
//!
//! A socket may be used in tasks of any runtime and in plain threads, by several at once, and may be moved between them.
//! In a plain thread, and in a task that is unwinding, it blocks the thread as `std`'s does. If several tasks wait to
//! read from the same socket, all are woken when something comes and the first gets it.

mod socket;
mod tcp_listener;
mod tcp_stream;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

pub(crate) use socket::Socket;
pub use tcp_listener::{Incoming, TcpListener};
pub use tcp_stream::TcpStream;

/// Tries all addresses in order until one works, as `std` does. The error is the last one's.
fn each_address<T>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for address in addresses.to_socket_addrs()? {
        match attempt(&address) {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no address to try")))
}
