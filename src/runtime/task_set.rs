//! Several tasks as one: their results as they come, the first failure, the end of all.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::spawn::Builder;
use crate::task::cancel::shield;
use crate::task::handle::{JoinError, JoinHandle};
use crate::task::{self, Cancelled, Unparker};

/// Tasks that belong together, whose results are taken in the order in which they end.
///
/// Dropped, it cancels those that are left ([`JoinHandle::cancel`]) and does not wait for them;
/// [`shutdown`](TaskSet::shutdown) does. It may be filled and emptied in tasks of any runtime, and emptied on plain threads.
///
/// To spawn a task costs what it costs otherwise, one allocation at times, and a short lock here and at the task's end.
///
/// # Examples
///
/// ```
/// use switchback_runtime::{self as rt, TaskSet};
///
/// # fn main() -> std::io::Result<()> {
/// let sum = rt::run(|| {
///     let mut squares = TaskSet::new();
///     for n in 1..=10 {
///         squares.spawn(move || n * n)?;
///     }
///     let mut sum = 0;
///     while let Some(square) = squares.join_next()? {
///         sum += square.unwrap();
///     }
///     Ok::<_, std::io::Error>(sum)
/// })??;
/// assert_eq!(sum, 385);
/// # Ok(()) }
/// ```
pub struct TaskSet<T> {
    /// By their places; a place that is empty is in `free`.
    tasks: Vec<Option<JoinHandle<T>>>,
    free: Vec<usize>,
    len: usize,
    ended: Arc<Mutex<Ended>>,
}

/// What the tasks have to say.
#[derive(Default)]
struct Ended {
    /// The places of those that are ending: there is room for all.
    places: VecDeque<usize>,
    waits: Option<Unparker>,
}

fn lock(ended: &Mutex<Ended>) -> MutexGuard<'_, Ended> {
    // Nothing panics under this lock.
    ended.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Belongs to a task's function: when that has returned, unwound, or been dropped, the task is as good as over.
struct Ends {
    place: usize,
    ended: Arc<Mutex<Ended>>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let mut ended = lock(&self.ended);
        ended.places.push_back(self.place);
        let waits = ended.waits.take();
        drop(ended);
        if let Some(waits) = waits {
            waits.unpark();
        }
    }
}

impl<T> Default for TaskSet<T> {
    fn default() -> TaskSet<T> {
        TaskSet::new()
    }
}

impl<T> TaskSet<T> {
    /// One without tasks. Costs an allocation, without whose memory the process aborts.
    pub fn new() -> TaskSet<T> {
        TaskSet { tasks: Vec::new(), free: Vec::new(), len: 0, ended: Arc::default() }
    }

