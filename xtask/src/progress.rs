//! A line for each step that takes a while, and the seconds it took.

use std::{
    fmt,
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

use anyhow::Result;

/// Says what begins, does it, and says how long it took.
pub(crate) fn step<T>(title: impl fmt::Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(&title);
    let start = Instant::now();
    let outcome = work()?;
    note(format_args!("done in {}", Seconds(start.elapsed())));
    Ok(outcome)
}

/// Says what begins.
pub(crate) fn heading(title: impl fmt::Display) {
    if stderr().is_terminal() {
        eprintln!("\x1b[1;32m==>\x1b[0m \x1b[1m{title}\x1b[0m");
    } else {
        eprintln!("==> {title}");
    }
}

/// A remark on what goes on.
pub(crate) fn note(text: impl fmt::Display) {
    eprintln!("    {text}");
}

/// A time for people: `0.4 s`, `75 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 9.95 { write!(f, "{seconds:.1} s") } else { write!(f, "{seconds:.0} s") }
    }
}
