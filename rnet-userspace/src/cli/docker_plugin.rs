//! `rnet docker-plugin`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::log::Log;
use crate::{
    api::{self, client::Client},
    host::process::raise_open_files,
    integrations::docker_plugin::{Options, run, socket_path},
};

/// Arguments of `rnet docker-plugin`.
#[derive(Debug, Args)]
pub(super) struct DockerPluginArgs {
    /// Where to listen, such as /run/docker/plugins/rnet.sock; /run/INSTANCE/docker-plugin.sock when not given
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl DockerPluginArgs {
    pub(super) async fn run(self, instance: &str) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            bail!("rnet docker-plugin needs root: run it with sudo");
        }
        Log::start()?;
        raise_open_files().context("raise the limit of open files")?;
        let catch = |kind| signal(kind).context("catch signals");
        let (mut terminate, mut interrupt) =
            (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        let options = Options {
            client: Client::new(api::socket_path(instance), instance),
            socket: self.socket.unwrap_or_else(|| socket_path(instance)),
            state_dir: Path::new("/var/lib").join(instance),
        };
        run(options, async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    }
}
