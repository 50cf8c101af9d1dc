//! What a run found: tables for people, figures for programs.

mod chart;

use serde::Serialize;
use serde_json::Value;

pub(crate) use self::chart::{Bar, Chart, Group, Spread};

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
}
