//! Work that blocks its thread: a foreign library's call, a file system, a long computation. It is done on threads of its own,
//! so that no worker stands still for it.

use std::collections::VecDeque;
use std::io;
use std::panic::resume_unwind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::task::cancel::shield;
use crate::task::handle::{Cause, JoinHandle};
use crate::task::{self, Reference};

/// The most threads at once, as in tokio: what they do is to wait, as a rule.
const MOST_THREADS: usize = 512;

/// How long a thread waits for the next work before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls `f` on a thread where it may block, and leaves it to that. The handle is that of a task, and works on plain threads too.
///
/// There are up to 512 such threads in a process, which all runtimes share. They are started when work comes and none is idle, and end
/// when there has been none for ten seconds. More work than that waits its turn, in the order in which it came: so it must not wait
/// for work that comes later. Work in its turn that is [cancelled](JoinHandle::cancel) is dropped; what runs is not interrupted, and
/// goes on when the runtime that asked for it ends. If no thread can be had and there is none, the handle says so.
///
/// Costs an allocation, a lock, and a system call or two.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// let manifest = rt::run(|| rt::spawn_blocking(|| std::fs::read_to_string("Cargo.toml")).join().unwrap())??;
/// assert!(manifest.contains("[package]"));
/// # Ok(()) }
/// ```
pub fn spawn_blocking<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: nothing is borrowed.
    match unsafe { submit(f, task::refuse_off_worker) } {
        Ok(work) => work,
        Err(_function) => JoinHandle::refused(None, Cause::NoMemory),
    }
}

/// Calls `f`, which may block, on another thread, and waits: the other tasks of this worker run meanwhile. On a plain thread, and where
/// no other thread can be had, it calls it right here.
///
/// `f` may borrow, since it is over when this returns, but it sees the thread-locals of the other thread. It is waited for even if the
/// task is cancelled, and if the runtime ends, which then takes as long as `f` does; so `f` must not wait for tasks.
///
/// Costs what [`spawn_blocking`] does.
///
/// # Panics
///
/// If `f` does, with its payload.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// let mut numbers = vec![3, 1, 2];
/// rt::run(|| rt::block_in_place(|| numbers.sort()))?;
/// assert_eq!(numbers, [1, 2, 3]);
/// # Ok(()) }
/// ```
pub fn block_in_place<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    /// Does not let go of what the work borrows before it is over, also when the waiting task is unwound.
    struct Lent<T>(Option<JoinHandle<T>>);

    impl<T> Drop for Lent<T> {
        fn drop(&mut self) {
            let Some(work) = &self.0 else { return };
            while !work.is_finished() {
                // The work knows already whom to unpark, since the wait that was unwound has told it.
                task::park();
            }
        }
    }

    if !task::can_suspend() {
        return f();
    }
    // SAFETY: it is over before this returns or unwinds.
    let mut lent = match unsafe { submit(f, |work, _| task::run_off_worker(work)) } {
        Ok(work) => Lent(Some(work)),
        Err(f) => return f(),
    };
    if let Some(work) = &lent.0 {
        // Shielded, it can be ended by nothing but unwinding.
        let _ = shield(|| work.wait(None));
    }
    let result = match lent.0.take() {
        Some(work) => work.join(),
        None => unreachable!("the work is lent once"),
    };
    match result {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(error) => unreachable!("nobody else has a handle to cancel it: {error}"),
        },
    }
}

#[derive(Default)]
struct State {
    /// In the order in which it came.
    work: VecDeque<Reference>,
    threads: usize,
    /// Those of them that wait for work.
    idle: usize,
}

static STATE: Mutex<State> = Mutex::new(State { work: VecDeque::new(), threads: 0, idle: 0 });
static WORK_HAS_COME: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, State> {
    // Nothing panics under this lock.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `f` called on one of the threads; if there is none, `instead` gets the work.
///
/// # Errors
///
/// If there is no memory: `f` is given back.
///
/// # Safety
///
/// What `f` and its result borrow must stay until the handle says that the work is over.
unsafe fn submit<F, T>(f: F, instead: impl FnOnce(Reference, Cause)) -> Result<JoinHandle<T>, F>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    let [work, handles] = task::new(None, None, 0, f).map_err(|(_, f)| f)?;
    if let Err((work, cause)) = enqueue(work) {
        instead(work, cause);
    }
    Ok(JoinHandle::new(handles))
}

/// Puts work into the queue, with a thread for it, now or later.
fn enqueue(work: Reference) -> Result<(), (Reference, Cause)> {
    let this = work.as_ptr();
    let mut state = lock();
    if state.work.try_reserve(1).is_err() {
        return Err((work, Cause::NoMemory));
    }
    state.work.push_back(work);
    if state.idle >= state.work.len() || state.threads == MOST_THREADS {
        drop(state);
        WORK_HAS_COME.notify_one();
        return Ok(());
    }
    state.threads += 1;
    drop(state);
    let Err(error) = start_thread() else { return Ok(()) };
    let mut state = lock();
    state.threads -= 1;
    if state.threads > 0 {
        // With others there it waits its turn.
        return Ok(());
    }
    // If it is not there, others have come meanwhile, and one has taken it.
    match state.work.iter().position(|work| work.as_ptr() == this).and_then(|place| state.work.remove(place)) {
        Some(work) => Err((work, Cause::NoThread(error))),
        None => Ok(()),
    }
}

fn start_thread() -> io::Result<()> {
    #[cfg(test)]
    if tests::REFUSED.get() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    thread::Builder::new().name("switchback-blocking".to_owned()).spawn(serve).map(drop)
}

/// What each thread does.
fn serve() {
    let mut state = lock();
    loop {
        if let Some(work) = state.work.pop_front() {
            drop(state);
            task::run_off_worker(work);
            state = lock();
            continue;
        }
        state.idle += 1;
        let (woken, waited) = WORK_HAS_COME.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        if waited.timed_out() && state.work.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// This thread gets no thread.
        pub(super) static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn without_a_thread_it_is_refused_or_done_here_and_with_one_it_waits_its_turn() {
        REFUSED.set(true);
        let error = spawn_blocking(|| ()).join().unwrap_err();
        assert!(error.to_string().contains("thread"), "{error}");
        let here = thread::current().id();
        crate::Runtime::builder()
            .workers(1)
            .run(|| {
                assert_eq!(block_in_place(|| thread::current().id()), here);
                let panics = std::panic::catch_unwind(|| block_in_place(|| std::panic::resume_unwind(Box::new(5))));
                assert_eq!(panics.unwrap_err().downcast_ref(), Some(&5));
            })
            .unwrap();
        assert_eq!(lock().work.len(), 0, "what was refused is not left in the queue");

        REFUSED.set(false);
        let (go, goes) = std::sync::mpsc::channel();
        let first = spawn_blocking(move || goes.recv().unwrap());
        while !lock().work.is_empty() {
            thread::yield_now();
        }
        REFUSED.set(true);
        let second = spawn_blocking(|| 2);
        go.send(1).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 2));
    }
}
