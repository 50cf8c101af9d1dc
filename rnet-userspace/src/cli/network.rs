//! `rnet network`.

use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::{DONE, Format, ListArgs, each, inspect, ports::natural, print, table};
use crate::{
    api::{client::Client, docker},
    controller::request::{CreateNetwork, Subnet},
};

/// Commands of `rnet network`.
#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Create a network
    Create(CreateArgs),
    /// List networks
    Ls(ListArgs),
    /// Show networks as JSON
    Inspect(Networks),
    /// Remove networks
    Rm(Networks),
}

#[derive(Debug, Args)]
pub(super) struct Networks {
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Arguments of `rnet network create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Who carries the packets
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge", value_parser = ["bridge"])]
    driver: String,
    /// A subnet, as 10.1.0.0/24
    #[arg(long = "subnet", value_name = "CIDR", value_parser = cidr)]
    subnets: Vec<IpNetwork>,
    /// The part of a subnet that addresses are given from
    #[arg(long = "ip-range", value_name = "CIDR", value_parser = cidr)]
    ip_ranges: Vec<IpNetwork>,
    /// The host's address in a subnet
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<IpAddr>,
    /// Give IPv6 addresses as well
    #[arg(long)]
    ipv6: bool,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// Docker's flag; kept and shown
    #[arg(long)]
    attachable: bool,
    /// An option of the driver
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = key_value)]
    options: Vec<(String, String)>,
    /// A label
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// The network's name
    name: String,
}

/// A network in a list, with Docker's keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    created_at: String,
    driver: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "IPv4")]
    ipv4: String,
    #[serde(rename = "IPv6")]
    ipv6: String,
    internal: String,
    labels: String,
    name: String,
    scope: String,
}

impl NetworkCommand {
    pub(super) async fn run(self, client: &Client) -> Result<u8> {
        match self {
            Self::Create(args) => {
                let created = client.create_network(&args.into_request()?).await?;
                print::line(&created.id)?;
                Ok(DONE)
            }
            Self::Ls(args) => {
                let mut networks = client.networks(&Default::default()).await?;
                networks.sort_by(|a, b| natural(&a.name, &b.name));
                list(networks, &args)?;
                Ok(DONE)
            }
            Self::Inspect(Networks { networks }) => {
                inspect(&networks, async |network| client.network(&network).await).await
            }
            Self::Rm(Networks { networks }) => {
                each(&networks, async |network| client.remove_network(&network).await).await
            }
        }
    }
}

impl CreateArgs {
    fn into_request(self) -> Result<CreateNetwork> {
        Ok(CreateNetwork {
            subnets: subnets(&self.subnets, &self.ip_ranges, &self.gateways)?,
            name: self.name,
            internal: self.internal,
            attachable: self.attachable,
            ipv6: self.ipv6,
            options: self.options.into_iter().collect(),
            labels: self.labels.into_iter().collect(),
            ..CreateNetwork::default()
        })
    }
}

/// Puts every range and gateway to the subnet that it lies in.
fn subnets(subnets: &[IpNetwork], ip_ranges: &[IpNetwork], gateways: &[IpAddr]) -> Result<Vec<Subnet>> {
    let plain = |subnet: &IpNetwork| Subnet { subnet: Some(*subnet), ..Subnet::default() };
    let mut asked: Vec<_> = subnets.iter().map(plain).collect();
    let holder = |asked: &mut Vec<Subnet>, addr: IpAddr| {
        asked.iter().position(|s| s.subnet.is_some_and(|subnet| subnet.contains(addr)))
    };
    for range in ip_ranges {
        let Some(at) = holder(&mut asked, range.ip()) else { bail!("no matching subnet for range {range}") };
        if let Some(other) = asked[at].ip_range.replace(*range) {
            bail!("cannot configure multiple ranges ({other}, {range}) on the same subnet");
        }
    }
    for gateway in gateways {
        let Some(at) = holder(&mut asked, *gateway) else {
            bail!("no matching subnet for gateway {gateway}")
        };
        if let Some(other) = asked[at].gateway.replace(*gateway) {
            bail!("cannot configure multiple gateways ({other}, {gateway}) on the same subnet");
        }
    }
    Ok(asked)
}

fn list(networks: Vec<docker::Network>, args: &ListArgs) -> Result<()> {
    let rows = networks.into_iter().map(|network| row(network, args.no_trunc));
    if args.quiet {
        return rows.map(|row| row.id).try_for_each(|id| print::line(&id));
    }
    match args.format.format {
        Format::Json => rows.into_iter().try_for_each(|row| print::json(&row)),
        Format::Table => {
            let header = ["NETWORK ID", "NAME", "DRIVER", "SCOPE"];
            print::line(&table::render(header, rows.map(|row| [row.id, row.name, row.driver, row.scope])))
        }
    }
}

fn row(network: docker::Network, no_trunc: bool) -> Row {
    let labels: Vec<_> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Row {
        created_at: table::go_time(&network.created),
        driver: network.driver,
        id: table::short_id(network.id, no_trunc),
        ipv4: network.enable_ipv4.to_string(),
        ipv6: network.enable_ipv6.to_string(),
        internal: network.internal.to_string(),
        labels: labels.join(","),
        name: network.name,
        scope: network.scope,
    }
}

/// Keeps the host's bits, so that the daemon can say what the subnet should be.
pub(super) fn cidr(text: &str) -> Result<IpNetwork, String> {
    let parsed = text.parse().ok().filter(|_| text.contains('/'));
    parsed.ok_or_else(|| "it should be an address and a prefix length, as 10.1.0.0/24".to_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() { Err("the key is missing".to_owned()) } else { Ok((key.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_gateways_find_their_subnets() {
        let cidrs = |texts: &[&str]| texts.iter().map(|text| cidr(text).unwrap()).collect::<Vec<_>>();
        let (v4, v6) = ("10.1.0.0/24", "fd00::/64");
        let asked = subnets(
            &cidrs(&[v4, v6]),
            &cidrs(&["fd00::8000/113"]),
            &["10.1.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
        )
        .unwrap();
        let expected = [
            Subnet { subnet: v4.parse().ok(), gateway: "10.1.0.9".parse().ok(), ..Subnet::default() },
            Subnet {
                subnet: v6.parse().ok(),
                ip_range: "fd00::8000/113".parse().ok(),
                gateway: "fd00::9".parse().ok(),
                ..Subnet::default()
            },
        ];
        assert_eq!(asked, expected);

        let refused = |ranges: &[&str], gateways: &[&str]| {
            let gateways: Vec<_> = gateways.iter().map(|g| g.parse().unwrap()).collect();
            subnets(&cidrs(&[v4]), &cidrs(ranges), &gateways).unwrap_err().to_string()
        };
        assert_eq!(refused(&["10.2.0.0/25"], &[]), "no matching subnet for range 10.2.0.0/25");
        assert_eq!(refused(&[], &["10.2.0.1"]), "no matching subnet for gateway 10.2.0.1");
        assert!(refused(&[], &["10.1.0.1", "10.1.0.2"]).contains("multiple gateways (10.1.0.1, 10.1.0.2)"));
        assert!(refused(&["10.1.0.0/25", "10.1.0.128/25"], &[]).contains("multiple ranges"));
    }

    #[test]
    fn a_subnet_is_kept_as_it_was_typed() {
        assert_eq!(cidr("10.0.0.1/24").unwrap().to_string(), "10.0.0.1/24");
        assert!(cidr("10.0.0.1").is_err());
    }
}
