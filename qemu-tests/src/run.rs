//! Runs the test binaries: those of one pass while the next one builds, as many at once as there are cores.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::args::Options;
use crate::builds::{Build, Tests};
use crate::compile::{self, TestBinary};
use crate::emulation::{EMULATED, LEFT_OUT, RUNNER};
use crate::host::Host;
use crate::libtest::{self, Counts};
use crate::report::{self, Row};
use crate::targets::Target;

/// The tests of one target, built in one way.
struct Pass<'a> {
    target: &'a Target,
    build: &'static Build,
    /// Holds what each test binary printed.
    logs: PathBuf,
}

impl Pass<'_> {
    /// Its name in progress lines and in the table.
    fn label(&self) -> String {
        match self.build.tests {
            Tests::All => self.target.label(),
            _ => format!("{}, {}", self.target.label(), self.build.name),
        }
    }
}

/// What all threads of a run share.
struct Run<'a> {
    passes: Vec<Pass<'a>>,
    options: &'a Options,
    rows: Mutex<Vec<Row>>,
    /// Set by Ctrl-C. Test binaries do not get it from the terminal, being in process groups of their own.
    interrupted: Arc<AtomicBool>,
}

/// A test binary in the queue, and the pass it is of by its place in [`Run::passes`].
struct Job {
    pass: usize,
    binary: TestBinary,
    runner: Arc<[String]>,
}

/// Builds and runs the tests of all targets and prints the table; true if every target ran and nothing failed.
pub fn all(host: &Host, targets: &[Target], options: &Options) -> Result<bool, String> {
    let folder = compile::target_folder()?.join("qemu");
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))
        .map_err(|error| format!("cannot handle Ctrl-C: {error}"))?;
    let passes: Vec<_> = targets
        .iter()
        .flat_map(|target| options.builds.iter().map(move |&build| (target, build)))
        .map(|(target, build)| Pass { target, build, logs: folder.join(&target.triple).join(build.name) })
        .collect();
    for Pass { logs, .. } in &passes {
        // An old log must not pass for a new one.
        let _ = fs::remove_dir_all(logs);
        fs::create_dir_all(logs).map_err(|error| format!("cannot make the folder {}: {error}", logs.display()))?;
    }
    let rows = Mutex::new(passes.iter().map(|pass| Row::new(pass.label())).collect());
    let run = Run { passes, options, rows, interrupted };

    let (queue, jobs) = mpsc::channel::<Job>();
    let jobs = Mutex::new(jobs);
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    // The lock is held while waiting, so that one thread waits for a job and the others for it.
                    let job = jobs.lock().expect("no thread panics with the queue").recv();
                    match job {
                        Ok(job) => run.binary(&job),
                        Err(_) => break,
                    }
                }
            });
        }
        for index in 0..run.passes.len() {
            if !run.interrupted() {
                run.build(host, index, &queue);
            }
        }
        drop(queue);
    });
    if run.interrupted() {
        return Err("interrupted".to_string());
    }
    let mut rows = run.rows.into_inner().expect("no thread panics with the rows");
    for row in &mut rows {
        row.close(options.filtered());
    }
    check_left_out(&run.passes, options, &mut rows);

    let table = report::table(&rows, targets.iter().any(|target| target.emulated.is_some()));
    print!("\n{table}");
    let all = options.builds.iter().all(|build| build.tests == Tests::All);
    let summary = folder.join(if all { "summary.txt" } else { "builds.txt" });
    fs::write(&summary, &table).map_err(|error| format!("cannot write {}: {error}", summary.display()))?;
    Ok(rows.iter().all(Row::is_green))
}

