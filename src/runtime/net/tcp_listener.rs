//! [`std::net::TcpListener`] for tasks.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{self, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{SocketFlags, acceptfrom_with};

use super::{Socket, TcpStream, each_address};
use crate::driver::Direction;

/// A TCP socket that accepts connections. See the [module](super) for what differs from [`std::net::TcpListener`].
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use switchback_runtime::{self as rt, net::TcpListener};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     # let address = listener.local_addr()?;
///     # let _client = rt::spawn(move || rt::net::TcpStream::connect(address).unwrap());
///     let (mut stream, peer) = listener.accept()?;
///     writeln!(stream, "hello, {peer}")
/// })?
/// # }
/// ```
pub struct TcpListener {
    socket: Socket<net::TcpListener>,
}

impl TcpListener {
    /// A listener on the first of the addresses that can be bound, with `SO_REUSEADDR` and the backlog of `std`.
    ///
    /// # Errors
    ///
    /// Those of the last address tried; `InvalidInput` if there is none.
    pub fn bind<A: ToSocketAddrs>(addresses: A) -> io::Result<TcpListener> {
        each_address(addresses, |address| TcpListener::with_std(net::TcpListener::bind(address)?))
    }

    fn with_std(listener: net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        Ok(TcpListener { socket: Socket::new(listener) })
    }

    /// The address the listener is bound to.
    ///
    /// # Errors
    ///
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }

    /// A second listener for the same socket: each connection goes to one of the two.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        // A duplicate shares the non-blocking mode.
        Ok(TcpListener { socket: Socket::new(self.socket.get().try_clone()?) })
    }

    /// Waits for a connection.
    ///
    /// Costs one system call if there is one, or else that, two switches and another.
    ///
    /// # Errors
    ///
    /// As in `std`, also those that concern one connection (`ConnectionAborted`) or pass by themselves: when the limit of
    /// open files is met the connection stays in the backlog, and the call can be repeated after a pause.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.perform(Direction::Read, None, |listener| {
            // One system call, where `std`'s accept would need another for the non-blocking mode.
            let (stream, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
            let peer = match peer.map(SocketAddr::try_from) {
                Some(Ok(peer)) => peer,
                // The listener of another kind of socket, made one of TCP by its descriptor.
                _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the peer has no internet address")),
            };
            Ok((TcpStream::from_nonblocking(net::TcpStream::from(stream)), peer))
        })
    }

    /// [`accept`](TcpListener::accept) for ever, without the addresses.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets the time to live of the packets sent, in hops.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.get().set_ttl(ttl)
    }

    /// The time to live of the packets sent, in hops.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.get().ttl()
    }

    /// Takes the error that is pending on the socket, if there is one.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.get().take_error()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.get().fmt(f)
    }
}

/// The connections of a [`TcpListener`], without end.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

impl From<net::TcpListener> for TcpListener {
    /// Makes the listener non-blocking, which cannot fail for an open socket.
    fn from(listener: net::TcpListener) -> TcpListener {
        let _ = listener.set_nonblocking(true);
        TcpListener { socket: Socket::new(listener) }
    }
}

impl From<TcpListener> for net::TcpListener {
    /// Makes the listener blocking, as the standard library's are.
    fn from(listener: TcpListener) -> net::TcpListener {
        let listener = listener.socket.into_inner();
        let _ = listener.set_nonblocking(false);
        listener
    }
}

impl From<OwnedFd> for TcpListener {
    fn from(descriptor: OwnedFd) -> TcpListener {
        net::TcpListener::from(descriptor).into()
    }
}

impl From<TcpListener> for OwnedFd {
    /// The descriptor, in blocking mode.
    fn from(listener: TcpListener) -> OwnedFd {
        net::TcpListener::from(listener).into()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.get().as_raw_fd()
    }
}
