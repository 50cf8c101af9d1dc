//! Which packets are asked for, and what the programs are told of it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rnet_common::{
    Be16, Ip6, Reason, TraceFilter,
    trace::{Prefix, widened},
};
use serde::{Deserialize, Serialize};

use super::ethertype;
use crate::controller::{
    error::{Error, Result},
    view,
};

/// Which packets are meant: those that agree with everything that is set, as they came or as they left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PacketFilter {
    /// IP protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// The source lies in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpNetwork>,
    /// The destination lies in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpNetwork>,
    /// The source or the destination lies in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<IpNetwork>,
    /// The source port, in host byte order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// The destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Either port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Name of the interface of the host at which a program sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// A container: what comes through its interfaces, and what has one of its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Names of reasons, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `carried`, `passed` or `dropped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

impl PacketFilter {
    /// What the programs are told. `container` is the one that is named, `index` tells an interface's.
    ///
    /// # Errors
    /// Something is unknown, or contradicts itself.
    pub fn resolve(
        &self,
        container: Option<&view::Container>,
        index: impl Fn(&str) -> Option<u32>,
    ) -> Result<Vec<TraceFilter>> {
        let port = |port: Option<u16>| Be16::new(port.unwrap_or_default());
        let index = |name: &str| index(name).ok_or_else(|| Error::NotFound(format!("no interface {name}")));
        let mut all = TraceFilter {
            reasons: self.reasons()?,
            sport: port(self.sport),
            dport: port(self.dport),
            port: port(self.port),
            proto: self.protocol.unwrap_or_default(),
            ..TraceFilter::default()
        };
        for (net, prefix) in [(self.src, &mut all.src), (self.dst, &mut all.dst), (self.host, &mut all.host)]
        {
            if let Some(net) = net {
                *prefix = prefix_of(net);
                set_family(&mut all.ethertype, net)?;
            }
        }
        if let Some(interface) = &self.interface {
            all.ifindex = index(interface)?;
        }
        let Some(container) = container else { return Ok(vec![all]) };
        let (mut filters, mut addresses) = (Vec::new(), Vec::new());
        for endpoint in &container.endpoints {
            addresses.extend(endpoint.addrs.iter().map(|addr| addr.ip()));
            let ifindex = index(&endpoint.host_interface)?;
            if [0, ifindex].contains(&all.ifindex) {
                filters.push(TraceFilter { ifindex, ..all });
            }
        }
        if filters.is_empty() && addresses.is_empty() {
            return Err(Error::Invalid(format!("container {} has no interface of rnet's", container.name)));
        }
        for addr in addresses {
            let (net, mut filter) = (IpNetwork::from(addr), all);
            if set_family(&mut filter.ethertype, net).is_err() {
                continue;
            }
            // A place for the container's address among those that nothing is asked of yet.
            match (self.host, self.src, self.dst) {
                (None, _, _) => filters.push(TraceFilter { host: prefix_of(net), ..filter }),
                (Some(_), src, dst) => {
                    if src.is_none() {
                        filters.push(TraceFilter { src: prefix_of(net), ..filter });
                    }
                    if dst.is_none() {
                        filters.push(TraceFilter { dst: prefix_of(net), ..filter });
                    }
                }
            }
        }
        Ok(filters)
    }

    fn reasons(&self) -> Result<u64> {
        let verdict = self.verdict.as_deref();
        if let Some(verdict) = verdict.filter(|v| !["carried", "passed", "dropped"].contains(v)) {
            return Err(Error::Invalid(format!(
                "invalid verdict {verdict:?}: carried, passed or dropped is allowed"
            )));
        }
        let names: Vec<&str> = self.reason.iter().flat_map(|names| names.split(',')).collect();
        if let Some(unknown) = names.iter().find(|name| !Reason::ALL.iter().any(|r| r.name() == **name)) {
            let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
            return Err(Error::Invalid(format!("no reason {unknown:?}: there are {}", known.join(", "))));
        }
        let is_meant = |reason: &&Reason| {
            verdict.is_none_or(|verdict| verdict == reason.verdict().name())
                && (names.is_empty() || names.contains(&reason.name()))
        };
        let bits = Reason::ALL.iter().filter(is_meant).map(|reason| 1 << *reason as u8);
        match bits.fold(0, |bits, bit: u64| bits | bit) {
            0 => Err(Error::Invalid("no packet is given such a verdict for such a reason".to_owned())),
            bits => Ok(bits),
        }
    }
}

