//! Commands about containers that are there.

use std::{fs::File, io};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Format, ListArgs, System, each, foreground, inspect, ports, print, table};
use crate::{
    api::{
        client::Client,
        docker::{self, duration},
    },
    controller::view::ContainerState,
};

/// How much of a command `ps` shows, as Docker does.
const COMMAND_WIDTH: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Names {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Name {
    /// Name or id
    container: String,
}

/// Arguments of `rnet exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Name or id
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Arguments of `rnet ps`.
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Show those that do not run as well
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `rnet rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Kill what runs
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `rnet port`.
#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// Name or id
    container: String,
    /// Only what this port of the container is published as
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<String>,
}

/// A container in a list, with Docker's keys.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    command: String,
    created_at: String,
    #[serde(rename = "ID")]
    id: String,
    names: String,
    networks: String,
    ports: String,
    running_for: String,
    state: String,
    status: String,
}

impl Names {
    pub(super) async fn inspect(self, client: &Client) -> Result<u8> {
        inspect(&self.containers, async |container| client.inspect_container(&container).await).await
    }

    pub(super) async fn stop(self, client: &Client) -> Result<u8> {
        each(&self.containers, async |container| client.stop(&container).await).await
    }
}

impl Name {
    pub(super) async fn logs(self, client: &Client) -> Result<()> {
        let container = client.container(&self.container).await?;
        let path = container.dir.join("log");
        match File::open(&path) {
            Ok(mut log) => print::copy(&mut log),
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "container {} has no log: only commands run with -d write one, others write to their terminal",
                self.container
            ),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }
}

impl ExecArgs {
    pub(super) async fn run(self, client: &Client, system: &dyn System) -> Result<u8> {
        let container = client.container(&self.container).await?;
        if container.state != ContainerState::Running {
            bail!("container {} is not running", self.container);
        }
        foreground::enter(system, &container, &self.command).await
    }
}

impl PsArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let containers = client.list_containers(self.all).await?;
        let now = OffsetDateTime::now_utc();
        let rows = containers.into_iter().map(|container| row(container, now, self.list.no_trunc));
        if self.list.quiet {
            return rows.map(|row| row.id).try_for_each(|id| print::line(&id));
        }
        match self.list.format.format {
            Format::Json => rows.into_iter().try_for_each(|row| print::json(&row)),
            Format::Table => {
                let header = ["CONTAINER ID", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
                let cells =
                    |row: Row| [row.id, row.command, row.running_for, row.status, row.ports, row.names];
                print::line(&table::render(header, rows.map(cells)))
            }
        }
    }
}

impl RmArgs {
    pub(super) async fn run(self, client: &Client) -> Result<u8> {
        let remove =
            async |container: String| client.remove_container(&container, self.force).await.map(drop);
        each(&self.names.containers, remove).await
    }
}

impl PortArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let bindings = client.container(&self.container).await?.ports;
        let lines = match &self.port {
            Some(port) => ports::of_port(&bindings, port, &self.container)?,
            None => ports::lines(&bindings),
        };
        lines.iter().try_for_each(|line| print::line(line))
    }
}

fn row(container: docker::Summary, now: OffsetDateTime, no_trunc: bool) -> Row {
    let created =
        OffsetDateTime::from_unix_timestamp(container.created).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let names: Vec<_> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
    let networks: Vec<_> = container.network_settings.networks.into_keys().collect();
    Row {
        command: quoted(&container.command, no_trunc),
        created_at: table::go_time_of(created),
        id: table::short_id(container.id, no_trunc),
        names: names.join(","),
        networks: networks.join(","),
        ports: ports::summary(&container.ports),
        running_for: format!("{} ago", duration::in_words(now - created)),
        state: container.state,
        status: container.status,
    }
}

fn quoted(command: &str, no_trunc: bool) -> String {
    if no_trunc || command.chars().count() <= COMMAND_WIDTH {
        return format!("\"{command}\"");
    }
    let start: String = command.chars().take(COMMAND_WIDTH - 1).collect();
    format!("\"{start}…\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_cut_short() {
        assert_eq!(quoted("sleep 100", false), "\"sleep 100\"");
        assert_eq!(quoted("python3 -m http.server 80", false), "\"python3 -m http.ser…\"");
        assert_eq!(quoted("python3 -m http.server 80", true), "\"python3 -m http.server 80\"");
    }
}
