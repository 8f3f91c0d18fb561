//! A web server for the files of a directory: a coroutine per connection, written as if each had a thread.
//!
//! | file | its job |
//! |---|---|
//! | `mod.rs` | accepts connections, knows which are open, ends in order |
//! | `connection.rs` | reads requests and sends answers until a connection ends |
//! | `request.rs` | one request head: its syntax, its limits, where its body ends |
//! | `answer.rs` | chooses and writes answers |
//! | `files.rs`, `listing.rs` | from a path to a file, or to the listing of a directory |
//! | `conditions.rs` | 304, 206 and 412 |
//! | `status.rs`, `status.html` | `/status` and the figures behind it |

mod answer;
mod conditions;
mod connection;
mod files;
mod listing;
mod request;
mod status;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchback_runtime as rt;
use switchback_runtime::net::{TcpListener, TcpStream};
use switchback_runtime::signal::Signals;
use switchback_runtime::time::{Duration, Instant};

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the first byte of a request to the end of its head; and from a connection to its first byte.
    pub head: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub idle: Duration,
    /// For the whole body of a request.
    pub body: Duration,
    /// For the client to take one piece of an answer, of up to 64 KiB.
    pub write: Duration,
    /// From our closing a connection to the client's doing so.
    pub linger: Duration,
    /// From the word to stop to the end of the last answer.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            drain: Duration::from_secs(10),
        }
    }
}

/// What all connections share.
struct Shared {
    site: files::Site,
    limits: Limits,
    clock: answer::Clock,
    counts: status::Counts,
    /// Set once: answers from then on say that they are the last on their connection.
    stopping: AtomicBool,
    /// How many connections were not waiting for a request when it was set.
    busy_at_stop: AtomicUsize,
    /// The open connections.
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
}

/// An open connection, as others see it.
struct Peer {
    stream: TcpStream,
    /// Whether it waits for a request to begin.
    idle: AtomicBool,
}

/// A server that listens and does not serve yet.
pub struct Server {
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
}

impl Server {
    /// Listens on `addr` to serve the files under `root`, or the built-in page if there is none.
    ///
    /// # Errors
    ///
    /// Fails with a sentence for the user if the address cannot be listened on or the directory cannot be read.
    pub fn bind(addr: &str, root: Option<PathBuf>, limits: Limits) -> io::Result<Server> {
        let site = files::Site::open(root.as_deref()).map_err(|error| {
            let root = root.unwrap_or_default();
            io::Error::new(error.kind(), format!("cannot serve the directory {}: {error}", root.display()))
        })?;
        let listener = TcpListener::bind(addr).map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::AddrInUse => "; choose another address, or port 0 for any free one",
                _ => "",
            };
            io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}{remedy}"))
        })?;
        let shared = Shared {
            site,
            limits,
            clock: answer::Clock::new(),
            counts: status::Counts::new(),
            stopping: AtomicBool::new(false),
            busy_at_stop: AtomicUsize::new(0),
            peers: Mutex::default(),
        };
        Ok(Server { listener: Arc::new(listener), shared: Arc::new(shared) })
    }

    /// The address listened on, with its real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What stops the server, from any coroutine or thread.
    pub fn handle(&self) -> Handle {
        Handle { listener: Arc::clone(&self.listener), shared: Arc::clone(&self.shared) }
    }

    /// Serves until it is told to stop, and then until the open answers have been sent.
    pub fn serve(self) -> Stopped {
        let shared = Arc::clone(&self.shared);
        rt::spawn(move || status::sample(&shared));
        self.accept_until_stopped();
        self.drain()
    }

    fn accept_until_stopped(&self) {
        /// Out of descriptors, there is nothing to do but to wait for one: often enough to go unnoticed, seldom
        /// enough to cost nothing.
        const RETRY: Duration = Duration::from_millis(50);
        let mut complaints = Complaints::default();
        let mut next = 0;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.admit(stream, next) {
                        complaints.log("a connection was closed at once", &error);
                    }
                    next += 1;
                }
                Err(_) if self.shared.stopping.load(Ordering::SeqCst) => break,
                // The client was gone before it was its turn.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    complaints.log("new connections have to wait", &error);
                    if rt::time::sleep(RETRY).is_err() {
                        break;
                    }
                }
            }
        }
    }

    /// Gives a connection a coroutine of its own.
    fn admit(&self, stream: TcpStream, number: u64) -> io::Result<()> {
        // Answers are sent whole; what is left of one in the last packet must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        let peer = Arc::new(Peer { stream, idle: AtomicBool::new(true) });
        let listed = Listed::new(&self.shared, number, &peer);
        rt::Builder::new().name(format!("connection {number}")).spawn(move || {
            connection::serve(&listed.shared, &peer);
        })?;
        Ok(())
    }

    /// Waits for the connections that are still open, but not for ever.
    fn drain(self) -> Stopped {
        /// Nobody waits for the last connection to end within less than this.
        const GLANCE: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + self.shared.limits.drain;
        let mut cancelled = false;
        loop {
            let left = lock(&self.shared.peers).len();
            if left == 0 || cancelled || Instant::now() >= deadline {
                let counts = &self.shared.counts;
                return Stopped {
                    finished: self.shared.busy_at_stop.load(Ordering::Relaxed).saturating_sub(left),
                    cut_off: left,
                    requests: counts.requests.load(Ordering::Relaxed),
                    connections: counts.accepted.load(Ordering::Relaxed),
                };
            }
            // If the task is cancelled, the rest is for the end of the runtime to cut off.
            cancelled = rt::time::sleep(GLANCE).is_err();
        }
    }
}

