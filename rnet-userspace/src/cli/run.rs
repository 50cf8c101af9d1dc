//! `rnet run`.

use std::path::{self, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{ArgAction, Args};

use super::{DONE, System, foreground, joining::NetworkArgs, print, progress, terminal::TerminalArgs};
use crate::{api::client::Client, controller::request::CreateContainer};

/// Arguments of `rnet run`.
#[derive(Debug, Args)]
// `-h` is the host name, as Docker's.
#[command(disable_help_flag = true)]
pub(super) struct RunArgs {
    /// Run on its own and print the container's id; without a command, a namespace that stays
    #[arg(short, long)]
    detach: bool,
    /// Remove the container as soon as its command ends
    #[arg(long = "rm")]
    remove: bool,
    /// The container's name; one is made up when not given
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    networks: NetworkArgs,
    /// Host name; the first 12 digits of the id when not given
    #[arg(short = 'h', long, value_name = "HOST")]
    hostname: Option<String>,
    /// A line for /etc/hosts
    #[arg(long = "add-host", value_name = "HOST:IP")]
    add_hosts: Vec<String>,
    /// The directory that becomes the command's root
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// A setting of its own namespaces, as net.core.somaxconn=1024
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
    #[command(flatten)]
    terminal: TerminalArgs,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, required_unless_present = "detach")]
    command: Vec<String>,
}

impl RunArgs {
    pub(super) async fn run(self, client: &Client, system: &dyn System) -> Result<u8> {
        let terminal = self.terminal;
        let request = self.into_request()?;
        if !request.detach {
            return foreground::run(client, system, &request, terminal.input()?).await;
        }
        let created = progress::during("starting the container", client.create_container(&request)).await?;
        print::line(&created.id)?;
        Ok(DONE)
    }

    pub(super) fn into_request(self) -> Result<CreateContainer> {
        let TerminalArgs { interactive, tty } = self.terminal;
        if (interactive || tty) && self.command.is_empty() {
            bail!("conflicting options: -i and -t are for a command, and none is given");
        }
        if self.detach && interactive && !tty {
            bail!(
                "conflicting options: with -d nobody is there to type: leave -i out, or add -t for a terminal"
            );
        }
        // The daemon's working directory is another.
        let absolute = |dir: PathBuf| path::absolute(&dir).with_context(|| format!("find {}", dir.display()));
        Ok(CreateContainer {
            name: self.name,
            hostname: self.hostname,
            extra_hosts: self.add_hosts,
            sysctls: self.sysctl.iter().map(|text| setting(text)).collect::<Result<_>>()?,
            terminal: tty,
            command: self.command,
            detach: self.detach,
            remove: self.remove,
            rootfs: self.rootfs.map(absolute).transpose()?,
            ..self.networks.into_request()?
        })
    }
}

/// `KEY=VALUE`.
fn setting(text: &str) -> Result<(String, String)> {
    // In Docker's words.
    let (key, value) = text.split_once('=').with_context(|| format!("sysctl '{text}' is not allowed"))?;
    Ok((key.to_owned(), value.to_owned()))
}
