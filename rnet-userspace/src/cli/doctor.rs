//! `rnet doctor`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{DONE, FAILED, Format, FormatArgs, print};
use crate::{
    api::client::Client,
    doctor::{self, Finding, Level},
};

/// Arguments of `rnet doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The configuration to check; /etc/INSTANCE/daemon.json when not given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

impl DoctorArgs {
    pub(super) async fn run(self, client: &Client) -> Result<u8> {
        let findings = doctor::examine(client, client.instance(), self.config).await;
        match self.format.format {
            Format::Json => findings.iter().try_for_each(print::json)?,
            Format::Table => findings.iter().try_for_each(|finding| print::line(&lines(finding)))?,
        }
        let is_well = findings.iter().all(|finding| finding.level != Level::Error);
        Ok(if is_well { DONE } else { FAILED })
    }
}

/// A line for what was found, and one below it for what to do.
pub(super) fn lines(finding: &Finding) -> String {
    let Finding { check, level, found, remedy } = finding;
    let remedy = remedy.iter().map(|remedy| format!("\n{:<27} -> {remedy}", ""));
    format!("{:<8} {check:<18} {found}{}", level.name(), remedy.collect::<String>())
}
