//! [`std::net::TcpStream`] for tasks.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Type};

use super::{Socket, each_address};
use crate::driver::Direction;

/// A TCP connection. See the [module](super) for what differs from [`std::net::TcpStream`].
///
/// `&TcpStream` reads and writes as well, so one task may read while another writes.
///
/// A read or write costs its system call if it need not wait, or else that, two switches and another. The first wait of
/// a stream in a runtime costs one more, and so does dropping it then.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use switchback_runtime::{self as rt, net::{TcpListener, TcpStream}};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     # let listener = TcpListener::bind("127.0.0.1:0")?;
///     # let address = listener.local_addr()?;
///     # rt::spawn(move || {
///     #     let (mut peer, _) = listener.accept().unwrap();
///     #     peer.read_exact(&mut [0; 3]).unwrap();
///     #     peer.write_all(b"later")
///     # });
///     let mut stream = TcpStream::connect(address)?;
///     stream.write_all(b"now")?;
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer)?;
///     # assert_eq!(answer, "later");
///     Ok(())
/// })?
/// # }
/// ```
pub struct TcpStream {
    socket: Socket<net::TcpStream>,
    /// Shared by clones, as the options of a socket are.
    timeouts: Arc<Timeouts>,
}

/// How long a read and a write may take.
#[derive(Default)]
struct Timeouts {
    read: Timeout,
    write: Timeout,
}

/// Nanoseconds; 0 is none. Relaxed throughout: it publishes nothing but itself.
#[derive(Default)]
struct Timeout(AtomicU64);

impl Timeout {
    fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        let nanoseconds = match timeout {
            None => 0,
            Some(Duration::ZERO) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a timeout cannot be zero: `None` means none"));
            }
            // 584 years will do.
            Some(timeout) => u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
        };
        self.0.store(nanoseconds, Ordering::Relaxed);
        Ok(())
    }
}

impl TcpStream {
    /// Connects to the first of the addresses that accepts.
    ///
    /// # Errors
    ///
    /// Those of the last address tried; `InvalidInput` if there is none.
    pub fn connect<A: ToSocketAddrs>(addresses: A) -> io::Result<TcpStream> {
        each_address(addresses, |address| TcpStream::connect_until(address, None))
    }

    /// Connects to one address within `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the time is up, `InvalidInput` if it is zero.
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a timeout cannot be zero"));
        }
        TcpStream::connect_until(address, Instant::now().checked_add(timeout))
    }

    fn connect_until(address: &SocketAddr, deadline: Option<Instant>) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::for_address(*address), kind, Some(Protocol::TCP))?;
        let begun = socket.connect(&(*address).into());
        let stream = TcpStream::from_nonblocking(socket.into());
        match begun {
            Ok(()) => return Ok(stream),
            // Interrupted, it goes on all the same.
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INPROGRESS | Errno::INTR) => {}
                _ => return Err(error),
            },
        }
        loop {
            stream.socket.wait(Direction::Write, deadline)?;
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            match stream.peer_addr() {
                Ok(_) => return Ok(stream),
                // Woken too early.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A stream that is in non-blocking mode already, and has no timeouts.
    pub(super) fn from_nonblocking(stream: net::TcpStream) -> TcpStream {
        TcpStream { socket: Socket::new(stream), timeouts: Arc::default() }
    }

    fn reading<T>(&self, operation: impl FnMut(&net::TcpStream) -> io::Result<T>) -> io::Result<T> {
        self.socket.perform(Direction::Read, self.timeouts.read.get(), operation)
    }

    fn writing<T>(&self, operation: impl FnMut(&net::TcpStream) -> io::Result<T>) -> io::Result<T> {
        self.socket.perform(Direction::Write, self.timeouts.write.get(), operation)
    }

    /// Waits for data and copies it to `buffer` without taking it from the stream; returns how many bytes it copied.
    ///
    /// # Errors
    ///
    /// As `read`.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reading(|stream| stream.peek(buffer))
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// Those of `getpeername`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().peer_addr()
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }

    /// Shuts down reading, writing or both; whoever waits for them is woken, and finds the end of the stream.
    ///
    /// # Errors
    ///
    /// Those of `shutdown`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.get().shutdown(how)
    }

    /// A second handle to the same connection; timeouts and other options are common to both.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        // A duplicate shares the non-blocking mode.
        let stream = self.socket.get().try_clone()?;
        Ok(TcpStream { socket: Socket::new(stream), timeouts: self.timeouts.clone() })
    }

    /// Sets how long one read may take; `None` is for ever. Holds for reads that begin afterwards.
    ///
    /// Costs no system call.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the timeout is zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts.read.set(timeout)
    }

    /// Sets how long one write may take; `None` is for ever. Holds for writes that begin afterwards.
    ///
    /// Costs no system call.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the timeout is zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts.write.set(timeout)
    }

    /// How long one read may take.
    ///
    /// # Errors
    ///
    /// None; the signature is `std`'s.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.timeouts.read.get())
    }

    /// How long one write may take.
    ///
    /// # Errors
    ///
    /// None; the signature is `std`'s.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.timeouts.write.get())
    }

    /// Sets `TCP_NODELAY`: small packets are sent at once.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.get().set_nodelay(nodelay)
    }

    /// Whether `TCP_NODELAY` is set.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.get().nodelay()
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

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reading(|mut stream| stream.read(buffer))
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.reading(|mut stream| stream.read_vectored(buffers))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.writing(|mut stream| stream.write(buffer))
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writing(|mut stream| stream.write_vectored(buffers))
    }

    /// Does nothing: what has been written is with the system.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(buffers)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(buffers)
    }

    /// Does nothing: what has been written is with the system.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.get().fmt(f)
    }
}

impl From<net::TcpStream> for TcpStream {
    /// Makes the stream non-blocking, which cannot fail for an open socket, and takes over its timeouts.
    fn from(stream: net::TcpStream) -> TcpStream {
        let _ = stream.set_nonblocking(true);
        let read = stream.read_timeout().ok().flatten();
        let write = stream.write_timeout().ok().flatten();
        let stream = TcpStream::from_nonblocking(stream);
        // What `std` reports is never zero.
        let _ = stream.set_read_timeout(read);
        let _ = stream.set_write_timeout(write);
        stream
    }
}

impl From<TcpStream> for net::TcpStream {
    /// Makes the stream blocking, as the standard library's are, and hands its timeouts over.
    fn from(stream: TcpStream) -> net::TcpStream {
        let TcpStream { socket, timeouts } = stream;
        let stream = socket.into_inner();
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(timeouts.read.get());
        let _ = stream.set_write_timeout(timeouts.write.get());
        stream
    }
}

impl From<OwnedFd> for TcpStream {
    fn from(descriptor: OwnedFd) -> TcpStream {
        net::TcpStream::from(descriptor).into()
    }
}

impl From<TcpStream> for OwnedFd {
    /// The descriptor, in blocking mode.
    fn from(stream: TcpStream) -> OwnedFd {
        net::TcpStream::from(stream).into()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.get().as_raw_fd()
    }
}
