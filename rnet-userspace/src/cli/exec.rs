//! `rnet exec`.

use anyhow::{Result, bail};
use clap::Args;

use super::{System, foreground, terminal::TerminalArgs};
use crate::{api::client::Client, controller::view::ContainerState};

/// Arguments of `rnet exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    terminal: TerminalArgs,
    /// Name or id
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    pub(super) command: Vec<String>,
}

impl ExecArgs {
    pub(super) async fn run(self, client: &Client, system: &dyn System) -> Result<u8> {
        let container = client.container(&self.container).await?;
        if container.state != ContainerState::Running {
            bail!("container {} is not running", self.container);
        }
        let input = self.terminal.input()?;
        foreground::enter(system, &container, &self.command, input).await
    }
}
