//! What `run` and `attach` say about a container's networks and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ipnetwork::IpNetwork;

use crate::controller::{
    model::MacAddr,
    request::{Connect, CreateContainer},
};

/// A container's networks and ports.
#[derive(Debug, Default, Args)]
pub(super) struct NetworkArgs {
    /// A network by name or id, bridge, none, host or container:NAME; more than one, or with what belongs to it, as
    /// name=NET,alias=A,ip=IP,ip6=IP,mac-address=MAC,gw-priority=N
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// A name, beside its own, under which other containers of the first network find it
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// A fixed IPv4 address on the first network
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address on the first network
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    /// A fixed Ethernet address on the first network
    #[arg(long, value_name = "MAC")]
    mac_address: Option<MacAddr>,
    /// Publish a port: [[HOSTIP:][HOSTPORT[-HOSTPORT]]:]PORT[-PORT][/tcp|udp|sctp]
    #[arg(short, long, value_name = "SPEC")]
    publish: Vec<String>,
    /// Only these sources may use the published ports
    #[arg(long, value_name = "CIDR")]
    from: Vec<IpNetwork>,
    /// Publish every exposed port on a port that nobody has
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// A port that it listens at: PORT[-PORT][/tcp|udp|sctp]
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// A name server, in place of the host's
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// A search domain, in place of the host's; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf, in place of the host's
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
}

impl NetworkArgs {
    /// A request with what was said, and nothing else.
    ///
    /// # Errors
    /// In Docker's words.
    pub(super) fn into_request(self) -> Result<CreateContainer> {
        let mut networks = self.network.iter().map(|text| network(text)).collect::<Result<Vec<_>>>()?;
        if networks.is_empty() {
            networks.push(Connect::to("bridge"));
        }
        if let Some(first) = networks.first_mut() {
            set(&mut first.ip, self.ip, "--ip", "IPv4 address")?;
            set(&mut first.ip6, self.ip6, "--ip6", "IPv6 address")?;
            set(&mut first.mac, self.mac_address, "--mac-address", "MAC address")?;
            if !self.network_alias.is_empty() && !first.aliases.is_empty() {
                bail!("conflicting options: cannot specify both --network-alias and per-network alias");
            }
            first.aliases.extend(self.network_alias);
        }
        Ok(CreateContainer {
            networks,
            publish: self.publish,
            from: self.from,
            publish_all: self.publish_all,
            expose: self.expose,
            dns: self.dns,
            dns_search: self.dns_search,
            dns_options: self.dns_option,
            ..CreateContainer::default()
        })
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>, option: &str, what: &str) -> Result<()> {
    if value.is_some() && field.is_some() {
        bail!("conflicting options: cannot specify both {option} and per-network {what}");
    }
    *field = value.or(field.take());
    Ok(())
}

/// `NET`, or `name=NET,…`.
pub(super) fn network(text: &str) -> Result<Connect> {
    if !text.contains('=') {
        return Ok(Connect::to(text));
    }
    let mut connect = Connect::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').with_context(|| format!("invalid field {field}"))?;
        let invalid = || format!("invalid value for '{key}': '{value}'");
        match key.to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut connect.network),
            "alias" => connect.aliases.push(value.to_owned()),
            "ip" => connect.ip = Some(value.parse().with_context(invalid)?),
            "ip6" => connect.ip6 = Some(value.parse().with_context(invalid)?),
            "mac-address" => {
                connect.mac = Some(value.parse().map_err(anyhow::Error::msg).with_context(invalid)?);
            }
            "gw-priority" => connect.gw_priority = value.parse().with_context(invalid)?,
            _ => {
                bail!("invalid field key {key}: known are name, alias, ip, ip6, mac-address and gw-priority")
            }
        }
    }
    if connect.network.is_empty() {
        bail!("network name/id is not specified");
    }
    Ok(connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(networks: &[&str]) -> NetworkArgs {
        NetworkArgs { network: networks.iter().map(|n| (*n).to_owned()).collect(), ..NetworkArgs::default() }
    }

    #[test]
    fn networks_are_named_or_described() {
        let asked =
            args(&["n1", "name=n2,alias=a,alias=b,ip=10.0.0.2,gw-priority=-1,MAC-address=02:00:00:00:00:01"]);
        let asked = NetworkArgs { ip: "10.1.0.2".parse().ok(), network_alias: vec!["c".into()], ..asked };
        let request = asked.into_request().unwrap();
        let first = Connect { ip: "10.1.0.2".parse().ok(), aliases: vec!["c".into()], ..Connect::to("n1") };
        let second = Connect {
            ip: "10.0.0.2".parse().ok(),
            aliases: vec!["a".into(), "b".into()],
            gw_priority: -1,
            mac: "02:00:00:00:00:01".parse().ok(),
            ..Connect::to("n2")
        };
        assert_eq!(request.networks, [first, second]);
        assert_eq!(args(&[]).into_request().unwrap().networks, [Connect::to("bridge")]);
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (network, expected) in [
            ("name=n1,x", "invalid field x"),
            ("name=n1,x=y", "invalid field key x"),
            ("alias=a", "network name/id is not specified"),
            ("name=n1,ip=1", "invalid value for 'ip': '1'"),
        ] {
            let told = format!("{:#}", args(&[network]).into_request().unwrap_err());
            assert!(told.starts_with(expected), "{told}");
        }
        let both = NetworkArgs { ip: "10.0.0.1".parse().ok(), ..args(&["name=n1,ip=10.0.0.2"]) };
        let told = both.into_request().unwrap_err().to_string();
        assert_eq!(told, "conflicting options: cannot specify both --ip and per-network IPv4 address");
        let both = NetworkArgs { network_alias: vec!["a".into()], ..args(&["name=n1,alias=b"]) };
        assert!(
            both.into_request().unwrap_err().to_string().contains("both --network-alias and per-network")
        );
    }
}
