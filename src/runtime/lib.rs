//! A runtime of stackful coroutines: code written for blocking I/O serves many thousands of connections at once.
//!
//! Each task is a coroutine with a stack of its own. What would block a thread (a read, a sleep, a join) parks the task
//! instead, and the others run meanwhile. The names and shapes are the standard library's.
//!
//! ```
//! use std::io::{self, Read, Write};
//! use switchback_runtime::{self as rt, net::{TcpListener, TcpStream}};
//!
//! fn main() -> io::Result<()> {
//!     rt::run(|| {
//!         let listener = TcpListener::bind("127.0.0.1:0")?;
//!         let address = listener.local_addr()?;
//!
//!         // A task per connection, each of them plain blocking-style code.
//!         rt::spawn(move || {
//!             for stream in listener.incoming().flatten() {
//!                 rt::spawn(move || io::copy(&mut &stream, &mut &stream));
//!             }
//!         });
//!
//!         let mut client = TcpStream::connect(address)?;
//!         client.write_all(b"echo")?;
//!         let mut answer = [0; 4];
//!         client.read_exact(&mut answer)?;
//!         assert_eq!(&answer, b"echo");
//!         Ok(())
//!     })?
//! }
//! ```
//!
//! # How it behaves
//!
//! - A runtime has a worker, which is a thread, for each processor that the process may use, unless it is told otherwise
//!   ([`RuntimeBuilder::workers`]); the thread that called [`run`] is the first. A process may have several runtimes; sockets,
//!   handles and [`Unparker`](task::Unparker)s may be moved between workers and runtimes.
//! - A task that has not begun is taken by whichever worker has time for it. One that has begun stays on its thread, so
//!   `thread_local!`, `Rc` and lock guards behave as in a thread whose other tasks run while it waits. So do not wait inside
//!   the initialiser of a `thread_local!`; the safety model of [`switchback`] says why.
//! - Tasks are switched only where they wait (or yield). One that computes for long keeps those waiting that have begun on
//!   the same worker.
//! - What blocks a thread outside this crate (a file, a foreign library, a long computation) goes to a thread of its own:
//!   [`spawn_blocking`], [`block_in_place`].
//! - Everything here works in plain threads too, where it blocks the thread as the standard library does.
//! - A task that is cancelled ([`JoinHandle::cancel`]), and code whose time is up ([`timeout`]), is told by an error of the call
//!   that waits, and of every one after it: see [`Cancelled`]. [`task::park()`] alone waits on; [`task::park_cancellable`] does not.
//! - A task that is unwinding never switches: a socket or a sleep used in a destructor during a panic blocks the worker.
//! - What runs out (memory for stacks, mappings, descriptors) is an error of the call that needed it.
//!
//! # Rooms
//!
//! | module | what it is | what it knows |
//! |---|---|---|
//! | [`task`] | the task header, parking, whose turn it is, join handles | the primitive crate |
//! | `driver` | epoll, and poll for whoever cannot park | `task` |
//! | `worker` | inbox, timers, stacks, the loop; several workers as a team | `driver` and `task` |
//! | the rest | [`run`], [`spawn()`], [`TaskSet`], [`spawn_blocking`], [`net`], [`time`], [`signal`] | those above |
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod blocking;
mod driver;
mod handle;
mod interval;
mod metrics;
pub mod net;
mod runtime;
pub mod signal;
mod spawn;
pub mod task;
mod task_set;
pub mod time;
mod worker;

pub use blocking::{block_in_place, spawn_blocking};
pub use handle::Handle;
pub use metrics::{Metrics, WorkerMetrics, metrics};
pub use runtime::{Runtime, RuntimeBuilder, run};
pub use spawn::{Builder, spawn, spawn_local};
pub use task::cancel::{Cancelled, Elapsed, check_cancelled, shield, timeout, timeout_at};
pub use task::handle::{JoinError, JoinHandle};
pub use task::yield_now;
pub use task_set::{SetError, TaskSet};

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
