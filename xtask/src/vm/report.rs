//! What a guest says of itself, line by line: the marks of its first process, and between them what libtest prints.

use std::time::Duration;

/// Begins each line of the guest's first process.
pub(super) const MARK: &str = "rnet-vm:";

/// What a guest has said so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The kernel that runs.
    pub(super) release: Option<String>,
    /// What was run, in order.
    pub(super) steps: Vec<Step>,
    /// The guest has come to its end.
    pub(super) is_over: bool,
}

/// A test binary's run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: String,
    began: Duration,
    /// How long it took.
    pub(super) took: Duration,
    /// Its exit status, once it has ended.
    pub(super) status: Option<i32>,
    pub(super) passed: u32,
    pub(super) failed: u32,
    /// The tests that failed.
    pub(super) failures: Vec<String>,
}

impl Step {
    /// Whether it came to its end, and each of its tests passed.
    pub(super) fn is_good(&self) -> bool {
        self.status == Some(0) && self.failed == 0
    }
}

impl Report {
    /// Takes a line that came so long after the start.
    pub(super) fn take(&mut self, line: &str, at: Duration) {
        match line.strip_prefix(MARK) {
            Some(said) => self.mark(said, at),
            None => self.libtest(line),
        }
    }

    fn mark(&mut self, said: &str, at: Duration) {
        let words: Vec<_> = said.split_whitespace().collect();
        match (words.as_slice(), self.steps.last_mut()) {
            (["kernel", release], _) => self.release = Some((*release).to_owned()),
            (["begin", name], _) => {
                self.steps.push(Step { name: (*name).to_owned(), began: at, ..Step::default() });
            }
            (["end", name, status], Some(step)) if step.name == *name => {
                step.status = status.parse().ok();
                step.took = at - step.began;
            }
            (["over"], _) => self.is_over = true,
            _ => {}
        }
    }

    fn libtest(&mut self, line: &str) {
        let Some(step) = self.steps.last_mut().filter(|step| step.status.is_none()) else { return };
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            step.failures.push(name.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            step.passed = count(counts, "passed");
            step.failed = count(counts, "failed");
        }
    }
}

/// The number before a word: "ok. 6 passed; 0 failed; 0 ignored; …".
fn count(counts: &str, what: &str) -> u32 {
    let words: Vec<_> = counts.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    let number = words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok());
    number.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &str) -> Report {
        let mut report = Report::default();
        for (second, line) in (0..).zip(lines.lines()) {
            report.take(line, Duration::from_secs(second));
        }
        report
    }

    #[test]
    fn a_guest_that_comes_to_its_end() {
        let report = report(
            "rnet-vm: kernel 6.12.117+deb13-cloud-amd64
rnet-vm: begin load
running 1 test
test kernel::starts ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 246 filtered out; finished in 8.10s
rnet-vm: end load 0
rnet-vm: begin e2e
test egress::ping ... FAILED
test egress::tcp ... ok
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 245 filtered out; finished in 9.00s
rnet-vm: end e2e 101
rnet-vm: over",
        );
        assert_eq!(report.release.as_deref(), Some("6.12.117+deb13-cloud-amd64"));
        assert!(report.is_over);
        let [load, e2e] = report.steps.as_slice() else { panic!("{report:?}") };
        assert_eq!((load.passed, load.failed, load.took), (1, 0, Duration::from_secs(4)));
        assert!(load.is_good());
        assert_eq!((e2e.passed, e2e.failed, e2e.status), (1, 1, Some(101)));
        assert_eq!(e2e.failures, ["egress::ping"]);
        assert!(!e2e.is_good());
    }

    #[test]
    fn a_guest_that_ends_early() {
        let report = report("rnet-vm: kernel 7.2\nrnet-vm: begin e2e\ntest a ... ok");
        assert!(!report.is_over);
        assert!(!report.steps[0].is_good());
    }

    #[test]
    fn what_a_test_prints_is_not_taken_for_a_mark_or_a_result() {
        let report = report(
            "test result: ok. 9 passed; 0 failed;
rnet-vm: begin e2e
rnet-vm: end another 0
they said: test result: ok. 9 passed; 0 failed;
rnet-vm: end e2e 1
test late ... FAILED",
        );
        let [e2e] = report.steps.as_slice() else { panic!("{report:?}") };
        assert_eq!((e2e.passed, e2e.status), (0, Some(1)));
        assert!(e2e.failures.is_empty());
    }
}