    /// How many tasks there are whose results have not been taken.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts a task in the set, as [`spawn`](crate::spawn()) does.
    ///
    /// # Errors
    ///
    /// Outside a runtime, or if there is no memory for one more place in the set; `f` is dropped. What else can be refused to a task
    /// is told as its result.
    pub fn spawn<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_with(Builder::new(), f)
    }

    /// As [`spawn`](TaskSet::spawn), with settings.
    ///
    /// # Errors
    ///
    /// As [`spawn`](TaskSet::spawn) and [`Builder::spawn`].
    pub fn spawn_with<F>(&mut self, builder: Builder, f: F) -> io::Result<()>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let place = self.reserve()?;
        let ends = Ends { place, ended: self.ended.clone() };
        let spawned = builder.spawn(move || {
            let _ends = ends;
            f()
        });
        match spawned {
            Ok(task) => {
                self.tasks[place] = Some(task);
                self.len += 1;
                Ok(())
            }
            Err(error) => {
                // Its function was dropped and has said so; it was never one of ours.
                lock(&self.ended).places.retain(|ended| *ended != place);
                self.free.push(place);
                Err(error)
            }
        }
    }

    /// An empty place, with all the memory that its task's end will take.
    fn reserve(&mut self) -> io::Result<usize> {
        if let Some(place) = self.free.pop() {
            return Ok(place);
        }
        let place = self.tasks.len();
        self.tasks.try_reserve(1)?;
        self.free.try_reserve(self.tasks.capacity())?;
        let mut ended = lock(&self.ended);
        let more = self.tasks.capacity().saturating_sub(ended.places.len());
        ended.places.try_reserve(more)?;
        drop(ended);
        self.tasks.push(None);
        Ok(place)
    }

    /// Waits until one of the tasks is over, and takes its result; `None` if none are left.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if the caller is or is out of time. No result is lost.
    pub fn join_next(&mut self) -> Result<Option<Result<T, JoinError>>, Cancelled> {
        while self.len > 0 {
            let mut ended = lock(&self.ended);
            match ended.places.pop_front() {
                Some(place) => {
                    drop(ended);
                    let Some(task) = self.tasks[place].take() else { continue };
                    self.len -= 1;
                    self.free.push(place);
                    // Its function is over, so there is next to nothing to wait for.
                    return Ok(Some(shield(|| task.join())));
                }
                None => {
                    ended.waits = Some(Unparker::current());
                    drop(ended);
                    task::park_cancellable(None)?;
                }
            }
        }
        Ok(None)
    }

    /// Cancels all tasks that are left; their results can be taken still.
    pub fn cancel_all(&self) {
        self.tasks.iter().flatten().for_each(JoinHandle::cancel);
    }

    /// Cancels all tasks that are left and waits for their ends, even if the caller is cancelled. Their results are dropped.
    pub fn shutdown(mut self) {
        self.cancel_all();
        shield(|| while let Ok(Some(_)) = self.join_next() {});
    }

    /// Waits for all tasks, and returns their results in the order in which they ended. Without memory for them the process aborts, as
    /// everywhere with a [`Vec`]; [`join_next`](TaskSet::join_next) needs none.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if the caller is or is out of time: the tasks that are left are cancelled then, and waited for.
    pub fn join_all(mut self) -> Result<Vec<Result<T, JoinError>>, Cancelled> {
        let mut results = Vec::with_capacity(self.len);
        loop {
            match self.join_next() {
                Ok(Some(result)) => results.push(result),
                Ok(None) => return Ok(results),
                Err(cancelled) => {
                    self.shutdown();
                    return Err(cancelled);
                }
            }
        }
    }
}

impl<T, E> TaskSet<Result<T, E>> {
    /// Waits for all tasks to succeed, and returns their values in the order in which they ended. When one fails, the others are
    /// cancelled and waited for.
    ///
    /// # Errors
    ///
    /// What made the first of them fail, or the caller's own cancellation.
    ///
    /// # Examples
    ///
    /// ```
    /// use switchback_runtime::{self as rt, TaskSet, time::{Duration, sleep}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// rt::run(|| {
    ///     let mut set = TaskSet::new();
    ///     set.spawn(|| sleep(Duration::from_secs(3600)).map_err(|_| "was cancelled"))?;
    ///     set.spawn(|| Err("failed first"))?;
    ///     match set.try_join_all() {
    ///         Err(rt::SetError::Failed(error)) => assert_eq!(error, "failed first"),
    ///         other => panic!("{other:?}"),
    ///     }
    ///     Ok(())
    /// })?
    /// # }
    /// ```
    pub fn try_join_all(mut self) -> Result<Vec<T>, SetError<E>> {
        let mut values = Vec::with_capacity(self.len);
        let error = loop {
            match self.join_next() {
                Ok(Some(Ok(Ok(value)))) => values.push(value),
                Ok(None) => return Ok(values),
                Ok(Some(Ok(Err(error)))) => break SetError::Failed(error),
                Ok(Some(Err(error))) => break SetError::Join(error),
                Err(cancelled) => break SetError::Cancelled(cancelled),
            }
        };
        self.shutdown();
        Err(error)
    }
}

impl<T> Drop for TaskSet<T> {
    fn drop(&mut self) {
        self.cancel_all();
    }
}

impl<T> fmt::Debug for TaskSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSet").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Why not all tasks of a set succeeded.
#[derive(Debug)]
pub enum SetError<E> {
    /// One of them returned this error.
    Failed(E),
    /// One of them has no result.
    Join(JoinError),
    /// The caller was cancelled, or out of time.
    Cancelled(Cancelled),
}

impl<E: fmt::Display> fmt::Display for SetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Failed(error) => error.fmt(f),
            SetError::Join(error) => error.fmt(f),
            SetError::Cancelled(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for SetError<E> {}
