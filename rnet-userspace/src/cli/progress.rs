//! What a user sees who waits.

use std::{
    future::Future,
    io::{self, IsTerminal as _},
    pin::pin,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time;

/// What is done sooner needs no word.
const PATIENCE: Duration = Duration::from_secs(1);
const TURN_EVERY: Duration = Duration::from_millis(100);

/// Does `work`; when it takes more than a second, says on the terminal what is being done until it is.
pub(super) async fn during<T>(doing: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if !io::stderr().is_terminal() {
        return work.await;
    }
    if let Ok(done) = time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let spinner = ProgressBar::new_spinner().with_message(doing.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(TURN_EVERY);
    let done = work.await;
    spinner.finish_and_clear();
    done
}
