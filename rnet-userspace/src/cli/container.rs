//! Commands about containers that are there.

use std::{fs::File, io};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Format, FormatArgs, ListArgs, System, each, foreground, inspect, ports, print, table};
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
    #[arg(required = true, trailing_var_arg = true)]
    pub(super) command: Vec<String>,
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
    #[command(flatten)]
    format: FormatArgs,
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
        let containers = client.containers(self.all, None, &Default::default()).await?;
        let now = OffsetDateTime::now_utc();
        let mut rows = containers.into_iter().map(|container| row(container, now, self.list.no_trunc));
        if self.list.quiet {
            return rows.try_for_each(|row| print::line(&row.id));
        }
        match self.list.format.format {
            Format::Json => rows.try_for_each(|row| print::json(&row)),
            Format::Table => print::line(&list(rows)),
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
        let container = client.container(&self.container).await?;
        let bindings = match &self.port {
            Some(port) => ports::of_port(container.ports, port, &self.container)?,
            None => container.ports,
        };
        let lines = match (self.format.format, &self.port) {
            (Format::Json, _) => {
                let mut counted = client.ports().await?;
                counted.retain(|port| port.container == container.name && bindings.contains(&port.binding));
                return counted.iter().try_for_each(print::json);
            }
            (Format::Table, Some(_)) => ports::hosts(&bindings),
            (Format::Table, None) => ports::lines(&bindings),
        };
        lines.iter().try_for_each(|line| print::line(line))
    }
}

fn list(rows: impl IntoIterator<Item = Row>) -> String {
    let header = ["CONTAINER ID", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    let cells = |row: Row| [row.id, row.command, row.running_for, row.status, row.ports, row.names];
    table::render(header, rows.into_iter().map(cells))
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

    fn summary(name: &str, command: &str, ports: &serde_json::Value) -> docker::Summary {
        let summary = serde_json::json!({
            "Id": "0123456789abcdef".repeat(4),
            "Names": [format!("/{name}")],
            "Image": "",
            "ImageID": "",
            "Command": command,
            "Created": 1_767_323_045,
            "Ports": ports,
            "Labels": {},
            "State": "running",
            "Status": "Up 2 hours",
            "HostConfig": {"NetworkMode": "bridge"},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        });
        serde_json::from_value(summary).unwrap()
    }

    #[test]
    fn containers_line_up() {
        let port =
            serde_json::json!([{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]);
        let now = OffsetDateTime::from_unix_timestamp(1_767_323_045 + 7200).unwrap();
        let rows = || {
            [summary("web", "sleep 1", &port), summary("a-longer-name", "", &serde_json::json!([]))]
                .map(|container| row(container, now, false))
        };
        let expected = "\
CONTAINER ID   COMMAND     CREATED       STATUS       PORTS                  NAMES
0123456789ab   \"sleep 1\"   2 hours ago   Up 2 hours   0.0.0.0:8080->80/tcp   web
0123456789ab   \"\"          2 hours ago   Up 2 hours                          a-longer-name";
        assert_eq!(list(rows()), expected);
        let empty = list([]);
        assert!(empty.starts_with("CONTAINER ID   COMMAND") && empty.ends_with("NAMES"), "{empty}");

        let [web, _] = rows();
        let json = serde_json::to_string(&web).unwrap();
        assert!(json.contains(r#""ID":"0123456789ab","Names":"web""#) && !json.contains('\n'), "{json}");
    }
}
