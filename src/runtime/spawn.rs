//! Starting tasks.

use std::io;

use crate::handle::Handle;
use crate::task::handle::JoinHandle;
use crate::worker::{self, Settings};

/// Starts a task. The handle waits for it and has its result; dropped, it leaves the task to itself.
///
/// The task begins when its turn comes, not now: on this worker or, if that is busy and another is not, on that one; and
/// there it stays. A stack of the default size is acquired when it begins; if there is none, the
/// handle tells so. When the runtime is ending, `f` is dropped at once, and the handle says that it was cancelled.
///
/// Costs one allocation, with several workers a short lock and perhaps a system call that wakes one, and a stack when the task begins: some system calls, unless one is kept from a task that is
/// over.
///
/// # Panics
///
/// Outside a runtime. [`Builder::spawn`] returns an error instead.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let task = rt::spawn(|| -> u8 { panic!("as an error") });
///     let error = task.join().unwrap_err();
///     assert!(error.is_panic());
///     assert_eq!(error.into_panic().downcast_ref(), Some(&"as an error"));
/// })
/// # }
/// ```
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// As [`spawn`], for a task that begins on the worker of the caller, and so need not be [`Send`].
///
/// # Panics
///
/// Outside a runtime. [`Builder::spawn_local`] returns an error instead.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let shared = Rc::new(5);
///     let task = rt::spawn_local({
///         let shared = shared.clone();
///         move || *shared + 1
///     });
///     assert_eq!(task.join().unwrap(), 6);
/// })
/// # }
/// ```
#[track_caller]
pub fn spawn_local<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    match Builder::new().spawn_local(f) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// A task with settings of its own, as [`std::thread::Builder`] is for threads.
///
/// # Examples
///
/// ```
/// use switchback_runtime as rt;
///
/// # fn main() -> std::io::Result<()> {
/// rt::run(|| {
///     let deep = rt::Builder::new().name("deep".to_owned()).stack_size(1 << 20).spawn(|| {
///         fn depth(n: u32) -> u32 { if n == 0 { 0 } else { 1 + std::hint::black_box(depth(n - 1)) } }
///         depth(2_000)
///     })?;
///     assert_eq!(deep.join().unwrap(), 2_000);
///     Ok(())
/// })?
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    settings: Settings,
    on: Option<usize>,
}

impl Builder {
    /// A task without a name, with a stack of the size that the runtime's tasks have
    /// ([`RuntimeBuilder::stack_size`](crate::RuntimeBuilder::stack_size)), on any worker.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the task, for errors, [`task::name`](crate::task::name), and the report of an overflow of its stack.
    pub fn name(mut self, name: String) -> Builder {
        self.settings.name = Some(name.into_boxed_str());
        self
    }

    /// How far the task's stack can grow, in bytes; rounded up to whole pages. Memory is used for what is touched only.
    ///
    /// A size that cannot be had is not noticed here, nor by [`spawn`](Builder::spawn), but when the task begins, and
    /// told by its handle. Stacks of other than the default size are not kept for reuse.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Places the task on one worker of its runtime, by its number: 0 is that of the thread that called
    /// [`run`](crate::run), if the runtime was made so.
    ///
    /// ```
    /// # use switchback_runtime as rt;
    /// # fn main() -> std::io::Result<()> {
    /// rt::Runtime::builder().workers(2).run(|| {
    ///     let home = std::thread::current().id();
    ///     let [near, far] = [0, 1].map(|worker| rt::Builder::new().on(worker).spawn(|| std::thread::current().id()));
    ///     assert!(near?.join().unwrap() == home && far?.join().unwrap() != home);
    ///     Ok(())
    /// })?
    /// # }
    /// ```
    pub fn on(mut self, worker: usize) -> Builder {
        self.on = Some(worker);
        self
    }

    /// Starts the task, as [`spawn`] does.
    ///
    /// # Errors
    ///
    /// Outside a runtime, or if there is no such worker as asked for; `f` is dropped.
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.on {
            None => worker::spawn(self.settings, f).ok_or_else(outside),
            Some(_) => self.spawn_on(&Handle::try_current().ok_or_else(outside)?, f),
        }
    }

    /// Starts the task in the runtime of the handle, from any thread.
    ///
    /// # Errors
    ///
    /// If there is no such worker as asked for; `f` is dropped.
    pub fn spawn_on<F, T>(self, runtime: &Handle, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Builder { settings, on } = self;
        let workers = runtime.team().workers();
        match on {
            Some(worker) if worker >= workers => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("there is no worker {worker}: the runtime has {workers}, counted from 0"),
            )),
            on => Ok(worker::spawn_in(runtime.team(), settings, on, f)),
        }
    }

    /// Starts the task, as [`spawn_local`] does.
    ///
    /// # Errors
    ///
    /// Outside a runtime, or if another worker than the caller's was asked for; `f` is dropped.
    pub fn spawn_local<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let here = worker::current_index().ok_or_else(outside)?;
        match self.on {
            Some(worker) if worker != here => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a task that is local to worker {here} cannot be placed on worker {worker}"),
            )),
            _ => worker::spawn_local(self.settings, f).ok_or_else(outside),
        }
    }
}

fn outside() -> io::Error {
    io::Error::other("no runtime runs on this thread: spawn inside `switchback_runtime::run`, or with a `Handle`")
}
