//! What a run found: tables for people, figures for programs.

mod chart;
pub(crate) mod terminal;

use serde::Serialize;
use serde_json::Value;

pub(crate) use self::{
    chart::{Bar, Chart, Group, Spread},
};
use crate::machine::Machine;

/// What one run of the benchmark found, as far as it has come.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The layout of `report.json`; another number is another layout.
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
        Self { title: title.into(), columns: columns.iter().map(|c| (*c).to_owned()).collect(), rows: Vec::new() }
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
        let is_figure = |cell: &String| cell.trim_start_matches(['-', '+', '<', '>', '~', ' ']).starts_with(|c: char| c.is_ascii_digit());
        let cells: Vec<_> = self.rows.iter().filter_map(|row| row.get(column)).filter(|cell| !["", "-"].contains(&cell.as_str())).collect();
        column > 0 && !cells.is_empty() && cells.into_iter().all(is_figure)
    }
}
