//! `rnet attach`.

use std::path::{self, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use super::{joining::NetworkArgs, print, progress};
use crate::{
    api::client::Client,
    controller::request::{CreateContainer, Namespace},
};

/// Arguments of `rnet attach`.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// What it is to be called
    #[arg(long)]
    name: String,
    #[command(flatten)]
    namespace: Given,
    #[command(flatten)]
    networks: NetworkArgs,
}

/// Somebody else's namespace.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Given {
    /// A file that stands for the network namespace, as /run/netns/NAME
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// A process in it
    #[arg(long)]
    pid: Option<u32>,
}

impl AttachArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let request = self.into_request()?;
        let created = progress::during("attaching the namespace", client.create_container(&request)).await?;
        print::line(&created.id)
    }

    pub(super) fn into_request(self) -> Result<CreateContainer> {
        // The daemon's working directory is another.
        let absolute = |path: PathBuf| {
            path::absolute(&path).map(Namespace::Path).with_context(|| format!("find {}", path.display()))
        };
        let by_path = self.namespace.netns.map(absolute).transpose()?;
        Ok(CreateContainer {
            name: Some(self.name),
            namespace: by_path.or(self.namespace.pid.map(Namespace::Pid)),
            detach: true,
            ..self.networks.into_request()?
        })
    }
}
