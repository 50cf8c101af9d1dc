//! A report as Markdown.

use super::{Part, Report, Settings, Table};

/// All of a report.
pub(crate) fn report(report: &Report) -> String {
    let mut text = format!("# rnet's benchmark, {}\n\n", report.started);
    if !report.complete {
        text += "**This run did not come to its end**: it was interrupted, is still going on, or parts failed.\n\n";
    }
    if report.settings.quick {
        text += "**A quick run**: it shows that everything works; its figures are nothing to decide by.\n\n";
    }
    text += &run(report);
    for failure in &report.failures {
        text += &format!("\n**{}** could not be measured: {}\n", failure.part, escape(&failure.error));
    }
    for measured in &report.parts {
        text += &part(&measured.part);
    }
    text + "\n" + &reproduce(&report.settings, report.revision.as_deref())
}

/// What was measured, with what and on what.
fn run(report: &Report) -> String {
    let mut rows = Table::new("The run", &["", "what was measured"]);
    let settings = &report.settings;
    let mut row = |name: &str, value: String| rows.row([name.to_owned(), value]);
    row("rnet", report.rnet.clone());
    row("revision", report.revision.clone().unwrap_or_else(|| "not known".to_owned()));
    row("rounds", settings.rounds.to_string());
    row("seed of the random order", settings.seed.to_string());
    row("limited to", if settings.only.is_empty() { "nothing".to_owned() } else { settings.only.join(", ") });
    row("took", format!("{:.0} s", report.seconds));
    row("measured while others used the CPUs", format!("{} times", report.noisy_cells));
    for [name, value] in report.machine.rows() {
        row(&name, value);
    }
    table(&rows)
}

fn part(part: &Part) -> String {
    let mut text = format!("\n## {}\n\n{}\n", part.title, part.about.trim());
    for chart in &part.charts {
        text += &format!("\n![{}]({}.svg)\n", escape(&chart.title), chart.file);
    }
    for it in &part.tables {
        text += &format!("\n### {}\n\n{}", escape(&it.title), table(it));
    }
    text
}

/// A table, with its columns under each other also where it is read as text.
fn table(table: &Table) -> String {
    let lines: Vec<Vec<String>> = std::iter::once(&table.columns)
        .chain(&table.rows)
        .map(|row| row.iter().map(|c| escape(c)).collect())
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let columns: Vec<(usize, bool)> =
        (0..table.columns.len()).map(|column| (width(column), table.is_of_figures(column))).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&columns).map(|(cell, &(width, right))| {
            if right { format!("| {cell:>width$} ") } else { format!("| {cell:<width$} ") }
        });
        cells.collect::<String>() + "|\n"
    };
    let rule = columns.iter().map(|&(width, right)| {
        let dashes = "-".repeat(width - 1);
        if right { format!("| {dashes}: ") } else { format!("| {dashes}- ") }
    });
    let rule = rule.collect::<String>() + "|\n";
    let mut lines = lines.iter();
    let header = lines.next().map(|cells| line(cells)).unwrap_or_default();
    header + &rule + &lines.map(|cells| line(cells)).collect::<String>()
}

/// Text that is shown as it stands, in a cell too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\r' => escaped.push(' '),
            '|' | '\\' | '*' | '_' | '`' | '<' | '[' | ']' => escaped.extend(['\\', c]),
            other => escaped.push(other),
        }
    }
    escaped
}

fn reproduce(settings: &Settings, revision: Option<&str>) -> String {
    let quick = if settings.quick { " --quick" } else { "" };
    let only =
        if settings.only.is_empty() { String::new() } else { format!(" --only {}", settings.only.join(",")) };
    let sources = revision.map(|it| format!(", with the sources at {it}")).unwrap_or_default();
    format!(
        "## To measure this again\n\nOn a machine that has nothing else to do{sources}:\n\n```\ncargo xtask bench{quick} \
         --rounds {} --seed {}{only}\n```\n\nFigures of different machines, or of different runs, are not to be \
         compared; ratios within one run are. What is measured and how: `docs/benchmarks.md`. All figures with their \
         units: `report.json` beside this file.\n",
        settings.rounds, settings.seed
    )
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, *};

    #[test]
    fn what_markdown_would_take_for_its_own_is_escaped() {
        assert_eq!(escape("a|b *c* _d_ `e` <f> [g] \\"), r"a\|b \*c\* \_d\_ \`e\` \<f> \[g\] \\");
        assert_eq!(escape(" two\nlines\n"), "two lines");
    }

    #[test]
    fn columns_stand_under_each_other_with_figures_on_the_right() {
        let mut figures = Table::new("", &["path", "ratio"]);
        figures.row(["iptables|1".to_owned(), "1.00".to_owned()]);
        figures.row(["rnet".to_owned(), "-".to_owned()]);
        figures.row(["×".to_owned(), "12.34".to_owned()]);
        let expected = r"
| path        | ratio |
| ----------- | ----: |
| iptables\|1 |  1.00 |
| rnet        |     - |
| ×           | 12.34 |
";
        assert_eq!(table(&figures), expected.trim_start());
    }

    #[test]
    fn a_report_names_what_was_measured_and_how_to_do_it_again() {
        let text = report(&sample());
        let expected = [
            "# rnet's benchmark, 2030-01-02T03:04:05Z\n",
            "| rnet ",
            "| kernel ",
            "\n## Published ports\n\nThrough one published port.\n\n![Ratio to iptables](published.svg)\n",
            "\n### Connections per second\n\n| path",
            "\n**control** could not be measured: no \\<such> thing\n",
            "with the sources at 0123456789ab:\n\n```\ncargo xtask bench --rounds 5 --seed 42 --only published\n```\n",
        ];
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(text.contains("did not come to its end"), "{text}");
        assert!(!text.contains("quick"), "{text}");
    }
}
