//! `rnet ps`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    list::{ListArgs, Row},
    ports, table,
};
use crate::api::{
    client::Client,
    docker::{self, duration},
};

/// How much of a command is shown, as Docker does.
const COMMAND_WIDTH: usize = 20;

/// Arguments of `rnet ps`.
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Show those that do not run as well
    #[arg(short, long)]
    all: bool,
    /// Show the newest N, whether they run or not
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Show the newest, whether it runs or not
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    #[command(flatten)]
    list: ListArgs,
}

/// A container in a list, with Docker's keys.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    command: String,
    created_at: String,
    #[serde(rename = "ID")]
    id: String,
    image: String,
    #[serde(rename = "Labels")]
    labels_text: String,
    #[serde(skip)]
    labels: BTreeMap<String, String>,
    names: String,
    networks: String,
    ports: String,
    running_for: String,
    state: String,
    status: String,
}

impl Row for Container {
    const HEADS: &'static [(&'static str, &'static str)] = &[
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Labels", "LABELS"),
        ("Names", "NAMES"),
        ("Networks", "NETWORKS"),
        ("Ports", "PORTS"),
        ("RunningFor", "CREATED"),
        ("State", "STATE"),
        ("Status", "STATUS"),
    ];
    const COLUMNS: &'static [&'static str] = &["ID", "Command", "RunningFor", "Status", "Ports", "Names"];

    fn id(&self) -> &str {
        &self.id
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

impl PsArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let limit = self.last.or(self.latest.then_some(1));
        let containers = client.containers(self.all, limit, &self.list.filters()).await?;
        let now = OffsetDateTime::now_utc();
        self.list.print(containers.into_iter().map(|container| row(container, now, self.list.no_trunc)))
    }
}

fn row(container: docker::Summary, now: OffsetDateTime, no_trunc: bool) -> Container {
    let created =
        OffsetDateTime::from_unix_timestamp(container.created).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let names: Vec<_> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
    let networks: Vec<_> = container.network_settings.networks.into_keys().collect();
    Container {
        command: quoted(&container.command, no_trunc),
        created_at: table::go_time_of(created),
        id: table::short_id(container.id, no_trunc),
        image: container.image,
        labels_text: table::labels(&container.labels),
        labels: container.labels,
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

    #[test]
    fn a_container_has_dockers_keys() {
        let summary = serde_json::json!({
            "Id": "0123456789abcdef".repeat(4), "Names": ["/web"], "Image": "", "ImageID": "",
            "Command": "sleep 1", "Created": 1_767_323_045,
            "Ports": [
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 81, "Type": "tcp"},
            ],
            "Labels": {}, "State": "running", "Status": "Up 2 hours", "HostConfig": {"NetworkMode": "n1"},
            "NetworkSettings": {"Networks": {"n1": {}, "n2": {}}}, "Mounts": [],
        });
        let now = OffsetDateTime::from_unix_timestamp(1_767_323_045 + 7200).unwrap();
        let web = row(serde_json::from_value(summary).unwrap(), now, false);
        let expected = serde_json::json!({
            "Command": "\"sleep 1\"", "CreatedAt": "2026-01-02 03:04:05 +0000 UTC", "ID": "0123456789ab",
            "Image": "", "Labels": "", "Names": "web", "Networks": "n1,n2",
            "Ports": "81/tcp, 0.0.0.0:8080->80/tcp", "RunningFor": "2 hours ago", "State": "running",
            "Status": "Up 2 hours",
        });
        assert_eq!(serde_json::to_value(&web).unwrap(), expected);
        let headed = |field: &&str| Container::HEADS.iter().any(|(known, _)| known == field);
        assert!(expected.as_object().unwrap().keys().all(|key| headed(&key.as_str())));
    }
}
