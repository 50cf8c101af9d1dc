//! How far the run is, on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of the work that is known of, in milliseconds of its expected duration.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// An empty bar.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("{prefix:>10} {bar:30} {percent:>3} % {eta:>4} left  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar }
    }

    /// A part begins.
    pub(crate) fn begin(&self, part: &'static str) {
        self.bar.set_prefix(part);
    }

    /// So much more is to be done.
    pub(crate) fn expect(&self, duration: Duration) {
        self.bar.inc_length(millis(duration));
    }

    /// What is being done.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// Prints above the bar.
    pub(crate) fn print(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    /// So much of what was expected is done.
    pub(crate) fn done(&self, duration: Duration) {
        self.bar.inc(millis(duration));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
