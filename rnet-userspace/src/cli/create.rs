//! `rnet network create`.

use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use ipnetwork::IpNetwork;

use crate::controller::request::{CreateNetwork, Subnet};

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
    /// An address that is somebody else's, as printer=10.1.0.5
    #[arg(long = "aux-address", value_name = "NAME=IP", value_parser = aux_address)]
    aux_addresses: Vec<(String, IpAddr)>,
    /// Give IPv4 addresses; --ipv4=false for a network of IPv6 alone
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    ipv4: Option<bool>,
    /// Give IPv6 addresses as well
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        action = ArgAction::Set
    )]
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

impl CreateArgs {
    pub(super) fn into_request(self) -> Result<CreateNetwork> {
        Ok(CreateNetwork {
            subnets: subnets(&self.subnets, &self.ip_ranges, &self.gateways, self.aux_addresses)?,
            name: self.name,
            ipv4: self.ipv4,
            internal: self.internal,
            attachable: self.attachable,
            ipv6: self.ipv6,
            options: self.options.into_iter().collect(),
            labels: self.labels.into_iter().collect(),
        })
    }
}

/// Puts every range and address to the subnet that it lies in.
fn subnets(
    subnets: &[IpNetwork],
    ip_ranges: &[IpNetwork],
    gateways: &[IpAddr],
    aux_addresses: Vec<(String, IpAddr)>,
) -> Result<Vec<Subnet>> {
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
    for (name, addr) in aux_addresses {
        let Some(at) = holder(&mut asked, addr) else { bail!("no matching subnet for aux-address {addr}") };
        if let Some(other) = asked[at].aux.insert(name.clone(), addr) {
            bail!("auxiliary address {name} is given twice: {other}, {addr}");
        }
    }
    Ok(asked)
}

/// Keeps the host's bits, so that the daemon can say what the subnet should be.
pub(super) fn cidr(text: &str) -> Result<IpNetwork, String> {
    let parsed = text.parse().ok().filter(|_| text.contains('/'));
    parsed.ok_or_else(|| "it should be an address and a prefix length, as 10.1.0.0/24".to_owned())
}

pub(super) fn aux_address(text: &str) -> Result<(String, IpAddr), String> {
    let (name, addr) = key_value(text)?;
    match addr.parse() {
        Ok(addr) => Ok((name, addr)),
        Err(_) => Err("it should be as printer=10.1.0.5".to_owned()),
    }
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
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
            vec![aux_address("printer=10.1.0.5").unwrap()],
        )
        .unwrap();
        let expected = [
            Subnet {
                subnet: v4.parse().ok(),
                gateway: "10.1.0.9".parse().ok(),
                aux: [("printer".to_owned(), "10.1.0.5".parse().unwrap())].into(),
                ..Subnet::default()
            },
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
            subnets(&cidrs(&[v4]), &cidrs(ranges), &gateways, Vec::new()).unwrap_err().to_string()
        };
        assert_eq!(refused(&["10.2.0.0/25"], &[]), "no matching subnet for range 10.2.0.0/25");
        assert_eq!(refused(&[], &["10.2.0.1"]), "no matching subnet for gateway 10.2.0.1");
        assert!(refused(&[], &["10.1.0.1", "10.1.0.2"]).contains("multiple gateways (10.1.0.1, 10.1.0.2)"));
        assert!(refused(&["10.1.0.0/25", "10.1.0.128/25"], &[]).contains("multiple ranges"));

        let aux = |texts: &[&str]| {
            let aux = texts.iter().map(|text| aux_address(text).unwrap()).collect();
            subnets(&cidrs(&[v4]), &[], &[], aux).unwrap_err().to_string()
        };
        assert_eq!(aux(&["a=10.2.0.5"]), "no matching subnet for aux-address 10.2.0.5");
        assert_eq!(
            aux(&["a=10.1.0.5", "a=10.1.0.6"]),
            "auxiliary address a is given twice: 10.1.0.5, 10.1.0.6"
        );
        assert!(aux_address("10.1.0.5").is_err() && aux_address("=10.1.0.5").is_err());
    }

    #[test]
    fn a_subnet_is_kept_as_it_was_typed() {
        assert_eq!(cidr("10.0.0.1/24").unwrap().to_string(), "10.0.0.1/24");
        assert!(cidr("10.0.0.1").is_err());
    }
}