/// Addresses of both families never agree.
fn set_family(ethertype: &mut Be16, net: IpNetwork) -> Result<()> {
    let wanted = Be16::new(if net.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 });
    if ![Be16::ZERO, wanted].contains(ethertype) {
        return Err(Error::Invalid("one packet has addresses of one family: IPv4 or IPv6".to_owned()));
    }
    *ethertype = wanted;
    Ok(())
}

fn prefix_of(net: IpNetwork) -> Prefix {
    Prefix { addr: wide(net.network()), mask: wide(net.mask()) }
}

/// As records have addresses.
pub(super) fn wide(addr: IpAddr) -> Ip6 {
    match addr {
        IpAddr::V4(addr) => widened(addr.into()),
        IpAddr::V6(addr) => addr.into(),
    }
}

#[cfg(test)]
mod tests {
    use rnet_common::{TraceRecord, flow::proto};

    use super::*;
    use crate::controller::packets::testing::record;

    fn resolved(filter: &PacketFilter) -> Result<Vec<TraceFilter>> {
        filter.resolve(None, |name| (name == "eth0").then_some(7))
    }

    fn means(filter: PacketFilter, record: &TraceRecord) -> bool {
        resolved(&filter).unwrap().iter().any(|filter| filter.matches(record))
    }

    #[test]
    fn a_packet_is_meant_as_it_came_or_as_it_left() {
        let published = record(
            "198.51.100.7:5000",
            "192.0.2.1:8080",
            Some(("198.51.100.7:5000", "172.17.0.2:80")),
            Reason::Published,
        );
        let net = |text: &str| Some(text.parse().unwrap());
        let none = PacketFilter::default();
        assert!(means(none.clone(), &published));
        assert!(means(
            PacketFilter { host: net("172.17.0.0/16"), port: Some(80), ..none.clone() },
            &published
        ));
        assert!(means(
            PacketFilter { src: net("198.51.100.7"), dport: Some(8080), ..none.clone() },
            &published
        ));
        assert!(!means(PacketFilter { dst: net("192.0.2.1"), dport: Some(80), ..none.clone() }, &published));
        assert!(!means(PacketFilter { protocol: Some(proto::UDP), ..none.clone() }, &published));
        assert!(!means(PacketFilter { src: net("::/0"), ..none.clone() }, &published));
        assert!(means(PacketFilter { interface: Some("eth0".into()), ..none.clone() }, &published));
        assert!(means(PacketFilter { reason: Some("spoofed,published".into()), ..none.clone() }, &published));
        assert!(!means(PacketFilter { verdict: Some("dropped".into()), ..none }, &published));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        let none = PacketFilter::default();
        let refused = |filter: PacketFilter| resolved(&filter).unwrap_err().to_string();
        assert_eq!(
            refused(PacketFilter { verdict: Some("lost".into()), ..none.clone() }),
            "invalid verdict \"lost\": carried, passed or dropped is allowed"
        );
        let unknown = refused(PacketFilter { reason: Some("spoofed,odd".into()), ..none.clone() });
        assert!(unknown.starts_with("no reason \"odd\": there are published, "), "{unknown}");
        assert_eq!(
            refused(PacketFilter { interface: Some("eth9".into()), ..none.clone() }),
            "no interface eth9"
        );
        let both = PacketFilter {
            src: Some("10.0.0.1".parse().unwrap()),
            dst: Some("fd00::1".parse().unwrap()),
            ..none.clone()
        };
        assert_eq!(refused(both), "one packet has addresses of one family: IPv4 or IPv6");
        let never =
            PacketFilter { reason: Some("published".into()), verdict: Some("dropped".into()), ..none };
        assert_eq!(refused(never), "no packet is given such a verdict for such a reason");
    }
}
