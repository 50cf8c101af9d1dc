//! The one place that writes to standard output and error.
//!
//! A reader who has seen enough closes the pipe: that is no failure. Labels, commands and the names of processes are
//! others' to choose: what in them would move a terminal's cursor, or more, is written out.

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use anstyle::{AnsiColor, Effects, Style};
use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The colour that clap has for its errors.
const ALARM: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);

/// Prints one line.
///
/// # Errors
/// When it cannot be written.
pub fn line(text: &str) -> Result<()> {
    write(format!("{}\n", harmless(text)).as_bytes())
}

/// Prints what has its line breaks already, or is to have none.
///
/// # Errors
/// When it cannot be written.
pub fn raw(text: &[u8]) -> Result<()> {
    write(text)
}

/// Prints one JSON value on one line.
///
/// # Errors
/// When it cannot be written.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value).context("write JSON")?)
}

/// Prints one JSON value over several lines, indented as Docker does.
///
/// # Errors
/// When it cannot be written.
pub fn pretty(value: &impl Serialize) -> Result<()> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).context("write JSON")?;
    text.push(b'\n');
    write(harmless(&String::from_utf8_lossy(&text)).as_bytes())
}

/// Prints one line of many that come one by one, and says whether anybody still reads.
///
/// # Errors
/// When it cannot be written.
pub fn streamed(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", harmless(text)).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("write to standard output"),
    }
}

/// Copies everything that can be read.
///
/// # Errors
/// When it cannot be read or written.
pub fn copy(from: &mut impl io::Read) -> Result<()> {
    allow_broken_pipe(io::copy(from, &mut io::stdout().lock()).map(drop))
}

/// Prints what a command has written, as it is.
///
/// # Errors
/// When it cannot be written.
pub fn bytes(text: &[u8]) -> Result<()> {
    write(text)
}

/// Prints an error and its causes on one line of standard error. Coloured on a terminal, unless `NO_COLOR` says not to.
pub fn error(error: &anyhow::Error) {
    // When there is nowhere to complain, there is nowhere to complain of that.
    let _ = writeln!(anstream::stderr(), "{ALARM}error:{ALARM:#} {}", on_one_line(error));
}

/// Prints a line on standard error that is no error.
pub fn notice(text: &str) {
    // As with errors.
    let _ = writeln!(io::stderr(), "{}", harmless(text));
}

fn on_one_line(error: &anyhow::Error) -> String {
    let chain = format!("{error:#}");
    let lines = chain.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    harmless(&lines).into_owned()
}

/// The text with its control characters as JSON writes them, line breaks and tabs excepted.
fn harmless(text: &str) -> Cow<'_, str> {
    let moves = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(moves) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if moves(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

fn write(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    allow_broken_pipe(out.write_all(text).and_then(|()| out.flush()))
}

fn allow_broken_pipe(written: io::Result<()>) -> Result<()> {
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e).context("write to standard output"),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_with_its_causes_is_one_line() {
        let error = anyhow::anyhow!("no space left\n  on device\n").context("create bridge");
        assert_eq!(on_one_line(&error), "create bridge: no space left on device");
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(harmless("NAME\tü\nweb"), "NAME\tü\nweb");
        assert_eq!(harmless("a\u{1b}[2Jb\rc\u{9b}1md\u{7f}"), r"a\u001b[2Jb\u000dc\u009b1md\u007f");
        let name = serde_json::json!({"name": "\u{9b}\u{1b}"});
        let shown = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&harmless(&shown)).unwrap(), name, "still JSON");
        let error = anyhow::anyhow!("no \u{1b}]0;x\u{7}");
        assert_eq!(on_one_line(&error), r"no \u001b]0;x\u0007");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let outcome = |kind: io::ErrorKind| allow_broken_pipe(Err(kind.into()));
        assert!(outcome(io::ErrorKind::BrokenPipe).is_ok());
        let full = outcome(io::ErrorKind::StorageFull).unwrap_err();
        assert_eq!(format!("{full:#}"), "write to standard output: no storage space");
    }
}