impl Run<'_> {
    /// Builds a pass and puts its test binaries in the queue; runs the doctests if they are wanted here.
    fn build(&self, host: &Host, index: usize, queue: &mpsc::Sender<Job>) {
        let pass = &self.passes[index];
        println!("{}: building", pass.label());
        let start = Instant::now();
        let built = compile::test_binaries(host, pass.target, pass.build);
        self.row(index, |row| row.built(start.elapsed(), built.as_ref().err()));
        let Ok(binaries) = built else { return };
        let runner: Arc<[String]> = compile::runner(pass.target).into();
        for binary in binaries {
            // The workers end only when the queue has closed, which is after this.
            let job = Job { pass: index, binary, runner: Arc::clone(&runner) };
            queue.send(job).expect("the workers live as long as the queue");
        }
        if pass.target.emulated.is_none() && pass.build.tests == Tests::All {
            self.doctests(host, index);
        }
    }

    /// Doctests run natively alone: they show how to call, and what they call is tested on every target.
    fn doctests(&self, host: &Host, index: usize) {
        let Pass { target, build, .. } = self.passes[index];
        let mut cargo = compile::cargo(host, target, build);
        cargo.args(["test", "--doc"]).args(compile::common_arguments(host, target, build));
        cargo.arg("--").args(&self.options.test_args);
        self.command(index, "doctests", cargo, libtest::doc_summaries);
    }

    fn binary(&self, job: &Job) {
        let Job { pass, binary, runner } = job;
        let mut command = match &runner[..] {
            [] => Command::new(&binary.executable),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&binary.executable);
                command
            }
        };
        command.args(&self.options.test_args);
        if runner.is_empty() {
            command.env_remove(RUNNER).env_remove(EMULATED);
        } else {
            command.args(LEFT_OUT.iter().flat_map(|left_out| ["--skip", left_out.test]));
            command.env(RUNNER, runner.join(" ")).env(EMULATED, "1");
            // Cargo set it for this harness, to folders of the machine's own libraries.
            command.env_remove("LD_LIBRARY_PATH");
        }
        command.current_dir(&binary.package_dir).env("CARGO_MANIFEST_DIR", &binary.package_dir);
        self.command(*pass, &binary.name, command, libtest::summary);
    }

    /// Runs one command with tests in it, says how it went and adds it to its pass's row.
    fn command(&self, index: usize, name: &str, command: Command, summary: impl Fn(&str) -> Option<Counts>) {
        if self.interrupted() {
            return;
        }
        let pass = &self.passes[index];
        let log = pass.logs.join(name.replace([' ', ','], "-") + ".log");
        let start = Instant::now();
        let end = self.execute(command, &log);
        let seconds = start.elapsed().as_secs_f64();
        let output = fs::read(&log).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let (mut counts, problem) = judge(&end, &output, summary);
        if !self.options.filtered() {
            // Only the tests of LEFT_OUT are filtered then, which is not running them.
            counts.ignored += counts.filtered;
        }
        self.row(index, |row| row.ran(counts, problem.is_some(), start));

        let Counts { passed, failed, ignored, .. } = counts;
        let what =
            format!("{}: {name}: {passed} passed, {failed} failed, {ignored} ignored ({seconds:.1} s)", pass.label());
        // One call each, so that what two threads say is not mixed.
        match problem {
            None if passed + ignored == 0 => {}
            None => println!("  ok    {what}"),
            Some(_) if self.interrupted() => {}
            Some(problem) => println!(
                "  FAIL  {what}\n{}\n--- end of what {name} printed, also in {}\n  FAIL  {}: {name} {problem}",
                output.trim_end(),
                log.display(),
                pass.label()
            ),
        }
    }

    /// Runs `command` to its end or the deadline, in a process group of its own so that its children end with it.
    fn execute(&self, mut command: Command, log: &Path) -> End {
        let outputs = File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return End::NotStarted(format!("cannot write {}: {error}", log.display())),
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return End::NotStarted(format!("cannot run {}: {error}", command.get_program().display())),
        };
        let start = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return End::Ended(status),
                Ok(None) => {}
                Err(error) => return End::NotStarted(format!("cannot wait for it: {error}")),
            }
            if start.elapsed() > self.options.deadline || self.interrupted() {
                // Not waited for yet, so the number is still its own.
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return End::Killed(self.options.deadline);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn interrupted(&self) -> bool {
        // A flag alone: nothing else is read on the strength of it.
        self.interrupted.load(Ordering::Relaxed)
    }

    fn row(&self, index: usize, change: impl FnOnce(&mut Row)) {
        change(&mut self.rows.lock().expect("no thread panics with the rows")[index]);
    }
}

