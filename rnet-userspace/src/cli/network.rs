//! `rnet network`.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    DONE, FAILED,
    create::CreateArgs,
    each, inspect,
    list::{ListArgs, ObjectFormat, Row, by_field, filter},
    ports::natural,
    print, progress, table,
};
use crate::{
    api::{client::Client, docker},
    bounded,
    controller::model::MacAddr,
};

/// Commands of `rnet network`.
#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Create a network
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show networks as JSON
    Inspect(InspectArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all networks that no container is on
    Prune(PruneArgs),
    /// Put a running container on a network
    Connect(ConnectArgs),
    /// Take a running container off a network
    Disconnect(DisconnectArgs),
}

#[derive(Debug, Args)]
pub(super) struct Networks {
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Arguments of `rnet network inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// json, or a template as '{{.Driver}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<ObjectFormat>,
    #[command(flatten)]
    networks: Networks,
}

/// Arguments of `rnet network rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// A network that is not there is as good as removed
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    networks: Networks,
}

/// Arguments of `rnet network prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Do not ask first
    #[arg(short, long)]
    force: bool,
    /// Only those that this is true for, as until=24h or label=a
    // Without `-f`, which is Docker's for something else here.
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<(String, String)>,
}

/// Arguments of `rnet network connect`.
#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// A fixed IPv4 address
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    /// A name under which the network's containers find it, beside its own
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// The network with the highest number has the default route; 0 when not given
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    gw_priority: i64,
    /// A fixed Ethernet address
    #[arg(long, value_name = "MAC")]
    mac_address: Option<MacAddr>,
    /// The network's name or id
    network: String,
    /// The container's name or id
    container: String,
}

/// Arguments of `rnet network disconnect`.
#[derive(Debug, Args)]
pub(super) struct DisconnectArgs {
    /// A container that is not on the network is as good as taken off
    #[arg(short, long)]
    force: bool,
    /// The network's name or id
    network: String,
    /// The container's name or id
    container: String,
}

/// A network in a list, with Docker's keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    created_at: String,
    driver: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "IPv4")]
    ipv4: String,
    #[serde(rename = "IPv6")]
    ipv6: String,
    internal: String,
    #[serde(rename = "Labels")]
    labels_text: String,
    #[serde(skip)]
    labels: BTreeMap<String, String>,
    name: String,
    scope: String,
}

