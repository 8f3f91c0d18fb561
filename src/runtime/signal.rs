//! Waiting for the signals of the operating system in a task, as for any other event.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, consts, flag};

use crate::driver::Direction;
use crate::net::Socket;

/// The terminal has been closed; by custom, read the configuration anew.
pub const SIGHUP: i32 = consts::SIGHUP;
/// Ctrl-C.
pub const SIGINT: i32 = consts::SIGINT;
/// Please end.
pub const SIGTERM: i32 = consts::SIGTERM;
/// For the program to give a meaning to.
pub const SIGUSR1: i32 = consts::SIGUSR1;
/// For the program to give a meaning to.
pub const SIGUSR2: i32 = consts::SIGUSR2;

/// Takes signals in, from its creation until it is dropped.
///
/// Several may be active at once, also for the same signal; each gets it. As always with signals, several of a kind
/// that come before they are waited for count as one. While any is active the default action (to end the process, say)
/// does not happen, and it does not come back afterwards: a signal nobody takes in any more is then ignored.
///
/// # Examples
///
/// ```no_run
/// use switchback_runtime::{self as rt, signal::{SIGINT, SIGTERM, Signals}};
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let signals = Signals::new(&[SIGINT, SIGTERM])?;
///     // ... spawn the tasks that do the work ...
///     let signal = signals.wait()?;
///     println!("ending in order, because of signal {signal}");
///     Ok(())
/// })?
/// # }
/// ```
pub struct Signals {
    pending: Vec<Pending>,
    /// The handlers write a byte to the other end of this pair.
    news: Socket<UnixStream>,
}

struct Pending {
    signal: i32,
    arrived: Arc<AtomicBool>,
    registered: [SigId; 2],
}

impl Signals {
    /// Begins to take in the given signals (`SIGINT` and so on, as the system numbers them).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a number that is no signal or a signal that cannot be caught or must not be (`SIGKILL`,
    /// `SIGSTOP`, `SIGILL`, `SIGFPE`, `SIGSEGV`); otherwise, if no descriptors are left.
    pub fn new(signals: &[i32]) -> io::Result<Signals> {
        if let Some(signal) = signals.iter().find(|signal| consts::FORBIDDEN.contains(signal)) {
            let message = format!("signal {signal} cannot be waited for: it cannot be caught, or concerns one thread");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let (news, writer) = UnixStream::pair()?;
        news.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let mut this = Signals { pending: Vec::with_capacity(signals.len()), news: Socket::new(news) };
        for &signal in signals {
            let arrived = Arc::new(AtomicBool::new(false));
            // Actions run in the order of their registration: the flag is up before the byte is there.
            let raised = flag::register(signal, arrived.clone())?;
            let told = writer.try_clone().and_then(|writer| pipe::register(signal, writer)).inspect_err(|_| {
                unregister(raised);
            })?;
            this.pending.push(Pending { signal, arrived, registered: [raised, told] });
        }
        Ok(this)
    }

    /// Waits until one of the signals comes, or has come since the last wait, and returns its number.
    ///
    /// If several tasks wait on the same `Signals`, one of them gets it. A plain thread blocks.
    ///
    /// # Errors
    ///
    /// If no more descriptors can be watched.
    pub fn wait(&self) -> io::Result<i32> {
        self.news.perform(Direction::Read, None, |mut news| {
            // The bytes first, then the flags: a signal that comes between is found in the flags, and its byte only
            // makes a later wait look once more.
            let drained = drain(&mut news);
            for pending in &self.pending {
                // Acquire: pairs with the store in the handler, so that what its thread did before is seen.
                if pending.arrived.swap(false, Ordering::Acquire) {
                    return Ok(pending.signal);
                }
            }
            drained?;
            Err(io::ErrorKind::WouldBlock.into())
        })
    }
}

/// Reads whatever is there.
fn drain(news: &mut &UnixStream) -> io::Result<()> {
    loop {
        match news.read(&mut [0; 64]) {
            // All writers are gone: there are no signals to wait for, and none will come.
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for pending in &self.pending {
            for id in pending.registered {
                unregister(id);
            }
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pending.iter().map(|pending| pending.signal)).finish()
    }
}
