//! What is compared with what.

use std::net::Ipv4Addr;

use anyhow::Result;
use testbed::Host;

use super::{
    netfilter::{self, Tool},
    path::Path,
    sites::{self, Family, Way},
};
use crate::load::Workload::{
    self, Connect, RequestResponse, RequestResponse16, Stream, Stream4, StreamNoTso, Udp, UdpFresh,
};

/// Makes a path on a host that has nothing on it yet.
pub(super) type Build = for<'h> fn(&'static str, &'h Host) -> Result<Path<'h>>;

/// Paths that do the same, measured against one of them.
pub(crate) struct Group {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    /// The path that the others are divided by.
    pub(super) reference: &'static str,
    pub(super) workloads: &'static [Workload],
    pub(super) paths: &'static [(&'static str, Build)],
}

impl Group {
    /// The paths that it compares.
    pub(crate) fn path_names(&self) -> impl Iterator<Item = &'static str> {
        self.paths.iter().map(|(name, _)| *name)
    }
}

const MAIN: &[Workload] = &[Stream, StreamNoTso, RequestResponse16, Connect, Udp];

pub(crate) const GROUPS: [Group; 6] = [
    Group {
        name: "published",
        title: "From outside to a published port",
        about: "The client addresses the host; the server is in a container behind a bridge.",
        reference: "iptables",
        workloads: &[
            Connect,
            Udp,
            UdpFresh,
            StreamNoTso,
            Stream,
            Stream4,
            RequestResponse,
            RequestResponse16,
        ],
        paths: &[
            ("iptables", |name, host| iptables(name, host, 1, Way::Published, Family::V4)),
            ("iptables-1000", |name, host| iptables(name, host, 1000, Way::Published, Family::V4)),
            ("iptables-10000", |name, host| iptables(name, host, 10_000, Way::Published, Family::V4)),
            ("iptables-nft", |name, host| {
                let bridged = netfilter::unfiltered(host);
                netfilter::docker(host, Tool::Nft, 1)?;
                bridged.path(name, host, Way::Published, Family::V4)
            }),
            ("nft", |name, host| nft(name, host, Way::Published)),
            ("routed", |name, host| routed(name, host, Way::Published, Family::V4)),
            ("veth", |name, host| sites::pair(name, host, Family::V4)),
            ("rnet", |name, host| rnet(name, host, Way::Published, Family::V4)),
            ("rnet-1000", |name, host| sites::rnet(name, host, (Way::Published, Family::V4), &[], &[], 999)),
            ("rnet-60000", |name, host| {
                sites::rnet(name, host, (Way::Published, Family::V4), &[], &[], 59_999)
            }),
            ("rnet-tx-off", |name, host| from_wire(name, host, "off")),
            ("rnet-xdp", |name, host| from_wire(name, host, "native")),
            ("rnet-via-stack", |name, host| {
                sites::forward(host);
                netfilter::stateful(host)?;
                let network = ["-o", "rnet.via_stack=true"];
                sites::rnet(name, host, (Way::Published, Family::V4), &[], &network, 0)
            }),
        ],
    },
    Group {
        name: "localhost",
        title: "From the host itself to a port published on 127.0.0.1",
        about: "A proxy in user space stands for docker-proxy; `direct` is the container's own address, through the bridge.",
        reference: "proxy",
        workloads: &[Connect, Stream, RequestResponse16, Udp],
        paths: &[
            ("proxy", |name, host| {
                let direct = netfilter::unfiltered(host).path(name, host, Way::Direct, Family::V4)?;
                direct.through_proxy(Ipv4Addr::LOCALHOST.into())
            }),
            ("direct", |name, host| netfilter::unfiltered(host).path(name, host, Way::Direct, Family::V4)),
            ("rnet", |name, host| rnet(name, host, Way::Loopback, Family::V4)),
        ],
    },
    Group {
        name: "containers",
        title: "From container to container on one network",
        about: "Both are on one bridge, and address one another directly.",
        reference: "bridge",
        workloads: MAIN,
        paths: &[
            ("bridge", |name, host| netfilter::unfiltered(host).path(name, host, Way::Neighbour, Family::V4)),
            ("bridge-nf", |name, host| {
                let bridged = sites::Bridged::new(host);
                netfilter::filter_bridge(&host.ns, true);
                netfilter::docker(host, Tool::Legacy, 1)?;
                bridged.path(name, host, Way::Neighbour, Family::V4)
            }),
            ("veth", |name, host| sites::pair(name, host, Family::V4)),
            ("rnet", |name, host| rnet(name, host, Way::Neighbour, Family::V4)),
        ],
    },
    Group {
        name: "egress",
        title: "From a container to the outside, masqueraded",
        about: "The server is outside; it sees the host's address.",
        reference: "iptables",
        workloads: MAIN,
        paths: &[
            ("iptables", |name, host| iptables(name, host, 1, Way::Egress, Family::V4)),
            ("nft", |name, host| nft(name, host, Way::Egress)),
            ("routed", |name, host| routed(name, host, Way::Egress, Family::V4)),
            ("veth", |name, host| sites::pair(name, host, Family::V4)),
            ("rnet", |name, host| rnet(name, host, Way::Egress, Family::V4)),
        ],
    },
    Group {
        name: "hairpin",
        title: "From a container to another by the host's published port",
        about: "Both are on one network. With iptables this needs `br_netfilter`, as Docker without its proxy does.",
        reference: "iptables",
        workloads: MAIN,
        paths: &[
            ("iptables", |name, host| {
                let bridged = sites::Bridged::new(host);
                netfilter::filter_bridge(&host.ns, true);
                netfilter::docker(host, Tool::Legacy, 1)?;
                bridged.path(name, host, Way::Hairpin, Family::V4)
            }),
            ("rnet", |name, host| rnet(name, host, Way::Hairpin, Family::V4)),
        ],
    },
    Group {
        name: "ipv6",
        title: "From outside to a published port, over IPv6",
        about: "As `published`, with the rules of ip6tables.",
        reference: "ip6tables",
        workloads: MAIN,
        paths: &[
            ("ip6tables", |name, host| iptables(name, host, 1, Way::Published, Family::V6)),
            ("routed6", |name, host| routed(name, host, Way::Published, Family::V6)),
            ("veth6", |name, host| sites::pair(name, host, Family::V6)),
            ("rnet6", |name, host| rnet(name, host, Way::Published, Family::V6)),
        ],
    },
];

