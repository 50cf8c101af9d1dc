//! What may be wrong with an instance, its host or its configuration, and what to do about it.
//!
//! ```text
//! kernel, files, daemon ─ facts ─▶ Facts ─ machine, instance (pure) ─▶ findings ─▶ rnet doctor
//! ```
//!
//! Nothing is changed, and nothing here needs the daemon: without it there is less to compare.

mod facts;
mod instance;
mod machine;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;

use crate::api::client::Client;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could, or not for long.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// One lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; absent when it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), remedy: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn error(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Error, ..Self::warning(check, found, remedy) }
    }
}

/// Looks at everything. `config` is the configuration's file, if it is not where it is looked for.
pub async fn examine(client: &Client, instance: &str, config: Option<PathBuf>) -> Vec<Finding> {
    let facts = facts::gather(client, instance, config).await;
    let mut findings = machine::check(&facts);
    findings.extend(instance::check(&facts));
    findings
}
