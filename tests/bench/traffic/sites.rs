//! The hosts that paths lead through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use testbed::{
    Host, Netns, Rnet,
    topology::{self, CLIENT, HOST, UPLINK},
};

use super::path::{Owned, PORT, Path};

/// The container where rnet makes none.
pub(crate) const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
pub(super) const CONTAINER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 2);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 3);
pub(super) const SUBNET: &str = "172.17.0.0/16";
pub(super) const SUBNET6: &str = "fd00:17::/64";
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// Which of a site's addresses a path is measured by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(self, v4: Ipv4Addr, v6: Ipv6Addr) -> IpAddr {
        match self {
            Self::V4 => v4.into(),
            Self::V6 => v6.into(),
        }
    }
}

/// Who asks whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The client outside, a published port of the host.
    Published,
    /// A container, the client outside.
    Egress,
    /// The host, a published port at a loopback address.
    Loopback,
    /// The host, the container's own address.
    Direct,
    /// A container, another at its own address.
    Neighbour,
    /// A container, another by a published port of the host.
    Hairpin,
}

/// Gives host and client addresses of IPv6, too.
fn dual(host: &Host) {
    host.client.ip(&format!("addr add {CLIENT6}/64 dev {UPLINK} nodad"));
    host.ns.ip(&format!(
        "addr add {HOST6}/64 dev {UPLINK} nodad
         -6 route add default via {CLIENT6}"
    ));
}

/// Has the host forward.
pub(super) fn forward(host: &Host) {
    host.ns.set_sysctl("net/ipv4/ip_forward", "1");
    host.ns.set_sysctl("net/ipv6/conf/all/forwarding", "1");
}

/// Two containers on a bridge, by the host's own means.
pub(super) struct Bridged {
    container: Netns,
    neighbour: Netns,
}

impl Bridged {
    /// Makes the bridge and its containers, and has the host forward.
    pub(super) fn new(host: &Host) -> Self {
        dual(host);
        host.ns.ip("link add docker0 type bridge
                    addr add 172.17.0.1/16 dev docker0
                    addr add fd00:17::1/64 dev docker0 nodad
                    link set docker0 up");
        forward(host);
        let attach = |role: &str, port: &str, v4: Ipv4Addr, v6: Ipv6Addr| {
            let ns = Netns::new(role);
            host.ns.ip(&format!(
                "link add {port} type veth peer name eth0 netns {}
                 link set {port} master docker0 up",
                ns.name()
            ));
            ns.ip(&format!(
                "link set eth0 up
                 addr add {v4}/16 dev eth0
                 addr add {v6}/64 dev eth0 nodad
                 route add default via 172.17.0.1
                 -6 route add default via fd00:17::1"
            ));
            ns
        };
        let container = attach("container", "veth0", CONTAINER, CONTAINER6);
        let neighbour =
            attach("neighbour", "veth1", NEIGHBOUR, Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 3));
        topology::wait_for_carrier(&host.ns, "docker0");
        Self { container, neighbour }
    }

    /// A path of it.
    pub(super) fn path<'h>(
        self,
        name: &'static str,
        host: &'h Host,
        way: Way,
        family: Family,
    ) -> Result<Path<'h>> {
        let inside = Netns::open(self.container.path());
        let other = Netns::open(self.neighbour.path());
        let owned = Owned { rnet: None, namespaces: vec![self.container, self.neighbour] };
        path(name, host, way, family, (&inside, family.of(CONTAINER, CONTAINER6)), &other, owned)
    }

    /// The same without translation: the client knows where the container is.
    pub(super) fn routed<'h>(
        self,
        name: &'static str,
        host: &'h Host,
        way: Way,
        family: Family,
    ) -> Result<Path<'h>> {
        host.client.ip(&format!(
            "route add {SUBNET} via {HOST}
             -6 route add {SUBNET6} via {HOST6}"
        ));
        let inside = Netns::open(self.container.path());
        let owned = Owned { rnet: None, namespaces: vec![self.container, self.neighbour] };
        let (ends, target, interfaces) = if way == Way::Egress {
            ((&inside, &host.client), family.of(CLIENT, CLIENT6), ["eth0", UPLINK])
        } else {
            ((&host.client, &inside), family.of(CONTAINER, CONTAINER6), [UPLINK, "eth0"])
        };
        Path::new(name, ends, target, interfaces, owned)
    }
}

