//! Tables laid out as Docker's: no lines, columns at least 10 wide and 3 apart. And what stands in their cells.

use std::collections::BTreeMap;

use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

const APART: u16 = 3;
const MIN_WIDTH: u16 = 10;

/// A table with a header, without a line break at its end.
pub(super) fn render<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    render_rows(header.map(str::to_owned).to_vec(), rows.into_iter().map(Vec::from).collect())
}

/// The same where the number of columns is known only then.
pub(super) fn render_rows(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column
            .set_padding((0, APART))
            .set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(MIN_WIDTH)));
    }
    table.trim_fmt()
}

/// A table whose rows come bit by bit, laid out like the others. A column is as wide as the widest cell so far.
pub(super) struct Growing<const N: usize> {
    header: Option<[&'static str; N]>,
    widths: [usize; N],
}

impl<const N: usize> Growing<N> {
    pub(super) fn new(header: [&'static str; N]) -> Self {
        Self { header: Some(header), widths: [usize::from(MIN_WIDTH); N] }
    }

    /// The next rows, the first time below the header; without a line break at the end.
    pub(super) fn more(&mut self, rows: impl IntoIterator<Item = [String; N]>) -> String {
        let header = self.header.take().map(|header| header.map(str::to_owned));
        let rows: Vec<[String; N]> = header.into_iter().chain(rows).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + usize::from(APART));
            }
        }
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { "\n" });
            let cells = row.iter().zip(self.widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<String>().trim_end());
        }
        text
    }
}

/// The first 12 digits of an id, unless all are wanted.
pub(super) fn short_id(mut id: String, no_trunc: bool) -> String {
    if !no_trunc {
        id.truncate(12);
    }
    id
}

/// Labels in one line.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// An RFC 3339 time as Go prints it, which is what Docker's lists show; as it is when it is none.
pub(super) fn go_time(rfc3339: &str) -> String {
    OffsetDateTime::parse(rfc3339, &Rfc3339).map_or_else(|_| rfc3339.to_owned(), go_time_of)
}

/// A time as Go prints it.
pub(super) fn go_time_of(time: OffsetDateTime) -> String {
    const SECONDS: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    const FRACTION: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond] +0000 UTC");
    let time = time.to_offset(time::UtcOffset::UTC);
    let format = if time.nanosecond() == 0 { SECONDS } else { FRACTION };
    // Only a year beyond 9999 cannot be written so.
    time.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let row = |id: &str, name: &str| [id, name, "bridge", "local"].map(str::to_owned);
        let table = render(
            ["NETWORK ID", "NAME", "DRIVER", "SCOPE"],
            [row("9f904ee27bf5", "bridge"), row("1fe2a5c3ab01", "a-longer-name")],
        );
        let expected = "\
NETWORK ID     NAME            DRIVER    SCOPE
9f904ee27bf5   bridge          bridge    local
1fe2a5c3ab01   a-longer-name   bridge    local";
        assert_eq!(table, expected);
        assert_eq!(render(["NETWORK ID", "NAME"], []), "NETWORK ID   NAME");
    }

    #[test]
    fn a_growing_table_looks_like_one_that_was_there_at_once() {
        let row = |id: &str, name: &str| [id, name, "bridge", "local"].map(str::to_owned);
        let header = ["NETWORK ID", "NAME", "DRIVER", "SCOPE"];
        let rows = [row("9f904ee27bf5", "bridge"), row("1fe2a5c3ab01", "a-longer-name")];
        assert_eq!(Growing::new(header).more(rows.clone()), render(header, rows));
        assert_eq!(Growing::new(header).more([]), render(header, []));
    }

    #[test]
    fn a_growing_table_does_not_become_narrower() {
        let mut table = Growing::new(["NAME", "SCOPE"]);
        let row = |name: &str| [name.to_owned(), "local".to_owned()];
        assert_eq!(table.more([row("a-longer-name")]), "NAME            SCOPE\na-longer-name   local");
        assert_eq!(table.more([row("web")]), "web             local");
        assert_eq!(table.more([]), "");
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(go_time("2026-01-02T03:04:05.678901234Z"), "2026-01-02 03:04:05.678901234 +0000 UTC");
        assert_eq!(go_time("2026-01-02T03:04:05+01:00"), "2026-01-02 02:04:05 +0000 UTC");
    }
}
