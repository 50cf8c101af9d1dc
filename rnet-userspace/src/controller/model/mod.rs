//! Values of the model.

pub mod engine;
pub mod flow_filter;
pub mod link;
pub mod name;
pub mod options;
pub mod port_spec;
pub mod resolv_conf;
pub mod subnet;
pub mod sysctl;
pub mod timeouts;
pub mod xdp;

use std::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;
use rnet_common::flow::proto;
use serde::{Deserialize, Serialize};

/// A transport protocol that can be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => proto::TCP,
            Self::Udp => proto::UDP,
            Self::Sctp => proto::SCTP,
        }
    }
}

impl Protocol {
    /// The protocol of this number, if it can be published.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!("invalid proto: {s}")),
        }
    }
}

/// One host port: an address of the host (unspecified for all of that family), a port and a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// Where it is published; unspecified for every address of this family.
    pub addr: IpAddr,
    /// The port, in host byte order; never 0 once allocated.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// One published port as the datapath sees it: no ranges, nothing left to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// The host's side.
    pub host: HostPort,
    /// The container's address.
    pub addr: IpAddr,
    /// The container's port, in host byte order.
    pub port: u16,
    /// Number of the list of sources that may use it, as [`crate::controller::backend::Datapath::set_sources`] knows
    /// it; 0 for everybody.
    #[serde(default)]
    pub sources: u32,
    /// The engine whose container it is keeps the host port from other programs, by sockets of its own; else the
    /// datapath does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheld: bool,
}

impl Binding {
    /// A container port that is reached at the container's own address, in gateway mode `routed`: nothing of the
    /// host's is taken for it.
    pub fn routed(addr: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self { host: HostPort { addr, port, protocol }, addr, port, sources: 0, unheld: false }
    }

    /// Whether it is one of [`Binding::routed`].
    pub fn is_routed(&self) -> bool {
        self.host.addr == self.addr
    }
}

/// An Ethernet address, written `02:42:ac:11:00:02`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{s} is not a MAC address");
        let mut octets = [0; 6];
        let mut parts = s.split([':', '-']);
        for octet in &mut octets {
            *octet = parts.next().and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(bad)?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = String;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

/// An interface's address with its prefix length: `172.17.0.2/16`.
pub type InterfaceAddr = IpNetwork;
