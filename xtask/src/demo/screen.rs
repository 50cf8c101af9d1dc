//! What the demonstration looks like: colours on a terminal, plain text elsewhere.

use std::{
    env, fmt,
    io::{IsTerminal as _, stdout},
    ops::Range,
    sync::LazyLock,
};

static COLOURS: LazyLock<bool> = LazyLock::new(|| is_terminal() && env::var_os("NO_COLOR").is_none());

/// Whether somebody watches.
pub(super) fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// A text with an ANSI attribute, where colours are shown.
pub(super) struct Styled<T>(&'static str, T);

pub(super) fn bold<T: fmt::Display>(text: T) -> Styled<T> {
    Styled("1", text)
}

pub(super) fn dim<T: fmt::Display>(text: T) -> Styled<T> {
    Styled("2", text)
}

pub(super) fn green<T: fmt::Display>(text: T) -> Styled<T> {
    Styled("32", text)
}

pub(super) fn red<T: fmt::Display>(text: T) -> Styled<T> {
    Styled("31", text)
}

impl<T: fmt::Display> fmt::Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *COLOURS { write!(f, "\x1b[{}m{}\x1b[0m", self.0, self.1) } else { self.1.fmt(f) }
    }
}

/// The headline of a part.
pub(super) fn part(title: impl fmt::Display) {
    println!("\n{}", bold(title));
}

/// A command that is run, on the machine whose prompt is shown.
pub(super) fn command(machine: &str, line: impl fmt::Display) {
    println!("  {} {line}", dim(format_args!("{machine}$")));
}

/// What a command printed.
pub(super) fn printed(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}

/// Something that holds.
pub(super) fn proven(text: impl fmt::Display) {
    println!("  {} {text}", green("ok"));
}

/// Something that does not hold.
pub(super) fn failed(text: impl fmt::Display) {
    println!("  {} {text}", red("failed:"));
}

/// A table, with the columns that hold numbers to the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], numbers: Range<usize>) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if !numbers.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut lines = vec![dim(line(&mut header.iter().copied())).to_string()];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["from_uplink".into(), "7".into()], vec!["x".into(), "1234567".into()]];
        let expected = "  program      packets\n  from_uplink        7\n  x            1234567";
        assert_eq!(table(&["program", "packets"], &rows, 1..2), expected);
    }
}