/// A path through iptables-legacy with so many published ports.
pub(crate) fn iptables<'h>(
    name: &'static str,
    host: &'h Host,
    published: u32,
    way: Way,
    family: Family,
) -> Result<Path<'h>> {
    let bridged = netfilter::unfiltered(host);
    netfilter::docker(host, Tool::Legacy, published)?;
    bridged.path(name, host, way, family)
}

fn nft<'h>(name: &'static str, host: &'h Host, way: Way) -> Result<Path<'h>> {
    let bridged = netfilter::unfiltered(host);
    netfilter::nft(host)?;
    bridged.path(name, host, way, Family::V4)
}

fn routed<'h>(name: &'static str, host: &'h Host, way: Way, family: Family) -> Result<Path<'h>> {
    netfilter::unfiltered(host).routed(name, host, way, family)
}

/// A path of rnet whose packets arrive as from a wire, with XDP in this mode.
fn from_wire<'h>(name: &'static str, host: &'h Host, xdp: &str) -> Result<Path<'h>> {
    host.make_uplink_a_wire();
    sites::rnet(name, host, (Way::Published, Family::V4), &["--xdp", xdp], &[], 0)
}

fn rnet<'h>(name: &'static str, host: &'h Host, way: Way, family: Family) -> Result<Path<'h>> {
    sites::rnet(name, host, (way, family), &[], &[], 0)
}
