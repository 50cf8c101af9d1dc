//! What Podman, by netavark, calls this program with when it is a plugin.

use std::{io, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{DONE, FAILED, print};
use crate::{api::client::Client, bounded, integrations::netavark};

/// The calls, each with JSON on standard input.
#[derive(Debug, Subcommand)]
pub(super) enum NetavarkCommand {
    /// Called by netavark: complete a network
    #[command(hide = true)]
    Create,
    /// Called by netavark: put a container on a network
    #[command(hide = true)]
    Setup {
        /// The container's network namespace
        netns: PathBuf,
    },
    /// Called by netavark: take a container off a network
    #[command(hide = true)]
    Teardown {
        /// The container's network namespace
        netns: PathBuf,
    },
    /// Called by netavark: tell which API is spoken
    #[command(hide = true)]
    Info,
}

impl NetavarkCommand {
    pub(super) async fn run(self, client: &Client) -> Result<u8> {
        match self.answer(client).await {
            Ok(answer) => {
                if let Some(answer) = answer {
                    print::line(&answer.to_string())?;
                }
                Ok(DONE)
            }
            // Netavark shows this, and nothing else.
            Err(e) => {
                print::line(&json!({ "error": format!("{e:#}") }).to_string())?;
                Ok(FAILED)
            }
        }
    }

    async fn answer(self, client: &Client) -> Result<Option<serde_json::Value>> {
        Ok(match self {
            Self::Create => Some(serde_json::to_value(netavark::create(client, input()?).await?)?),
            Self::Setup { netns } => {
                Some(serde_json::to_value(netavark::setup(client, netns, &input()?).await?)?)
            }
            Self::Teardown { .. } => {
                netavark::teardown(client, &input()?).await?;
                None
            }
            Self::Info => Some(serde_json::to_value(netavark::info())?),
        })
    }
}

fn input<T: DeserializeOwned>() -> Result<T> {
    let text = bounded::read_text(io::stdin().lock(), bounded::CALL).context("read standard input")?;
    serde_json::from_str(&text).context("understand standard input, which netavark writes as JSON")
}
