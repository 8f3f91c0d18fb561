//! The threads of workers: started together or not at all, and waited for.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::{Team, Worker};
use crate::driver::Driver;

/// Dropping it ends the runtime, and waits for the threads, unless the caller is one of them.
pub(crate) struct Threads {
    team: Arc<Team>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Threads {
    /// Starts a worker for each of the drivers: those with the highest numbers.
    ///
    /// # Errors
    ///
    /// If the system has no thread for one of them, or it cannot begin: all of them are ended then.
    pub(crate) fn start(team: &Arc<Team>, name: &str, drivers: Vec<Driver>) -> io::Result<Threads> {
        let first = team.workers() - drivers.len();
        let mut started = Threads { team: team.clone(), threads: Vec::new() };
        started.threads.try_reserve_exact(drivers.len())?;
        let (tell, told) = channel();
        for (index, driver) in (first..).zip(drivers) {
            let (team, tell) = (team.clone(), tell.clone());
            let thread = thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || work(&team, index, driver, tell))
                .map_err(|error| refused(index, &started.team, &error))?;
            started.threads.push(thread);
        }
        drop(tell);
        // Each says that it begins, or why it cannot.
        told.iter().collect::<io::Result<()>>()?;
        Ok(started)
    }

    pub(crate) fn team(&self) -> &Arc<Team> {
        &self.team
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.team.end(None);
        let here = thread::current().id();
        if self.threads.iter().any(|thread| thread.thread().id() == here) {
            // A task of the runtime cannot wait for its own end.
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.team.end(Some(panicked()));
            }
        }
    }
}

fn refused(index: usize, team: &Team, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "the thread of worker {index} of {} could not be started: {error}: ask for fewer workers, or raise the limit \
             of threads (`ulimit -u`, `pids.max` of the control group) or of memory (`ulimit -v`)",
            team.workers()
        ),
    )
}

fn panicked() -> io::Error {
    io::Error::other("a worker panicked in code of its own, which is a bug in this crate")
}

/// What the thread of a worker does.
fn work(team: &Arc<Team>, index: usize, driver: Driver, tell: Sender<io::Result<()>>) {
    let worker = match Worker::new(team, index, driver) {
        Ok(worker) => worker,
        Err(error) => {
            // Nobody listens if another has failed before.
            let _ = tell.send(Err(error));
            return;
        }
    };
    let _ = tell.send(Ok(()));
    drop(tell);
    match catch_unwind(AssertUnwindSafe(|| worker.until(|| false))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => team.end(Some(error)),
        Err(_) => team.end(Some(panicked())),
    }
}