/// One pair of interfaces between client and server: nothing can be faster here.
pub(super) fn pair<'h>(name: &'static str, host: &'h Host, family: Family) -> Result<Path<'h>> {
    dual(host);
    Path::new(name, (&host.client, &host.ns), family.of(HOST, HOST6), [UPLINK, UPLINK], Owned::default())
}

/// A path of rnet: `daemon` are options of its daemon, `network` options of the network, `others` how many ports are
/// published besides the measured one.
pub(crate) fn rnet<'h>(
    name: &'static str,
    host: &'h Host,
    (way, family): (Way, Family),
    daemon: &[&str],
    network: &[&str],
    others: u32,
) -> Result<Path<'h>> {
    dual(host);
    let rnet = Rnet::new(host);
    rnet.start_daemon_with(daemon);
    let create = ["network", "create", "--ipv6", "--subnet", "10.88.0.0/16", "--subnet", "fd00:88::/64"];
    // One container opens more connections here than is its share of the flow table.
    let no_quota = ["-o", "rnet.max_flows=0"];
    rnet.ok(&[&create[..], &no_quota, network, &["bench"]].concat());
    let (tcp, udp) = (format!("{PORT}:{PORT}"), format!("{PORT}:{PORT}/udp"));
    let container = rnet.run("server", &["--network", "bench", "-p", &tcp, "-p", &udp]);
    let neighbour = rnet.run("neighbour", &["--network", "bench"]);
    // Two ranges, around the measured port. They end below what the daemon itself listens on.
    if others > 0 {
        let low = others.min(u32::from(PORT) - 2001);
        let ranges = [(2001, 2000 + low), (u32::from(PORT) + 1, u32::from(PORT) + others - low)];
        for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
            rnet.ok(&["publish", "server", &format!("{first}-{last}:{first}-{last}")]);
        }
    }
    let addr6 = container.ns.output_of("ip", &["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"]);
    let addr6 = addr6.unwrap_or_default();
    let addr6 =
        addr6.split_whitespace().skip_while(|w| *w != "inet6").nth(1).and_then(|a| a.split('/').next());
    let addr6 = addr6.and_then(|a| a.parse().ok()).unwrap_or(Ipv6Addr::UNSPECIFIED);
    let inside = Netns::open(container.ns.path());
    let other = Netns::open(neighbour.ns.path());
    let addr = family.of(container.addr, addr6);
    let owned = Owned { rnet: Some(rnet), namespaces: Vec::new() };
    path(name, host, way, family, (&inside, addr), &other, owned)
}

fn path<'h>(
    name: &'static str,
    host: &'h Host,
    way: Way,
    family: Family,
    (container, addr): (&Netns, IpAddr),
    neighbour: &Netns,
    owned: Owned<'h>,
) -> Result<Path<'h>> {
    let at_host = family.of(HOST, HOST6);
    let inside = "eth0";
    match way {
        Way::Published => Path::new(name, (&host.client, container), at_host, [UPLINK, inside], owned),
        Way::Egress => {
            Path::new(name, (container, &host.client), family.of(CLIENT, CLIENT6), [inside, UPLINK], owned)
        }
        Way::Loopback => {
            let loopback = family.of(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
            Path::new(name, (&host.ns, container), loopback, ["lo", inside], owned)
        }
        Way::Direct => Path::new(name, (&host.ns, container), addr, ["lo", inside], owned),
        Way::Neighbour => Path::new(name, (neighbour, container), addr, [inside, inside], owned),
        Way::Hairpin => Path::new(name, (neighbour, container), at_host, [inside, inside], owned),
    }
}
