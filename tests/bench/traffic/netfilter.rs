//! The ways of the host's own packet filter, with the rules that Docker makes.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::Result;
use testbed::{Host, Netns, topology::UPLINK};

use super::{
    path::{PORT, feed},
    sites::{Bridged, CONTAINER, CONTAINER6, SUBNET, SUBNET6},
};

/// Which of its tools makes the rules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `iptables-legacy`.
    Legacy,
    /// `iptables-nft`.
    Nft,
}

/// Ports that are published besides the one that is measured, all before it.
fn others(published: u32) -> impl Iterator<Item = u32> {
    10_001..10_000 + published
}

/// Makes Docker's rules for both families, with so many published ports of which the measured one is the last.
///
/// # Errors
/// When they are not taken.
pub(crate) fn docker(host: &Host, tool: Tool, published: u32) -> Result<()> {
    let kind = if tool == Tool::Legacy { "legacy" } else { "nft" };
    // Only one at a time may change rules on a machine, whichever namespace they are of.
    let wait = &["--wait"];
    feed(&host.ns, &format!("iptables-{kind}-restore"), wait, &rules(CONTAINER.into(), SUBNET, published))?;
    feed(&host.ns, &format!("ip6tables-{kind}-restore"), wait, &rules(CONTAINER6.into(), SUBNET6, published))
}

/// What publishes one port of a container: each rule behind the table that it is in, from its chain on.
pub(crate) fn of_port(
    container: IpAddr,
    protocol: &str,
    outer: u32,
    inner: u32,
) -> [(&'static str, String); 3] {
    let (bits, to) = match container {
        IpAddr::V4(addr) => (32, addr.to_string()),
        IpAddr::V6(addr) => (128, format!("[{addr}]")),
    };
    let own = format!("{container}/{bits}");
    let port = |port: u32| format!("-p {protocol} -m {protocol} --dport {port}");
    let (outer, port) = (port(outer), port(inner));
    [
        ("nat", format!("DOCKER {outer} -j DNAT --to-destination {to}:{inner}")),
        ("filter", format!("DOCKER -d {own} ! -i docker0 -o docker0 {port} -j ACCEPT")),
        ("nat", format!("POSTROUTING -s {own} -d {own} {port} -j MASQUERADE")),
    ]
}

/// As Docker Engine 27 makes them with its user-space proxy off.
fn rules(container: IpAddr, subnet: &str, published: u32) -> String {
    let loopback = if container.is_ipv4() { "127.0.0.0/8" } else { "::1/128" };
    let (mut masquerade, mut dnat, mut accept) = (String::new(), String::new(), String::new());
    let mut publish = |protocol: &str, outer: u32, inner: u32| {
        let rules = of_port(container, protocol, outer, inner);
        for (text, (_, rule)) in [&mut dnat, &mut accept, &mut masquerade].into_iter().zip(rules) {
            let _ = writeln!(text, "-A {rule}");
        }
    };
    for port in others(published) {
        publish("tcp", port, port);
    }
    publish("udp", PORT.into(), PORT.into());
    publish("tcp", PORT.into(), PORT.into());
    format!(
        "*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d {loopback} -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {subnet} ! -o docker0 -j MASQUERADE
{masquerade}{dnat}COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
{accept}-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"
    )
}

/// The same with maps and sets, as one would write it by hand for nftables.
///
/// # Errors
/// When the rules are not taken.
pub(crate) fn nft(host: &Host) -> Result<()> {
    let mut rules = String::new();
    for (family, container, subnet) in
        [("ip", IpAddr::from(CONTAINER), SUBNET), ("ip6", IpAddr::from(CONTAINER6), SUBNET6)]
    {
        let _ = write!(
            rules,
            "table {family} published {{
    map ports {{
        type inet_proto . inet_service : {kind} . inet_service
        elements = {{ tcp . {PORT} : {container} . {PORT}, udp . {PORT} : {container} . {PORT} }}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat
        fib daddr type local dnat {family} to meta l4proto . th dport map @ports
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        {family} saddr {subnet} oifname != \"docker0\" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        oifname \"docker0\" ct status dnat accept
        iifname \"docker0\" accept
    }}
}}
",
            kind = if family == "ip" { "ipv4_addr" } else { "ipv6_addr" },
        );
    }
    feed(&host.ns, "nft", &["-f", "-"], &rules)
}

/// A firewall without any translation, which lets connections to the measured port begin and go on.
///
/// # Errors
/// When the rules are not taken.
pub(super) fn stateful(host: &Host) -> Result<()> {
    let rules = format!(
        "table inet firewall {{
    chain forward {{
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        ct state invalid drop
        iifname \"{UPLINK}\" meta l4proto {{ tcp, udp }} th dport {PORT} ct state new accept
    }}
}}
"
    );
    feed(&host.ns, "nft", &["-f", "-"], &rules)
}

/// Whether the bridge asks the packet filter about what passes through it (`br_netfilter`).
pub(super) fn filter_bridge(ns: &Netns, on: bool) {
    for family in ["ip", "ip6"] {
        let key = format!("net/bridge/bridge-nf-call-{family}tables");
        if ns.output_of("cat", &[&format!("/proc/sys/{key}")]).is_some() {
            ns.set_sysctl(&key, if on { "1" } else { "0" });
        }
    }
}

/// A bridge whose packets the filter does not see, as on a host without `br_netfilter`.
pub(super) fn unfiltered(host: &Host) -> Bridged {
    filter_bridge(&host.ns, false);
    Bridged::new(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_port_is_the_last_of_as_many_as_asked_for() {
        let rules = rules(CONTAINER.into(), SUBNET, 1000);
        let dnat: Vec<&str> = rules.lines().filter(|l| l.contains("-p tcp") && l.contains("DNAT")).collect();
        assert_eq!(dnat.len(), 1000);
        assert!(dnat[999].contains("--dport 8080 "), "{}", dnat[999]);
    }
}
