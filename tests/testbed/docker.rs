//! A host whose NAT is iptables, with the rules that Docker makes for one bridge network.

use std::{net::Ipv4Addr, time::Duration};

use crate::{Host, Netns, process, topology};

const LIMIT: Duration = Duration::from_secs(20);

/// The container's address.
pub const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
/// The bridge.
pub const BRIDGE: &str = "docker0";

/// Docker's rules where userland-proxy is off, before those of each published port.
const RULES: &str = "
    -t nat -N DOCKER
    -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
    -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    -t nat -A POSTROUTING -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE
    -P FORWARD DROP
    -N DOCKER
    -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A FORWARD -o docker0 -j DOCKER
    -A FORWARD -i docker0 -j ACCEPT";

/// Makes the bridge and one container on `host`, which publishes `ports`: protocol, port of the host, port of the
/// container. Nothing when there is no iptables that works inside a namespace.
///
/// # Panics
/// When anything but the first rule cannot be made.
pub fn container(host: &Host, ports: &[(&str, u16, u16)]) -> Option<Netns> {
    let tool = ["iptables-legacy", "iptables-nft", "iptables"]
        .into_iter()
        .find(|tool| host.ns.output_of(tool, &["-w", "-t", "nat", "-S"]).is_some())?;
    let container = Netns::new("container");
    host.ns.set_sysctl("net/ipv4/ip_forward", "1");
    host.ns.ip(&format!(
        "link add {BRIDGE} type bridge
         addr add 172.17.0.1/16 dev {BRIDGE}
         link set {BRIDGE} up
         link add veth0 type veth peer name eth0 netns {}
         link set veth0 master {BRIDGE} up",
        container.name()
    ));
    // Where br_netfilter is loaded it would bridge what a container sends to itself, instead of routing it.
    if host.ns.output_of("cat", &["/proc/sys/net/bridge/bridge-nf-call-iptables"]).is_some() {
        host.ns.set_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    }
    container.ip(&format!(
        "link set eth0 up
         addr add {CONTAINER}/16 dev eth0
         route add default via 172.17.0.1"
    ));
    topology::wait_for_carrier(&host.ns, BRIDGE);
    let mut rules: Vec<String> = RULES.lines().map(str::to_owned).collect();
    for (protocol, outer, inner) in ports {
        let to = format!("-p {protocol} --dport {inner} -j");
        rules.extend([
            format!(
                "-t nat -A DOCKER -p {protocol} --dport {outer} -j DNAT --to-destination {CONTAINER}:{inner}"
            ),
            format!("-t nat -A POSTROUTING -s {CONTAINER} -d {CONTAINER} {to} MASQUERADE"),
            format!("-A DOCKER -d {CONTAINER} ! -i {BRIDGE} -o {BRIDGE} {to} ACCEPT"),
        ]);
    }
    rules.push(format!("-A DOCKER ! -i {BRIDGE} -o {BRIDGE} -j DROP"));
    for rule in rules.iter().filter(|r| !r.trim().is_empty()) {
        let mut command = host.ns.command(tool);
        command.arg("-w").args(rule.split_whitespace());
        process::run(command, LIMIT).assert_ok(&format!("{tool} {}", rule.trim()));
    }
    Some(container)
}
