//! A part on the terminal.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table as Grid, presets};

use super::{Part, Table};

/// Columns that a line is kept within, where cells can be broken.
const WIDTH: u16 = 100;

/// A part's tables under its title.
pub(crate) fn part(part: &Part) -> String {
    let tables = part.tables.iter().map(|it| format!("\n{}\n{}\n", it.title, table(it)));
    format!("\n== {}: {} ==\n{}", part.name, part.title, tables.collect::<String>())
}

/// A table, without a line break at its end.
fn table(table: &Table) -> String {
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(&table.columns)
        .add_rows(&table.rows);
    grid.style_mut().header_separator = LineStyle::none().fill('-');
    for (index, column) in grid.column_iter_mut().enumerate() {
        if table.is_of_figures(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.trim_fmt()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn figures_stand_under_each_other_and_lines_fit() {
        let mut traffic = Table::new("connect", &["path", "transactions/s", "ratio"]);
        traffic.row(["iptables", "9000", "1.00"].map(str::to_owned));
        traffic.row(["rnet", "12600", "1.40"].map(str::to_owned));
        let mut long = Table::new("words", &["path", "why"]);
        long.row(["rnet".to_owned(), "many words ".repeat(20)]);
        let text = part(&Part {
            name: "published",
            title: "Published ports",
            about: String::new(),
            tables: vec![traffic, long],
            charts: Vec::new(),
            figures: Value::Null,
        });
        assert!(text.starts_with("\n== published: Published ports ==\n\nconnect\n"), "{text}");
        let end = |figure: &str| text.lines().find_map(|line| Some(line.find(figure)? + figure.len()));
        assert_eq!(end(" 9000"), end(" 12600"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{text}");
        assert!(text.matches("many words").count() == 20 || text.matches("many").count() == 20, "{text}");
    }
}
