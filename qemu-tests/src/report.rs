//! The tables: what a run came to, and what this machine has for each target.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::emulation::LEFT_OUT;
use crate::host::{self, Host, RustStd};
use crate::libtest::Counts;
use crate::targets::Target;

/// What came of a target.
pub struct Row {
    label: String,
    counts: Counts,
    build: Duration,
    /// When its first test binary started and its last one ended.
    ran: Option<(Instant, Instant)>,
    /// Whether any of its binaries went wrong.
    red: bool,
    /// Why it did not run, or does not count.
    problem: Option<String>,
}

impl Row {
    pub fn new(label: String) -> Row {
        Row { label, counts: Counts::default(), build: Duration::ZERO, ran: None, red: false, problem: None }
    }

    /// The build took so long, and failed if there is an error.
    pub fn built(&mut self, time: Duration, error: Option<&String>) {
        self.build = time;
        if let Some(error) = error {
            self.fail(error.clone());
        }
    }

    /// A test binary that started then has just ended.
    pub fn ran(&mut self, counts: Counts, red: bool, start: Instant) {
        self.counts += counts;
        self.red |= red;
        let first = self.ran.map_or(start, |(first, _)| first.min(start));
        self.ran = Some((first, Instant::now()));
    }

    /// All has run: a target on which no test ran is wrong, unless a filter may have left out all.
    pub fn close(&mut self, filtered: bool) {
        if self.counts.passed + self.counts.failed == 0 && !filtered && self.problem.is_none() {
            self.fail("ran no test".to_string());
        }
    }

    /// Counts against the target as one failure, like a test.
    pub fn fail(&mut self, problem: String) {
        self.red = true;
        self.counts.failed += 1;
        self.problem = Some(problem);
    }

    pub fn is_green(&self) -> bool {
        !self.red
    }
}

/// The table of a run, with the sum in its last line.
pub fn table(rows: &[Row], emulated: bool) -> String {
    let mut cells = vec![["target", "passed", "failed", "ignored", "build s", "run s", ""].map(String::from)];
    let mut sum = Counts::default();
    for row in rows {
        let Counts { passed, failed, ignored, .. } = row.counts;
        sum += row.counts;
        let run = row.ran.map_or(Duration::ZERO, |(first, last)| last - first);
        cells.push([
            row.label.clone(),
            passed.to_string(),
            failed.to_string(),
            ignored.to_string(),
            format!("{:.1}", row.build.as_secs_f64()),
            format!("{:.1}", run.as_secs_f64()),
            row.problem.clone().unwrap_or_default(),
        ]);
    }
    let mut text = aligned(&cells);
    if emulated {
        for left_out in LEFT_OUT {
            let _ = writeln!(text, "not run under emulation: {} ({})", left_out.test, left_out.why);
        }
    }
    let _ = writeln!(text, "\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.ignored);
    text
}

/// What this machine has for each of `targets`.
pub fn inventory(host: &Host, targets: &[Target]) -> String {
    let mut cells = vec![["target", "compiler", "C library", "emulator", "Rust std"].map(String::from)];
    for target in targets {
        let Some(emulated) = target.emulated else {
            let none = ["native", "native", "none needed", "native"].map(String::from);
            let [compiler, library, emulator, std] = none;
            cells.push([target.triple.clone(), compiler, library, emulator, std]);
            continue;
        };
        let missing = || "MISSING".to_string();
        let std = match host.rust_std(emulated) {
            Some(RustStd::Prebuilt) => "prebuilt".to_string(),
            Some(RustStd::FromSource) => "built from rust-src".to_string(),
            None => missing(),
        };
        let emulator = host::emulator(emulated);
        cells.push([
            target.triple.clone(),
            host::compiler(emulated).map_or_else(missing, |compiler| compiler.cc.to_string()),
            host::c_library(emulated).map_or_else(missing, |_| host::root(emulated)),
            emulator.map_or_else(missing, |found| format!("{} {}.{}", found.program, found.version.0, found.version.1)),
            std,
        ]);
    }
    let mut text = aligned(&cells);
    for lack in targets.iter().flat_map(|target| host.lacks(target)) {
        let _ = writeln!(text, "{}", lack.message);
    }
    text
}

/// Columns under one another: numbers to the right, words to the left.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            // The heading goes the way of the figures under it.
            let figures = rows.last().is_some_and(|last| last[column].starts_with(|c: char| c.is_ascii_digit()));
            let width = width(column);
            let _ = if figures { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(label: &str, passed: u32, failed: u32, ignored: u32) -> Row {
        let mut row = Row::new(label.to_string());
        row.ran(Counts { passed, failed, ignored, filtered: 0 }, failed > 0, Instant::now());
        row
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let table = table(&[ran("x86_64", 40, 0, 2), ran("arm", 38, 1, 2)], true);
        assert!(table.ends_with("\n78 passed, 1 failed, 4 skipped\n"), "{table}");
    }

    #[test]
    fn a_target_that_did_not_build_is_one_failure() {
        let mut row = Row::new("arm".to_string());
        row.built(Duration::from_secs(3), Some(&"did not build".to_string()));
        row.close(false);
        assert!(!row.is_green());
        let table = table(&[ran("x86_64", 40, 0, 0), row], true);
        assert!(table.contains("did not build") && table.ends_with("\n40 passed, 1 failed, 0 skipped\n"), "{table}");
    }

    #[test]
    fn no_test_at_all_is_a_failure_unless_a_filter_may_be_why() {
        let mut unfiltered = ran("arm", 0, 0, 3);
        unfiltered.close(false);
        assert!(!unfiltered.is_green());
        let mut filtered = ran("arm", 0, 0, 0);
        filtered.close(true);
        assert!(filtered.is_green());
    }

    #[test]
    fn figures_stand_under_one_another() {
        let rows = [["target", "passed"], ["arm", "7"], ["aarch64", "12345678"]].map(|row| row.map(String::from));
        assert_eq!(aligned(&rows), "target     passed\narm             7\naarch64  12345678\n");
    }
}
