//! What came of each kernel, as a table of Markdown.

use super::{
    plan::{Expected, Step},
    report::{self, Report},
};

/// A line of the table: what was run on a kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    release: String,
    name: String,
    outcome: Outcome,
    seconds: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Tests have passed, as many as there are.
    Passed(u32),
    /// The kernel was refused, as it should.
    Refused,
    /// Nothing of that name, which is fine where names were asked for.
    NoTests,
    /// Tests have failed or not run, or the run has not come to its end.
    Failed { passed: u32, failures: Vec<String> },
}

impl Row {
    pub(super) fn is_good(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed { .. })
    }
}

/// What came of all steps on a kernel; `report` is missing where the guest has not come up.
pub(super) fn rows(release: &str, expected: Expected, steps: &[Step], report: Option<&Report>) -> Vec<Row> {
    // It may be another than the package's name says.
    let booted = report.and_then(|report| report.release.as_deref()).unwrap_or(release);
    let row = |step: &Step| {
        let ran = report.and_then(|report| report.steps.iter().find(|ran| ran.name == step.name));
        let nothing = Outcome::Failed { passed: 0, failures: Vec::new() };
        Row {
            release: booted.to_owned(),
            name: step.name.to_owned(),
            outcome: ran.map_or(nothing, |ran| outcome(expected, step.tests, ran)),
            seconds: ran.map_or(0, |ran| ran.took.as_secs()),
        }
    };
    steps.iter().map(row).collect()
}

fn outcome(expected: Expected, tests: Option<usize>, ran: &report::Step) -> Outcome {
    let passed = ran.passed;
    // A test that has another name by now would be missing from the selection, and nobody would know.
    let all = tests.is_none_or(|tests| tests == passed as usize);
    match (ran.is_good() && all, expected) {
        (false, _) => Outcome::Failed { passed, failures: ran.failures.clone() },
        (true, Expected::IsRefused) => Outcome::Refused,
        (true, Expected::Runs) if passed == 0 => Outcome::NoTests,
        (true, Expected::Runs) => Outcome::Passed(passed),
    }
}

/// The table, and below it the tests that failed.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::from("\n| kernel | what | outcome | seconds |\n|---|---|---|---:|\n");
    for Row { release, name, outcome, seconds } in rows {
        let outcome = match outcome {
            Outcome::Passed(passed) => format!("{passed} passed"),
            Outcome::Refused => "refused".to_owned(),
            Outcome::NoTests => "no such test".to_owned(),
            Outcome::Failed { passed, failures } if failures.is_empty() => {
                format!("FAILED: not all were run, {passed} passed")
            }
            Outcome::Failed { passed, failures } => format!("FAILED: {}, {passed} passed", failures.len()),
        };
        text.push_str(&format!("| {release} | {name} | {outcome} | {seconds} |\n"));
    }
    for Row { release, outcome, .. } in rows {
        if let Outcome::Failed { failures, .. } = outcome {
            failures.iter().for_each(|test| text.push_str(&format!("failed on {release}: {test}\n")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(lines: &str) -> Report {
        let mut report = Report::default();
        lines.lines().for_each(|line| report.take(line, Duration::from_secs(7)));
        report
    }

    fn step(name: &'static str, tests: Option<usize>) -> Step {
        Step { name, program: "e2e", arguments: Vec::new(), tests }
    }

    #[test]
    fn each_step_has_its_line() {
        let report = report(
            "rnet-vm: kernel 6.12.1
rnet-vm: begin loading
test result: ok. 1 passed; 0 failed;
rnet-vm: end loading 0
rnet-vm: begin traffic
test egress::tcp ... FAILED
test result: FAILED. 3 passed; 1 failed;
rnet-vm: end traffic 101",
        );
        let steps = [step("loading", Some(1)), step("traffic", Some(4)), step("later", None)];
        let rows = rows("6.12", Expected::Runs, &steps, Some(&report));
        assert_eq!(rows.iter().map(Row::is_good).collect::<Vec<_>>(), [true, false, false]);
        let wanted = "
| kernel | what | outcome | seconds |
|---|---|---|---:|
| 6.12.1 | loading | 1 passed | 0 |
| 6.12.1 | traffic | FAILED: 1, 3 passed | 0 |
| 6.12.1 | later | FAILED: not all were run, 0 passed | 0 |
failed on 6.12.1: egress::tcp
";
        assert_eq!(text(&rows), wanted);
    }

    #[test]
    fn what_was_selected_must_have_run_and_what_was_asked_for_need_not_be_there() {
        let lines = "rnet-vm: begin packets\ntest result: ok. 0 passed; 0 failed;\nrnet-vm: end packets 0";
        let report = report(lines);
        let of = |tests| rows("6.12", Expected::Runs, &[step("packets", tests)], Some(&report));
        assert_eq!(of(None)[0].outcome, Outcome::NoTests);
        assert!(of(None)[0].is_good());
        assert!(!of(Some(2))[0].is_good());
    }

    #[test]
    fn a_refusal_counts_only_when_its_test_has_run() {
        let steps = [step("refusal", Some(1))];
        let of = |passed| {
            let lines = format!(
                "rnet-vm: begin refusal\ntest result: ok. {passed} passed; 0 failed;\nrnet-vm: end refusal 0"
            );
            rows("6.1", Expected::IsRefused, &steps, Some(&report(&lines)))
        };
        assert_eq!(of(1)[0].outcome, Outcome::Refused);
        assert!(!of(0)[0].is_good());
        assert!(!rows("6.1", Expected::IsRefused, &steps, None)[0].is_good());
    }
}
