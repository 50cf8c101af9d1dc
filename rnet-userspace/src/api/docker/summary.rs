//! Docker's containers in a list.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    container::{Interfaceless, exit_code, networks, state},
    duration,
    endpoint::Endpoint,
};
use crate::controller::{
    model::Binding,
    view::{self, ContainerState, ExposedPort},
};

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, behind a slash.
    pub names: Vec<String>,
    /// Always empty: there are no images.
    pub image: String,
    /// Always empty.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// What it runs, in one line.
    pub command: String,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Ports that it listens at.
    pub ports: Vec<Port>,
    /// Always empty.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running` or `exited`.
    pub state: String,
    /// The same in words.
    pub status: String,
    /// How its network was asked for.
    pub host_config: SummaryHostConfig,
    /// Its networks.
    pub network_settings: SummaryNetworks,
    /// Always empty.
    pub mounts: Vec<()>,
}

/// A port that a container listens at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    /// The host's address; absent when it is not published.
    #[serde(rename = "IP", default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The container's port.
    pub private_port: u16,
    /// The host's port; absent when it is not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// The protocol.
    #[serde(rename = "Type")]
    pub protocol: String,
}

/// Part of [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryHostConfig {
    /// `none`, `host`, `container:ID`, or the first network's name.
    pub network_mode: String,
}

/// Part of [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryNetworks {
    /// Its interfaces, by network.
    pub networks: BTreeMap<String, Endpoint>,
}

impl Summary {
    /// As it is at `now`.
    pub(super) fn new(
        container: &view::Container,
        interfaceless: &Interfaceless,
        now: OffsetDateTime,
    ) -> Self {
        let created = OffsetDateTime::parse(&container.created, &Rfc3339);
        Self {
            id: container.id.clone(),
            names: vec![format!("/{}", container.name)],
            image: String::new(),
            image_id: String::new(),
            command: container.command.join(" "),
            created: created.map(OffsetDateTime::unix_timestamp).unwrap_or_default(),
            ports: ports(container),
            labels: BTreeMap::new(),
            state: state(container.state).to_owned(),
            status: status(container, now),
            host_config: SummaryHostConfig { network_mode: container.network_mode.clone() },
            network_settings: SummaryNetworks { networks: networks(container, interfaceless) },
            mounts: Vec::new(),
        }
    }
}

impl From<&Binding> for Port {
    fn from(binding: &Binding) -> Self {
        Self {
            ip: Some(binding.host.addr),
            private_port: binding.port,
            public_port: Some(binding.host.port),
            protocol: binding.host.protocol.to_string(),
        }
    }
}

impl From<&ExposedPort> for Port {
    fn from(exposed: &ExposedPort) -> Self {
        Self {
            ip: None,
            private_port: exposed.port,
            public_port: None,
            protocol: exposed.protocol.to_string(),
        }
    }
}

/// Those that are published, then those that are not.
fn ports(container: &view::Container) -> Vec<Port> {
    let is_published = |exposed: &&ExposedPort| {
        container.ports.iter().any(|b| (b.port, b.host.protocol) == (exposed.port, exposed.protocol))
    };
    let exposed = container.exposed.iter().filter(|exposed| !is_published(exposed));
    container.ports.iter().map(Port::from).chain(exposed.map(Port::from)).collect()
}

fn status(container: &view::Container, now: OffsetDateTime) -> String {
    let since = |time: &Option<String>| duration::since(time.as_ref().unwrap_or(&container.created), now);
    match container.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => format!("Up {}", since(&container.started)),
        ContainerState::Exited => {
            format!("Exited ({}) {} ago", exit_code(container), since(&container.finished))
        }
    }
}
