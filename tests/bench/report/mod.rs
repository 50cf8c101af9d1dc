//! What a run found: tables for people, figures for programs.

mod chart;
mod folder;
mod markdown;
mod svg;
pub(crate) mod terminal;

use serde::Serialize;
use serde_json::Value;

pub(crate) use self::{
    chart::{Bar, Chart, Group, Spread},
    folder::Folder,
};
use crate::machine::Machine;

/// The layout of `report.json`; another number is another layout.
pub(crate) const FORMAT: u32 = 1;

/// What one run of the benchmark found, as far as it has come.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// What the measured `rnet` says of its version.
    pub(crate) rnet: String,
    /// The revision of the sources, when they are known to be in a repository.
    pub(crate) revision: Option<String>,
    /// When the run began, in UTC by RFC 3339.
    pub(crate) started: String,
    /// How long it has taken so far.
    pub(crate) seconds: f64,
    /// Everything that was asked for has been measured.
    pub(crate) complete: bool,
    /// What was asked for.
    pub(crate) settings: Settings,
    /// How often something was measured although others were using the CPUs.
    pub(crate) noisy_cells: u32,
    pub(crate) machine: Machine,
    /// What has been measured.
    pub(crate) parts: Vec<Measured>,
    /// What could not be.
    pub(crate) failures: Vec<Failure>,
}

/// What a run is asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    /// Few rounds, short cells, small counts.
    pub(crate) quick: bool,
    /// How often each cell is measured.
    pub(crate) rounds: u32,
    /// What the random order of paths comes from.
    pub(crate) seed: u32,
    /// The names that it is limited to.
    pub(crate) only: Vec<String>,
}

/// A part and how long it took.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(crate) part: Part,
    pub(crate) seconds: f64,
}

/// A part that could not be measured.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    /// The part's name.
    pub(crate) part: &'static str,
    /// Why.
    pub(crate) error: String,
}

/// What one part of the benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Part {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Its heading in the report.
    pub(crate) title: &'static str,
    /// What was measured and how, for whoever reads the figures.
    pub(crate) about: String,
    /// The figures as people read them.
    pub(crate) tables: Vec<Table>,
    /// The same to look at, as far as bars tell more.
    pub(crate) charts: Vec<Chart>,
    /// The figures as they were measured, with units in the keys' names.
    pub(crate) figures: Value,
}

/// Rows of figures under a heading.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    /// What the table shows.
    pub(crate) title: String,
    /// Headings; the first column names the rows.
    pub(crate) columns: Vec<String>,
    /// As many cells each as there are columns.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has another number of cells than the table has columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "{}: {cells:?}", self.title);
        self.rows.push(cells);
    }
    /// Whether a column holds figures, which stand on the right, rather than words.
    fn is_of_figures(&self, column: usize) -> bool {
        let is_figure = |cell: &String| {
            cell.trim_start_matches(['-', '+', '<', '>', '~', ' ']).starts_with(|c: char| c.is_ascii_digit())
        };
        let cells: Vec<_> = self
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .filter(|cell| !["", "-"].contains(&cell.as_str()))
            .collect();
        column > 0 && !cells.is_empty() && cells.into_iter().all(is_figure)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A report with one part that has everything.
    pub(super) fn sample() -> Report {
        let mut table = Table::new("Connections per second", &["path", "connections/s", "ratio"]);
        table.row(["iptables", "100", "1.00"].map(str::to_owned));
        table.row(["rnet", "150", "1.50"].map(str::to_owned));
        let mut chart = Chart::ratios("published", "Ratio to iptables", "ratio to iptables");
        chart.groups.push(Group {
            label: "connect/request/close".to_owned(),
            bars: [("iptables", 1.0), ("rnet", 1.5)]
                .map(|(series, median)| Bar {
                    series: series.to_owned(),
                    value: Spread { median, min: median - 0.1, max: median + 0.1 },
                })
                .into(),
            noise: Some(Spread { median: 1.0, min: 0.95, max: 1.05 }),
        });
        let part = Part {
            name: "published",
            title: "Published ports",
            about: "Through one published port.".to_owned(),
            tables: vec![table],
            charts: vec![chart],
            figures: json!({"connections_per_second": {"rnet": [150.0]}}),
        };
        Report {
            format: FORMAT,
            rnet: "rnet version 1.2.3".to_owned(),
            revision: Some("0123456789ab".to_owned()),
            started: "2030-01-02T03:04:05Z".to_owned(),
            seconds: 12.5,
            complete: false,
            settings: Settings { quick: false, rounds: 5, seed: 42, only: vec!["published".to_owned()] },
            noisy_cells: 3,
            machine: Machine::look(),
            parts: vec![Measured { part, seconds: 10.0 }],
            failures: vec![Failure { part: "control", error: "no <such> thing".to_owned() }],
        }
    }

    #[test]
    fn the_json_is_what_programs_read() {
        let report = serde_json::to_value(sample()).unwrap();
        assert_eq!(report["format"], FORMAT);
        assert_eq!(
            report["settings"],
            json!({"quick": false, "rounds": 5, "seed": 42, "only": ["published"]})
        );
        assert_eq!(report["noisy_cells"], 3);
        assert_eq!(report["failures"], json!([{"part": "control", "error": "no <such> thing"}]));
        let part = &report["parts"][0];
        assert_eq!(part["name"], "published");
        assert_eq!(part["seconds"], 10.0);
        assert_eq!(part["figures"]["connections_per_second"]["rnet"], json!([150.0]));
        assert_eq!(part["tables"][0]["rows"][1], json!(["rnet", "150", "1.50"]));
        assert_eq!(
            part["charts"][0]["groups"][0]["bars"][1],
            json!({"series": "rnet", "value": {"median": 1.5, "min": 1.4, "max": 1.6}})
        );
    }

    #[test]
    fn a_column_is_of_figures_when_every_cell_with_something_in_it_is() {
        let mut table = Table::new("", &["1", "figures", "words", "mixed"]);
        table.row(["1", "1.5 (1.2-1.9)", "one", "1"].map(str::to_owned));
        table.row(["2", "-", "", "none"].map(str::to_owned));
        table.row(["3", "+0.5 %", "", ""].map(str::to_owned));
        let of_figures: Vec<_> = (0..4).map(|column| table.is_of_figures(column)).collect();
        assert_eq!(of_figures, [false, true, false, false]);
    }
}
