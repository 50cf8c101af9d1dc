//! Packets as the programs see them: which are asked for, and how they are shown.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use ipnetwork::IpNetwork;
use rnet_common::{
    Be16, Ip6, Program, Reason, TraceFilter, TraceRecord, Tuple,
    flow::proto,
    trace::{Call, Prefix, narrowed, trace_flags, widened},
};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{
    error::{Error, Result as Answer},
    model::flow_filter::protocol_name,
    view,
};

/// EtherTypes (IEEE 802), in host byte order.
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const IPV6: u16 = 0x86dd;
}

/// Where packets can be looked at.
pub trait Packets: Send + Sync {
    /// Looks for packets that one of `filters` means.
    ///
    /// # Errors
    /// Too many are looked for already, or the kernel refuses.
    fn look(&self, filters: Vec<TraceFilter>) -> Result<Look>;
}

/// A look at packets.
pub struct Look {
    /// What is seen: also what others look for.
    pub told: broadcast::Receiver<Looked>,
    /// What is looked for.
    pub filters: Vec<TraceFilter>,
    /// Ends the look when it is dropped.
    pub until_dropped: Box<dyn Send>,
}

/// Something seen.
#[derive(Clone, Copy, Debug)]
pub enum Looked {
    /// A packet.
    Packet(TraceRecord),
    /// So many packets were not written down, because there were too many.
    Lost(u64),
}

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
    ) -> Answer<Vec<TraceFilter>> {
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

    fn reasons(&self) -> Answer<u64> {
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
fn set_family(ethertype: &mut Be16, net: IpNetwork) -> Answer<()> {
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
fn wide(addr: IpAddr) -> Ip6 {
    match addr {
        IpAddr::V4(addr) => widened(addr.into()),
        IpAddr::V6(addr) => addr.into(),
    }
}

/// Source and destination of a packet. The ports are 0 where there are none; an ICMP echo has its identifier as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
}

/// A process of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// Its name, as the kernel keeps it: 15 bytes at most.
    pub name: String,
}

/// A packet at a program, or a call of a process that was led to a published port or refused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// When, in nanoseconds since 1970.
    pub time_nano: i64,
    /// The program.
    pub program: String,
    /// The interface of the host that it runs on; empty for a call.
    pub interface: String,
    /// Who calls. Of a call the source is where its socket is bound, or wants to be, and the destination what it addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The container whose interface that is, or whose address the packet had or got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The network by which it has that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `tcp`, `udp`, `icmp`, …; `arp`, or the EtherType of what else is not IP, as `0x88cc`.
    pub protocol: String,
    /// Flags of a TCP segment as tcpdump(8) has them, or the type of an ICMP message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Bytes, from the Ethernet header on.
    pub length: u32,
    /// As it came; absent where it is not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came: Option<Ends>,
    /// As it left, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Ends>,
    /// It has opened a flow.
    pub opened: bool,
    /// What has decided: `flow`, one that was known; `port`, one that is published; `endpoint`, a container's address;
    /// `none`.
    pub matched: String,
    /// `carried`, `passed` or `dropped`.
    pub verdict: String,
    /// Why: the name of the reason.
    pub reason: String,
    /// What the reason means.
    pub meaning: String,
}

/// What a trace tells, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// A packet.
    Packet(Box<Packet>),
    /// So many were not told, because there were too many at once.
    Lost(u64),
}

/// Whose interfaces and addresses there are.
#[derive(Debug, Default)]
pub struct Names {
    interfaces: HashMap<String, Name>,
    addrs: HashMap<IpAddr, Name>,
}

/// A container on a network.
#[derive(Clone, Debug)]
struct Name {
    container: String,
    network: String,
}

impl Names {
    /// Those of containers.
    pub fn of(containers: &[view::Container]) -> Self {
        let mut names = Self::default();
        for container in containers {
            for endpoint in &container.endpoints {
                let name = Name { container: container.name.clone(), network: endpoint.network.clone() };
                names.addrs.extend(endpoint.addrs.iter().map(|addr| (addr.ip(), name.clone())));
                names.interfaces.insert(endpoint.host_interface.clone(), name);
            }
        }
        names
    }

