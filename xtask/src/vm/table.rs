//! What came of each kernel, as a table of Markdown.

use super::{Expected, Report, guest::Step, report};

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
    /// Tests have failed, or the run has not come to its end.
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
    let row = |(name, ..): &Step| {
        let ran = report.and_then(|report| report.steps.iter().find(|step| step.name == *name));
        Row {
            release: booted.to_owned(),
            name: (*name).to_owned(),
            outcome: ran
                .map_or(Outcome::Failed { passed: 0, failures: Vec::new() }, |ran| outcome(expected, ran)),
            seconds: ran.map_or(0, |ran| ran.took.as_secs()),
        }
    };
    steps.iter().map(row).collect()
}

fn outcome(expected: Expected, step: &report::Step) -> Outcome {
    match (step.is_good(), expected, step.passed) {
        (true, Expected::IsRefused, 1..) => Outcome::Refused,
        (true, Expected::Runs, 1..) => Outcome::Passed(step.passed),
        (true, Expected::Runs, 0) => Outcome::NoTests,
        (true, Expected::IsRefused, 0) | (false, ..) => {
            Outcome::Failed { passed: step.passed, failures: step.failures.clone() }
        }
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
                format!("FAILED: not to its end, {passed} passed")
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

    fn step(name: &'static str) -> Step {
        (name, "e2e", Vec::new())
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
        let steps = [step("loading"), step("traffic"), step("later")];
        let rows = rows("6.12", Expected::Runs, &steps, Some(&report));
        assert_eq!(rows.iter().map(Row::is_good).collect::<Vec<_>>(), [true, false, false]);
        let wanted = "
| kernel | what | outcome | seconds |
|---|---|---|---:|
| 6.12.1 | loading | 1 passed | 0 |
| 6.12.1 | traffic | FAILED: 1, 3 passed | 0 |
| 6.12.1 | later | FAILED: not to its end, 0 passed | 0 |
failed on 6.12.1: egress::tcp
";
        assert_eq!(text(&rows), wanted);
    }

    #[test]
    fn a_refusal_counts_only_when_its_test_has_run() {
        let steps = [step("refusal")];
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