/// What stops a [`Server`].
pub struct Handle {
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
}

impl Handle {
    /// No connection is accepted any more, those that wait for a request end, all others end with their answer.
    pub fn stop(&self) {
        // Before `idle` is read: see `Connection::read_while_idle`.
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        // Wakes the coroutine in `accept`, which then fails.
        let _ = socket2::SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        for peer in lock(&self.shared.peers).values() {
            if peer.idle.load(Ordering::SeqCst) {
                // Its read returns as if the client had closed.
                let _ = peer.stream.shutdown(Shutdown::Read);
            } else {
                self.shared.busy_at_stop.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Stops the server at the first signal, ends the process at the second.
    pub fn stop_at(&self, signals: &Signals) -> io::Result<()> {
        signals.wait()?;
        eprintln!("stopping: open answers are finished first; the same signal again ends at once");
        self.stop();
        let signal = signals.wait()?;
        // What a shell says of a program that a signal has ended.
        std::process::exit(128 + signal);
    }
}

/// How a server ended.
#[derive(Debug)]
pub struct Stopped {
    /// Connections that were busy when the server was told to stop, and ended by themselves.
    pub finished: usize,
    /// Connections that took too long to do so.
    pub cut_off: usize,
    /// Requests since the start.
    pub requests: u64,
    /// Connections since the start.
    pub connections: u64,
}

/// A connection's place among the open ones, for as long as its task lives, however that ends.
struct Listed {
    shared: Arc<Shared>,
    number: u64,
}

impl Listed {
    fn new(shared: &Arc<Shared>, number: u64, peer: &Arc<Peer>) -> Listed {
        lock(&shared.peers).insert(number, Arc::clone(peer));
        shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
        Listed { shared: Arc::clone(shared), number }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.shared.peers).remove(&self.number);
    }
}

/// Says what goes wrong without saying it thousands of times.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
}

impl Complaints {
    fn log(&mut self, what: &str, error: &io::Error) {
        const PAUSE: Duration = Duration::from_secs(60);
        if self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.last = Some(Instant::now());
            let remedy = if is_out_of_descriptors(error) { "; raise the limit with ulimit -n" } else { "" };
            eprintln!("{what}: {error}{remedy} (not said again for {} s)", PAUSE.as_secs());
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.raw_os_error().is_some_and(|code| [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&code))
}

/// No lock here is held across a wait, and none guards anything that a panic leaves half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
