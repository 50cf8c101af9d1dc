//! What the daemon says of itself, on standard error.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result, anyhow};
use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::config::Level;

const VARIABLE: &str = EnvFilter::DEFAULT_ENV;

/// The daemon's log, whose level can change.
pub(super) struct Log {
    /// Absent where the environment has decided.
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

impl Log {
    /// Logs from `info` on unless `RUST_LOG` says otherwise. Only once.
    ///
    /// # Errors
    /// `RUST_LOG` cannot be understood.
    pub(super) fn start() -> Result<Self> {
        let asked = std::env::var(VARIABLE).ok().filter(|asked| !asked.is_empty());
        // Its causes say the same as itself.
        let filter = EnvFilter::try_new(asked.as_deref().unwrap_or(directives(Level::default())))
            .map_err(|e| anyhow!("understand {VARIABLE}: {e}: set it as info or rnet=debug"))?;
        let (filter, handle) = reload::Layer::new(filter);
        let lines =
            fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false);
        tracing_subscriber::registry().with(filter).with(lines).try_init().context("start to log")?;
        Ok(Self { filter: asked.is_none().then_some(handle) })
    }

    /// Logs from `level` on, unless `RUST_LOG` has been set.
    pub(super) fn set_level(&self, level: Level) {
        let Some(filter) = &self.filter else { return };
        // It fails only once nobody logs any more.
        let _ = filter.reload(EnvFilter::new(directives(level)));
    }
}

fn directives(level: Level) -> &'static str {
    match level {
        // Of the libraries below, what goes on inside is of no help.
        Level::Debug => "info,rnet=debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