    /// How a record is shown. `interface` is the name of its interface; `epoch` the time, in nanoseconds since 1970, at
    /// which the records' clock began.
    pub fn show(&self, record: &TraceRecord, interface: String, epoch: i64) -> Packet {
        let reason = Reason::ALL.iter().find(|reason| **reason as u8 == record.reason);
        let programs = Program::ALL.iter().map(|program| (*program as u8, program.name()));
        let calls = Call::ALL.iter().map(|call| (*call as u8, call.name()));
        let program = programs.chain(calls).find(|(number, _)| *number == record.program);
        let process =
            (record.process != 0).then(|| Process { id: record.process, name: text_of(&record.comm) });
        let v6 = match record.ethertype.get() {
            ethertype::IPV4 => Some(false),
            ethertype::IPV6 => Some(true),
            _ => None,
        };
        let came = v6.map(|v6| ends(&record.came, v6));
        let left = v6.map(|v6| ends(&record.left, v6)).filter(|left| Some(*left) != came);
        let addrs = [came, left].into_iter().flatten().flat_map(|ends| [ends.src.ip(), ends.dst.ip()]);
        let by_addr = || addrs.into_iter().find_map(|addr| self.addrs.get(&addr));
        let name = self.interfaces.get(&interface).or_else(by_addr).cloned();
        let (container, network) = name.map(|name| (name.container, name.network)).unzip();
        let opened = record.flags & trace_flags::NEW_FLOW != 0;
        Packet {
            time_nano: i64::try_from(record.time).unwrap_or_default().saturating_add(epoch),
            program: program.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            interface,
            container,
            network,
            protocol: match record.ethertype.get() {
                ethertype::IPV4 | ethertype::IPV6 => protocol_name(record.proto),
                ethertype::ARP => "arp".to_owned(),
                other => format!("{other:#06x}"),
            },
            detail: match record.proto {
                _ if process.is_some() => String::new(),
                proto::TCP => tcp_flags(record.detail),
                proto::ICMP | proto::ICMPV6 => format!("type {}", record.detail),
                _ => String::new(),
            },
            length: record.length,
            process,
            came,
            left,
            opened,
            matched: reason
                .map(|reason| matched(*reason, opened || record.process != 0))
                .unwrap_or_default()
                .to_owned(),
            verdict: reason.map(|reason| reason.verdict().name().to_owned()).unwrap_or_default(),
            reason: reason.map(|reason| reason.name().to_owned()).unwrap_or_default(),
            meaning: reason.map(|reason| reason.meaning().to_owned()).unwrap_or_default(),
        }
    }
}

/// What has decided, of the packet's flow, the port that it asks for and the containers that it is from or to.
fn matched(reason: Reason, opened: bool) -> &'static str {
    let opens_port = matches!(reason, Reason::Published | Reason::Hairpin | Reason::Held);
    let is_of_flow = matches!(
        reason,
        Reason::Published
            | Reason::PublishedReply
            | Reason::Masqueraded
            | Reason::MasqueradedReply
            | Reason::Hairpin
            | Reason::HairpinReply
            | Reason::Routed
            | Reason::RoutedReply
            | Reason::Direct
            | Reason::DirectReply
            | Reason::Related
    );
    let is_of_port =
        matches!(reason, Reason::HostSocket | Reason::Source | Reason::NoEndpoint | Reason::Held);
    let is_of_endpoint = matches!(
        reason,
        Reason::Switched
            | Reason::ToHost
            | Reason::ViaStack
            | Reason::Untranslatable
            | Reason::NoFlowOut
            | Reason::OtherNetwork
            | Reason::Unpublished
            | Reason::IccDisabled
            | Reason::Internal
    );
    match opened {
        true if opens_port => "port",
        true => "endpoint",
        false if is_of_flow => "flow",
        false if is_of_port => "port",
        false if is_of_endpoint => "endpoint",
        false => "none",
    }
}

