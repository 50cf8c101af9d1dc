//! Which flows are meant: what `rnet conntrack` is told, and what the controller flushes of its own accord.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use rnet_common::flow::proto;
use serde::{Deserialize, Serialize};

use crate::controller::backend::FlowInfo;

/// The flows that agree with everything that is set; all flows when nothing is.
///
/// Addresses and ports are those of the packet that opened the flow, either as it came or as it went on: one of
/// the two must agree as a whole, so that a port of the host never goes with an address of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowFilter {
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
    pub addr: Option<IpNetwork>,
    /// The source port, or an echo request's identifier, in host byte order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// The destination port, in host byte order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
}

impl FlowFilter {
    /// Whether it means a flow that came as `original` and went on as `translated`: source and destination each.
    pub fn matches(
        &self,
        protocol: u8,
        original: (SocketAddr, SocketAddr),
        translated: (SocketAddr, SocketAddr),
    ) -> bool {
        self.protocol.is_none_or(|wanted| wanted == protocol)
            && [original, translated].iter().any(|(src, dst)| self.matches_packet(src, dst))
    }

    /// As [`FlowFilter::matches`], for a flow as it is shown.
    pub fn matches_info(&self, flow: &FlowInfo) -> bool {
        let number = protocol_number(&flow.protocol).unwrap_or_default();
        self.matches(number, (flow.src, flow.dst), (flow.to_src, flow.to_dst))
    }

    fn matches_packet(&self, src: &SocketAddr, dst: &SocketAddr) -> bool {
        let in_net =
            |net: Option<IpNetwork>, addr: &SocketAddr| net.is_none_or(|net| net.contains(addr.ip()));
        in_net(self.src, src)
            && in_net(self.dst, dst)
            && (in_net(self.addr, src) || in_net(self.addr, dst))
            && self.sport.is_none_or(|port| port == src.port())
            && self.dport.is_none_or(|port| port == dst.port())
    }
}

/// Names of the protocols that are tracked.
const PROTOCOLS: [(&str, u8); 5] = [
    ("tcp", proto::TCP),
    ("udp", proto::UDP),
    ("sctp", proto::SCTP),
    ("icmp", proto::ICMP),
    ("icmpv6", proto::ICMPV6),
];

/// The name of an IP protocol, or its number where it is none that is tracked.
pub fn protocol_name(number: u8) -> String {
    let found = PROTOCOLS.iter().find(|(_, known)| *known == number);
    found.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The inverse of [`protocol_name`].
///
/// # Errors
/// Says which names there are.
pub fn protocol_number(text: &str) -> Result<u8, String> {
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*number);
    }
    text.parse().map_err(|_| {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!("invalid protocol {text:?}: {} or a number is allowed", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use rnet_common::flow::proto::{TCP, UDP};

    use super::*;

    /// A client's connection to port 8080 of 192.0.2.1, which is port 80 of a container.
    fn published(filter: FlowFilter) -> bool {
        let ends = |src: &str, dst: &str| (src.parse().unwrap(), dst.parse().unwrap());
        filter.matches(
            TCP,
            ends("198.51.100.7:5000", "192.0.2.1:8080"),
            ends("198.51.100.7:5000", "172.17.0.2:80"),
        )
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn everything_that_is_set_must_agree() {
        let none = FlowFilter::default();
        assert!(published(none));
        assert!(published(FlowFilter { protocol: Some(TCP), src: Some(net("198.51.100.0/24")), ..none }));
        assert!(!published(FlowFilter { protocol: Some(UDP), src: Some(net("198.51.100.0/24")), ..none }));
        assert!(!published(FlowFilter { src: Some(net("192.0.2.1")), ..none }));
        assert!(!published(FlowFilter { src: Some(net("::/0")), ..none }));
        assert!(published(FlowFilter { sport: Some(5000), dport: Some(8080), ..none }));
        assert!(!published(FlowFilter { sport: Some(8080), ..none }));
    }

    #[test]
    fn before_or_after_translation_but_not_half_of_each() {
        let none = FlowFilter::default();
        assert!(published(FlowFilter { dst: Some(net("192.0.2.1")), dport: Some(8080), ..none }));
        assert!(published(FlowFilter { dst: Some(net("172.17.0.0/16")), dport: Some(80), ..none }));
        assert!(!published(FlowFilter { dst: Some(net("192.0.2.1")), dport: Some(80), ..none }));
    }

    #[test]
    fn protocols_have_names() {
        for number in 0..=u8::MAX {
            assert_eq!(protocol_number(&protocol_name(number)), Ok(number));
        }
        assert_eq!(protocol_number("UDP"), Ok(UDP));
        let error = protocol_number("carrier-pigeon").unwrap_err();
        assert_eq!(
            error,
            "invalid protocol \"carrier-pigeon\": tcp, udp, sctp, icmp, icmpv6 or a number is allowed"
        );
    }

    #[test]
    fn an_address_may_be_at_either_end() {
        let none = FlowFilter::default();
        for addr in ["198.51.100.7", "192.0.2.1", "172.17.0.2"] {
            assert!(published(FlowFilter { addr: Some(net(addr)), ..none }), "{addr}");
        }
        assert!(!published(FlowFilter { addr: Some(net("192.0.2.2")), ..none }));
        assert!(!published(FlowFilter { addr: Some(net("192.0.2.1")), src: Some(net("192.0.2.1")), ..none }));
    }
}
