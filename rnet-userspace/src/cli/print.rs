//! The one place that writes to standard output and error.
//!
//! A reader who has seen enough closes the pipe: that is no failure.

use std::io::{self, Write as _};

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
    write(format!("{text}\n").as_bytes())
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
    write(&text)
}

/// Prints one line of many that come one by one, and says whether anybody still reads.
///
/// # Errors
/// When it cannot be written.
pub fn streamed(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
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
    let _ = writeln!(io::stderr(), "{text}");
}

fn on_one_line(error: &anyhow::Error) -> String {
    let chain = format!("{error:#}");
    chain.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
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
    fn a_closed_pipe_is_no_failure() {
        let outcome = |kind: io::ErrorKind| allow_broken_pipe(Err(kind.into()));
        assert!(outcome(io::ErrorKind::BrokenPipe).is_ok());
        let full = outcome(io::ErrorKind::StorageFull).unwrap_err();
        assert_eq!(format!("{full:#}"), "write to standard output: no storage space");
    }
}