/// What is before the first zero.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn ends(tuple: &Tuple<Ip6>, v6: bool) -> Ends {
    let addr = |addr: Ip6| match v6 {
        true => IpAddr::V6(addr.into()),
        false => IpAddr::V4(narrowed(addr).into()),
    };
    Ends {
        src: (addr(tuple.src), tuple.sport.get()).into(),
        dst: (addr(tuple.dst), tuple.dport.get()).into(),
    }
}

/// As tcpdump(8) writes them: `S.` for SYN and ACK.
fn tcp_flags(bits: u8) -> String {
    const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];
    let set = LETTERS.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    // The acknowledgement comes last there.
    let (ack, mut flags): (Vec<char>, Vec<char>) = set.map(|(_, letter)| *letter).partition(|l| *l == '.');
    flags.extend(ack);
    flags.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(src: &str, dst: &str, left: Option<(&str, &str)>, reason: Reason) -> TraceRecord {
        let tuple = |src: &str, dst: &str| {
            let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            Tuple {
                src: wide(src.ip()),
                dst: wide(dst.ip()),
                sport: Be16::new(src.port()),
                dport: Be16::new(dst.port()),
            }
        };
        let v6 = src.starts_with('[');
        let came = tuple(src, dst);
        TraceRecord {
            came,
            left: left.map_or(came, |(src, dst)| tuple(src, dst)),
            ifindex: 7,
            ethertype: Be16::new(if v6 { ethertype::IPV6 } else { ethertype::IPV4 }),
            proto: proto::TCP,
            detail: 0x12,
            reason: reason as u8,
            program: Program::FromUplink as u8,
            ..TraceRecord::default()
        }
    }

    fn resolved(filter: &PacketFilter) -> Answer<Vec<TraceFilter>> {
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

    #[test]
    fn a_packet_is_shown_with_names() {
        let names = Names {
            interfaces: HashMap::new(),
            addrs: [(
                "172.17.0.2".parse().unwrap(),
                Name { container: "web".into(), network: "front".into() },
            )]
            .into(),
        };
        let published = record(
            "198.51.100.7:5000",
            "192.0.2.1:8080",
            Some(("198.51.100.7:5000", "172.17.0.2:80")),
            Reason::Published,
        );
        let shown = names.show(&TraceRecord { time: 5, ..published }, "eth0".to_owned(), 1000);
        assert_eq!(
            (shown.time_nano, shown.container.as_deref(), shown.protocol.as_str(), shown.detail.as_str()),
            (1005, Some("web"), "tcp", "S.")
        );
        assert_eq!(shown.left.unwrap().dst, "172.17.0.2:80".parse().unwrap());
        assert_eq!((shown.verdict.as_str(), shown.reason.as_str()), ("carried", "published"));
        assert_eq!(
            (shown.network.as_deref(), shown.opened, shown.matched.as_str()),
            (Some("front"), false, "flow")
        );
        let first = TraceRecord { flags: trace_flags::NEW_FLOW, ..published };
        assert_eq!(names.show(&first, "eth0".to_owned(), 0).matched, "port");

        let v6 = names.show(&record("[fd00::1]:1", "[fd00::2]:2", None, Reason::ToHost), "eth0".into(), 0);
        assert_eq!(v6.came.unwrap().src, "[fd00::1]:1".parse().unwrap());
        assert_eq!((v6.left, v6.container), (None, None));
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"curl");
        let call = TraceRecord {
            program: Call::Connect4 as u8,
            process: 77,
            comm,
            ifindex: 0,
            detail: 0,
            ..record("0.0.0.0:0", "127.0.0.1:8080", Some(("0.0.0.0:0", "172.17.0.2:80")), Reason::Published)
        };
        let shown = names.show(&call, String::new(), 0);
        assert_eq!(shown.process, Some(Process { id: 77, name: "curl".to_owned() }));
        assert_eq!(
            (shown.program.as_str(), shown.container.as_deref(), shown.matched.as_str(), shown.opened),
            ("sock_connect4", Some("web"), "port", false)
        );
        let arp = TraceRecord { ethertype: Be16::new(ethertype::ARP), ..TraceRecord::default() };
        assert_eq!(names.show(&arp, "veth1".into(), 0).protocol, "arp");
    }
}