/// How a command ended.
#[derive(Debug)]
enum End {
    NotStarted(String),
    Ended(ExitStatus),
    /// At the deadline.
    Killed(Duration),
}

/// The counts of a command that ended so and printed that, and what is wrong with it if anything is. A command that
/// went wrong has one failure at least.
fn judge(end: &End, output: &str, summary: impl Fn(&str) -> Option<Counts>) -> (Counts, Option<String>) {
    let (mut counts, problem) = match end {
        End::NotStarted(why) => (Counts::default(), Some(why.clone())),
        End::Killed(deadline) => {
            let hanging = libtest::hanging_tests(output);
            let which = match hanging.is_empty() {
                true => "`-- --test-threads=1` shows which test hangs".to_string(),
                false => format!("while these tests ran: {}", hanging.join(", ")),
            };
            let problem = format!("did not end within {} s and was killed, {which}", deadline.as_secs());
            (libtest::finished_tests(output), Some(problem))
        }
        End::Ended(status) => match summary(output) {
            Some(counts) if status.success() && counts.failed == 0 => (counts, None),
            Some(counts) if counts.failed > 0 => (counts, Some(format!("has {} failed tests", counts.failed))),
            Some(counts) => (counts, Some(format!("failed outside its tests, with {}", said(status)))),
            None => {
                (libtest::finished_tests(output), Some(format!("ended before its tests had, with {}", said(status))))
            }
        },
    };
    if problem.is_some() && counts.failed == 0 {
        counts.failed = 1;
    }
    (counts, problem)
}

fn said(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}

/// A name in [`LEFT_OUT`] that no native test bears any more is an error: the test it was meant for may be running, or
/// be lost.
fn check_left_out(passes: &[Pass], options: &Options, rows: &mut [Row]) {
    let native = |pass: &Pass| pass.target.emulated.is_none() && pass.build.tests == Tests::All;
    let Some(native) = passes.iter().position(native) else { return };
    if options.filtered() || LEFT_OUT.is_empty() || !rows[native].is_green() {
        return;
    }
    let logs: Vec<String> = fs::read_dir(&passes[native].logs)
        .into_iter()
        .flatten()
        .filter_map(|file| fs::read(file.ok()?.path()).ok())
        .map(|log| String::from_utf8_lossy(&log).into_owned())
        .collect();
    for left_out in LEFT_OUT {
        if !logs.iter().any(|log| libtest::mentions(log, left_out.test)) {
            rows[native]
                .fail(format!("the list of tests left out under emulation names {}, which is none", left_out.test));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEN: &str =
        "test a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished\n";
    const RED: &str = "test a ... FAILED\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished\n";

    fn exit(code: i32) -> End {
        End::Ended(ExitStatus::from_raw(code << 8))
    }

    fn judged(end: End, output: &str) -> (u32, u32, Option<String>) {
        let (counts, problem) = judge(&end, output, libtest::summary);
        (counts.passed, counts.failed, problem)
    }

    #[test]
    fn only_a_green_summary_with_exit_0_is_in_order() {
        assert_eq!(judged(exit(0), GREEN), (1, 0, None));
        assert!(matches!(judged(exit(101), RED), (0, 1, Some(_))));
    }

    #[test]
    fn an_exit_inside_a_test_is_a_failure() {
        let (passed, failed, problem) = judged(exit(0), "test a ... ok\n");
        assert_eq!((passed, failed), (1, 1));
        assert!(problem.unwrap().contains("before its tests had"));
    }

    #[test]
    fn a_crash_after_the_tests_is_a_failure() {
        let (passed, failed, problem) = judged(End::Ended(ExitStatus::from_raw(11)), GREEN);
        assert_eq!((passed, failed), (1, 1));
        assert!(problem.unwrap().contains("signal 11"));
    }

    #[test]
    fn a_hang_is_a_failure() {
        let (passed, failed, problem) = judged(End::Killed(Duration::from_secs(7)), "test a ... ok\n");
        assert_eq!((passed, failed), (1, 1));
        assert!(problem.unwrap().contains("within 7 s"));
    }
}
