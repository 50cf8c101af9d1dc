//! How packets are shown: with names in the place of numbers, and whose they are.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use rnet_common::{
    Ip6, Program, Reason, TraceRecord, Tuple,
    flow::proto,
    trace::{Call, narrowed, trace_flags},
};
use serde::{Deserialize, Serialize};

use super::ethertype;
use crate::controller::{model::flow_filter::protocol_name, view};

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
    use rnet_common::Be16;

    use super::*;
    use crate::controller::packets::testing::record;

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
