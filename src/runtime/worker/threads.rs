//! The threads of workers: started together or not at all, and waited for.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::{Team, Worker};
use crate::driver::Driver;

/// What a thread of a worker is to do.
type Work = Box<dyn FnOnce() + Send>;

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
        Threads::start_by(team, name, drivers, |thread, work| thread.spawn(work))
    }

    fn start_by(
        team: &Arc<Team>,
        name: &str,
        drivers: Vec<Driver>,
        mut spawn: impl FnMut(thread::Builder, Work) -> io::Result<thread::JoinHandle<()>>,
    ) -> io::Result<Threads> {
        let team_size = team.workers();
        let first = team_size - drivers.len();
        let mut started = Threads { team: team.clone(), threads: Vec::new() };
        started.threads.try_reserve_exact(drivers.len())?;
        let (tell, told) = channel();
        for (index, driver) in (first..).zip(drivers) {
            let (team, tell) = (team.clone(), tell.clone());
            let thread = thread::Builder::new().name(format!("{name}-{index}"));
            let work = Box::new(move || work(&team, index, driver, tell));
            match spawn(thread, work) {
                Ok(thread) => started.threads.push(thread),
                Err(error) => return Err(refused(index, team_size, &error)),
            }
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

fn refused(index: usize, workers: usize, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "the thread of worker {index} of {workers} could not be started: {error}: ask for fewer workers, or raise the limit \
             of threads (`ulimit -u`, `pids.max` of the control group) or of memory (`ulimit -v`)"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{Limits, spawn_in};

    #[test]
    fn a_thread_that_cannot_be_had_is_an_error_and_those_that_were_started_have_ended() {
        let team = Team::new(4, Limits { stack_size: switchback::stack::DEFAULT_RESERVE, tasks: usize::MAX });
        let drivers = (0..4).map(|_| Driver::new().unwrap()).collect();
        let mut spawned = 0;
        let ended = Arc::new(());
        let refuse_third = |thread: thread::Builder, work: Work| {
            // As the system does at its limit.
            spawned += 1;
            if spawned == 3 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let held = ended.clone();
            thread.spawn(move || {
                work();
                drop(held);
            })
        };
        let Err(error) = Threads::start_by(&team, "t", drivers, refuse_third) else { panic!("it was started") };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let says = error.to_string();
        assert!(says.starts_with("the thread of worker 2 of 4 could not be started: "), "{says}");
        assert!(says.contains("ask for fewer workers, or raise the limit"), "{says}");
        assert_eq!(Arc::strong_count(&ended), 1, "they have been waited for");
        let task = spawn_in(&team, Default::default(), None, || ());
        assert!(task.join().unwrap_err().is_cancelled());
    }
}
