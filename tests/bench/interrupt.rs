//! Ctrl-C and the like: noted, so that namespaces are removed and what was measured is kept.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on a signal to end is noted. Programs started later are not affected: what handles a signal does
/// not survive `exec`.
pub(crate) fn catch() -> Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&REQUESTED)).context("handle signals")?;
    }
    Ok(())
}

/// Whether somebody asked for the end.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error as soon as somebody asked for the end.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