impl Row for Network {
    const HEADS: &'static [(&'static str, &'static str)] = &[
        ("CreatedAt", "CREATED AT"),
        ("Driver", "DRIVER"),
        ("ID", "NETWORK ID"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("Name", "NAME"),
        ("Scope", "SCOPE"),
    ];
    const COLUMNS: &'static [&'static str] = &["ID", "Name", "Driver", "Scope"];

    fn id(&self) -> &str {
        &self.id
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

impl NetworkCommand {
    pub(super) async fn run(self, client: &Client) -> Result<u8> {
        match self {
            Self::Create(args) => {
                let request = args.into_request()?;
                let doing = format!("creating network {}", request.name);
                let created = progress::during(&doing, client.create_network(&request)).await?;
                print::line(&created.id)?;
                Ok(DONE)
            }
            Self::Ls(args) => {
                let mut networks = client.networks(&args.filters()).await?;
                networks.sort_by(|a, b| natural(&a.name, &b.name));
                args.print(networks.into_iter().map(|network| row(network, args.no_trunc)))?;
                Ok(DONE)
            }
            Self::Inspect(InspectArgs { format, networks: Networks { networks } }) => {
                inspect(&networks, format.as_ref(), async |network| client.network(&network).await).await
            }
            Self::Rm(RmArgs { force, networks: Networks { networks } }) => {
                let remove = async |network: String| match client.remove_network(&network).await {
                    Err(e) if force && e.is_not_found() => Ok(()),
                    removed => removed,
                };
                each("removing", &networks, remove).await
            }
            Self::Prune(args) => args.run(client).await,
            Self::Connect(args) => args.run(client).await,
            Self::Disconnect(args) => args.run(client).await,
        }
    }
}

impl PruneArgs {
    async fn run(self, client: &Client) -> Result<u8> {
        // Whoever is not asked has decided by not being there to answer: as with Docker, nothing is removed.
        if !self.force && !confirmed()? {
            return Ok(FAILED);
        }
        let filters = by_field(&self.filters);
        let pruned = progress::during("removing unused networks", client.prune_networks(&filters)).await?;
        let networks = pruned.networks_deleted.unwrap_or_default();
        if networks.is_empty() {
            return Ok(DONE);
        }
        print::line(&format!("Deleted Networks:\n{}\n", networks.join("\n")))?;
        Ok(DONE)
    }
}

impl ConnectArgs {
    async fn run(self, client: &Client) -> Result<u8> {
        let doing = format!("connecting {} to {}", self.container, self.network);
        let text = |addr: Option<String>| addr.unwrap_or_default();
        let fixed = docker::FixedAddresses {
            ipv4_address: text(self.ip.map(|ip| ip.to_string())),
            ipv6_address: text(self.ip6.map(|ip| ip.to_string())),
            link_local_ips: Vec::new(),
        };
        let connect = docker::Connect {
            container: self.container,
            endpoint_config: docker::Endpoint {
                ipam_config: Some(fixed),
                aliases: Some(self.aliases),
                mac_address: text(self.mac_address.map(|mac| mac.to_string())),
                gw_priority: self.gw_priority,
                ..docker::Endpoint::default()
            },
        };
        progress::during(&doing, client.connect(&self.network, &connect)).await?;
        Ok(DONE)
    }
}

impl DisconnectArgs {
    async fn run(self, client: &Client) -> Result<u8> {
        let doing = format!("disconnecting {} from {}", self.container, self.network);
        let disconnect = docker::Disconnect { container: self.container, force: self.force };
        progress::during(&doing, client.disconnect(&self.network, &disconnect)).await?;
        Ok(DONE)
    }
}

fn confirmed() -> Result<bool> {
    print::raw(
        b"WARNING! This will remove all custom networks not used by at least one container.\n\
         Are you sure you want to continue? [y/N] ",
    )?;
    if !io::stdin().is_terminal() {
        print::line("")?;
    }
    let mut answer = String::new();
    // More than a word is no.
    io::stdin().lock().take(bounded::WORD as u64).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

fn row(network: docker::Network, no_trunc: bool) -> Network {
    Network {
        created_at: table::go_time(&network.created),
        driver: network.driver,
        id: table::short_id(network.id, no_trunc),
        ipv4: network.enable_ipv4.to_string(),
        ipv6: network.enable_ipv6.to_string(),
        internal: network.internal.to_string(),
        labels_text: table::labels(&network.labels),
        labels: network.labels,
        name: network.name,
        scope: network.scope,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_dockers_keys() {
        let network = serde_json::json!({
            "Name": "n1", "Id": "0123456789abcdef".repeat(4), "Created": "2026-01-02T03:04:05.5Z", "Scope": "local",
            "Driver": "bridge", "EnableIPv4": true, "EnableIPv6": false, "IPAM": {}, "Internal": false,
            "Attachable": false, "Ingress": false, "ConfigFrom": {}, "ConfigOnly": false, "Containers": {},
            "Options": {}, "Labels": { "a": "1", "b": "" },
        });
        let n1 = row(serde_json::from_value(network).unwrap(), false);
        let expected = serde_json::json!({
            "CreatedAt": "2026-01-02 03:04:05.5 +0000 UTC", "Driver": "bridge", "ID": "0123456789ab", "IPv4": "true",
            "IPv6": "false", "Internal": "false", "Labels": "a=1,b=", "Name": "n1", "Scope": "local",
        });
        assert_eq!(serde_json::to_value(&n1).unwrap(), expected);
        let headed = |field: &&str| Network::HEADS.iter().any(|(known, _)| known == field);
        assert!(expected.as_object().unwrap().keys().all(|key| headed(&key.as_str())));
    }
}
