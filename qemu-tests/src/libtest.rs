//! What libtest said: the counts in a test binary's output.

use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub ignored: u32,
    /// Not run because of a filter or `--skip`.
    pub filtered: u32,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.filtered += other.filtered;
    }
}

const SUMMARY: &str = "test result: ";

/// The counts of a finished binary. The last summary counts: an earlier one comes from a child that a test started.
/// None if there is no summary, as when the binary crashed or a test ended the process.
pub fn summary(output: &str) -> Option<Counts> {
    counts(&output[output.rfind(SUMMARY)?..])
}

/// The counts of a run of doctests, which prints one summary for each package, or two. None without any.
pub fn doc_summaries(output: &str) -> Option<Counts> {
    let mut sum = None;
    for line in output.lines().filter(|line| line.starts_with(SUMMARY)) {
        *sum.get_or_insert(Counts::default()) += counts(line)?;
    }
    sum
}

/// What is known of a binary that did not reach its summary: the tests it had finished.
pub fn finished_tests(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines().filter(|line| line.starts_with("test ")) {
        if line.ends_with(" ... ok") {
            counts.passed += 1;
        } else if line.ends_with(" ... FAILED") {
            counts.failed += 1;
        } else if line.contains(" ... ignored") {
            counts.ignored += 1;
        }
    }
    counts
}

/// The tests that libtest called slow, after a minute, and that have not ended since.
pub fn hanging_tests(output: &str) -> Vec<&str> {
    let slow = output.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("test ")?.split_once(" has been running for over ")?;
        Some(name)
    });
    slow.filter(|name| !mentions(output, name)).collect()
}

/// Whether the output has a line for the test of this name.
pub fn mentions(output: &str, test: &str) -> bool {
    output.lines().any(|line| {
        let name = line.strip_prefix("test ").and_then(|line| line.strip_prefix(test));
        name.is_some_and(|rest| rest.starts_with(" ... ") || rest.starts_with(" - "))
    })
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s`.
fn counts(text: &str) -> Option<Counts> {
    let (_, numbers) = text.lines().next()?.split_once(". ")?;
    let mut counts = Counts::default();
    let mut read = 0;
    for part in numbers.split("; ") {
        let Some((number, what)) = part.trim_end().split_once(' ') else { continue };
        let into = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" => &mut counts.ignored,
            "filtered out" => &mut counts.filtered,
            _ => continue,
        };
        *into = number.parse().ok()?;
        read += 1;
    }
    (read == 4).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEN: &str = "
running 2 tests
test stack::grows ... ok
test switch::keeps ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

";

    fn counted(passed: u32, failed: u32, ignored: u32) -> Counts {
        Counts { passed, failed, ignored, filtered: 0 }
    }

    #[test]
    fn a_summary_is_read() {
        assert_eq!(summary(GREEN), Some(counted(2, 0, 0)));
        let red =
            "test result: FAILED. 40 passed; 3 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.50s\n";
        assert_eq!(summary(red), Some(counted(40, 3, 2)));
        let some = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.00s\n";
        assert_eq!(summary(some), Some(Counts { filtered: 5, ..counted(2, 0, 0) }));
    }

    #[test]
    fn the_summary_of_a_child_does_not_count() {
        let child = "test result: ok. 99 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(summary(&format!("{child}{GREEN}")), Some(counted(2, 0, 0)));
    }

    #[test]
    fn doctests_of_all_packages_add_up() {
        assert_eq!(doc_summaries(&format!("{GREEN}   Doc-tests switchback\n{GREEN}")), Some(counted(4, 0, 0)));
        assert_eq!(doc_summaries("error: no library\n"), None);
    }

    #[test]
    fn a_crash_has_no_summary_but_what_had_ended_counts() {
        let crashed = "
running 4 tests
test a ... ok
test b ... ignored, needs root
test c ... FAILED
qemu: uncaught target signal 11 (Segmentation fault) - core dumped
";
        assert_eq!(summary(crashed), None);
        assert_eq!(finished_tests(crashed), counted(1, 1, 1));
    }

    #[test]
    fn hanging_tests_are_the_slow_ones_without_an_end() {
        let output = "
test a has been running for over 60 seconds
test b has been running for over 60 seconds
test a ... ok
test c ... ok
";
        assert_eq!(hanging_tests(output), ["b"]);
    }

    #[test]
    fn a_cut_or_foreign_summary_is_none() {
        assert_eq!(summary("test result: ok. 2 pas"), None);
        assert_eq!(summary("test result: ok. many passed; 0 failed; 0 ignored"), None);
        assert_eq!(summary(""), None);
    }

    #[test]
    fn a_test_is_found_by_its_whole_name() {
        assert!(mentions(GREEN, "stack::grows"));
        assert!(mentions("test a - should panic ... ok\n", "a"));
        assert!(!mentions(GREEN, "stack::grow"));
        assert!(!mentions(GREEN, "grows"));
    }
}
