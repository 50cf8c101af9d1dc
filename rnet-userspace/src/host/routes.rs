//! What the host has: routes, addresses and ways out.

use std::{collections::BTreeSet, fs, net::IpAddr};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType},
};

use super::{
    bridge::is_bridge,
    netlink::{Netlink, link_of, name_of},
};
use crate::controller::backend::{DefaultRoute, Link, Uplink};

/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const LOCAL_TABLE: u32 = 255;

/// Destinations of all routes but those of the table `local`, the default routes, multicast, and IPv6's
/// link-local one, which every interface has. Sorted, each once.
pub(super) fn destinations(netlink: &Netlink) -> Result<Vec<IpNetwork>> {
    let destinations: BTreeSet<_> = netlink.routes()?.iter().filter_map(destination).collect();
    Ok(destinations.into_iter().collect())
}

/// Every address of every interface. Sorted, each once.
pub(super) fn addresses(netlink: &Netlink) -> Result<Vec<IpAddr>> {
    let addresses: BTreeSet<_> = netlink.addresses()?.iter().filter_map(own_address).collect();
    Ok(addresses.into_iter().collect())
}

/// The Ethernet interfaces that are up, part of no other interface, no bridges, and not among `own`.
pub(super) fn uplinks(netlink: &Netlink, own: &BTreeSet<String>) -> Result<Vec<Uplink>> {
    let links: Vec<LinkMessage> =
        // One may have gone meanwhile.
        link_names()?.difference(own).filter_map(|name| netlink.link(name).transpose()).collect::<Result<_>>()?;
    let under_vlans: BTreeSet<u32> = links.iter().filter_map(vlan_is_on).collect();
    let uplink = |link: &LinkMessage| {
        let Link { index, mac } = link_of(link);
        let has_vlans = under_vlans.contains(&index);
        Some(Uplink { index, name: name_of(link)?.to_owned(), mac, bus: bus_of(link), has_vlans })
    };
    let mut uplinks: Vec<Uplink> = links.iter().filter(|link| leads_out(link)).filter_map(uplink).collect();
    uplinks.sort_unstable_by_key(|uplink| uplink.index);
    Ok(uplinks)
}

/// Names of all links of the calling thread's namespace. Asked for over netlink, the kernel describes each link in full
/// and looks for the namespace of a veth's peer among all that there are (`__peernet2id`), which takes a time that grows
/// with the square of the number of containers.
pub(super) fn link_names() -> Result<BTreeSet<String>> {
    // Not /proc/net, which is of the process's first thread.
    let counters = fs::read_to_string("/proc/thread-self/net/dev").context("list links")?;
    Ok(names_in(&counters))
}

/// The names in the kernel's list of interfaces and what they counted, below two lines of headings.
pub(super) fn names_in(counters: &str) -> BTreeSet<String> {
    let names = counters.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim_start().to_owned()).collect()
}

/// Makes `wanted`, at most one of each family, default routes of the main table, and takes away others that lead
/// through one of `interfaces`.
pub(super) fn set_default(netlink: &Netlink, interfaces: &[String], wanted: &[DefaultRoute]) -> Result<()> {
    let index_of = |name: &String| Ok::<_, anyhow::Error>(netlink.link(name)?.map(|link| link.header.index));
    let own: Vec<u32> =
        interfaces.iter().map(index_of).filter_map(Result::transpose).collect::<Result<_>>()?;
    let mut missing = Vec::new();
    for route in wanted {
        missing.push((route.gateway, netlink.existing_link(&route.interface)?.header.index));
    }
    for route in netlink.routes()?.into_iter().filter(is_default) {
        let Some(hop) = next_hop(&route) else { continue };
        if let Some(at) = missing.iter().position(|wanted| *wanted == hop) {
            missing.swap_remove(at);
        } else if own.contains(&hop.1) {
            netlink.delete_route(route)?;
        }
    }
    missing.into_iter().try_for_each(|(gateway, index)| netlink.add_default_route(index, gateway))
}

/// Where the default routes of the main table through an interface lead.
pub(super) fn default_gateways(netlink: &Netlink, index: u32) -> Result<Vec<IpAddr>> {
    let hops = netlink.routes()?.into_iter().filter(is_default).filter_map(|route| next_hop(&route));
    Ok(hops.filter(|(_, through)| *through == index).map(|(gateway, _)| gateway).collect())
}

pub(super) fn is_default(route: &RouteMessage) -> bool {
    let main = route.header.table == RouteHeader::RT_TABLE_MAIN;
    main && route.header.destination_prefix_length == 0
        && route.header.kind == RouteType::Unicast
        && !route.header.flags.contains(RouteFlags::Cloned)
}

pub(super) fn next_hop(route: &RouteMessage) -> Option<(IpAddr, u32)> {
    let gateway = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Gateway(gateway) = attribute else { return None };
        if let RouteAddress::Inet(addr) = gateway {
            Some(IpAddr::V4(*addr))
        } else if let RouteAddress::Inet6(addr) = gateway {
            Some(IpAddr::V6(*addr))
        } else {
            None
        }
    });
    let oif = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Oif(index) = attribute else { return None };
        Some(*index)
    });
    gateway.zip(oif)
}

fn destination(route: &RouteMessage) -> Option<IpNetwork> {
    let table = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Table(table) = attribute else { return None };
        Some(*table)
    });
    // Clones are what the kernel remembers of single destinations.
    if table.unwrap_or(route.header.table.into()) == LOCAL_TABLE
        || route.header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let addr = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(addr) = attribute else { return None };
        if let RouteAddress::Inet(addr) = addr {
            Some(IpAddr::V4(*addr))
        } else if let RouteAddress::Inet6(addr) = addr {
            Some(IpAddr::V6(*addr))
        } else {
            None
        }
    })?;
    let prefix = route.header.destination_prefix_length;
    let is_link_local = matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
    if prefix == 0 || addr.is_multicast() || is_link_local {
        return None;
    }
    IpNetwork::new(addr, prefix).ok()
}

fn own_address(address: &AddressMessage) -> Option<IpAddr> {
    // Of a point-to-point interface, `Address` is the peer's.
    let local = address.attributes.iter().find_map(|attribute| {
        let AddressAttribute::Local(addr) = attribute else { return None };
        Some(*addr)
    });
    local.or_else(|| {
        address.attributes.iter().find_map(|attribute| {
            let AddressAttribute::Address(addr) = attribute else { return None };
            Some(*addr)
        })
    })
}

/// The bus of a link's device.
pub(super) fn bus_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::ParentDevBusName(bus) = attribute else { return None };
        Some(bus.clone())
    })
}

/// The interface that a VLAN interface is on.
pub(super) fn vlan_is_on(link: &LinkMessage) -> Option<u32> {
    let is_vlan = link.attributes.iter().any(|attribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else { return false };
        infos.contains(&LinkInfo::Kind(InfoKind::Vlan))
    });
    let on = link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Link(index) = attribute else { return None };
        Some(*index)
    });
    on.filter(|_| is_vlan)
}

pub(super) fn leads_out(link: &LinkMessage) -> bool {
    let flags = link.header.flags;
    let enslaved = link
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::Controller(index) if *index != 0));
    flags.contains(LinkFlags::Up)
        && !flags.contains(LinkFlags::Loopback)
        && link.header.link_layer_type == LinkLayerType::Ether
        && !enslaved
        && !is_bridge(link)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rtnetlink::LinkVeth;

    use super::*;
    use crate::{
        controller::backend::BridgeSpec,
        host::{
            bridge, netns,
            testing::{Name, in_new_netns, ip},
        },
    };

    #[test]
    fn routes_are_those_that_somebody_set() {
        in_new_netns(|| {
            ip("link set lo up");
            ip("link add name v1 type veth peer name v2");
            ip("link set v1 up");
            ip("link set v2 up");
            ip("addr add 192.0.2.1/24 dev v1");
            ip("addr add 2001:db8::1/64 dev v1 nodad");
            ip("route add default via 192.0.2.2");
            ip("route add 198.51.100.0/24 via 192.0.2.2 table 100");
            ip("route add 203.0.113.0/24 via 192.0.2.2 table 1000");
            ip("route add blackhole 10.0.0.0/8");
            ip("route add multicast 224.1.0.0/16 dev v1");
            ip("-6 route add default via 2001:db8::2");
            ip("-6 route add 2001:db8:1::/48 via 2001:db8::2");
            let found = destinations(&Netlink::open().unwrap()).unwrap();
            let wanted = [
                "10.0.0.0/8",
                "192.0.2.0/24",
                "198.51.100.0/24",
                "203.0.113.0/24",
                "2001:db8::/64",
                "2001:db8:1::/48",
            ];
            assert_eq!(found, wanted.map(|route| route.parse().unwrap()));
        });
    }

    #[test]
    fn addresses_are_the_own_ones() {
        in_new_netns(|| {
            ip("link set lo up");
            ip("link add name v1 type veth peer name v2");
            ip("addr add 192.0.2.1 peer 192.0.2.2/32 dev v1");
            ip("addr add 2001:db8::1/64 dev v2 nodad");
            let found = addresses(&Netlink::open().unwrap()).unwrap();
            let wanted = ["127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"];
            assert_eq!(found, wanted.map(|addr| addr.parse::<IpAddr>().unwrap()));
        });
    }

    /// Devices on a bus, and VLANs, are not to be had everywhere.
    #[test]
    fn the_bus_of_a_device_and_the_interface_under_a_vlan_are_read() {
        let mut device = LinkMessage::default();
        assert_eq!((bus_of(&device), vlan_is_on(&device)), (None, None));
        device.attributes.push(LinkAttribute::ParentDevBusName("pci".into()));
        assert_eq!((bus_of(&device).as_deref(), vlan_is_on(&device)), (Some("pci"), None));
        // The other end of a veth is named by the same attribute.
        for (kind, on) in [(InfoKind::Vlan, Some(7)), (InfoKind::Veth, None)] {
            let mut link = LinkMessage::default();
            link.attributes.push(LinkAttribute::Link(7));
            link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
            assert_eq!(vlan_is_on(&link), on);
        }
    }

    #[test]
    fn every_link_of_this_namespace_is_named() {
        in_new_netns(|| {
            ip("link add name v1 type veth peer name a-name-of-15-ch");
            ip("link set v1 up");
            let wanted = ["a-name-of-15-ch", "lo", "v1"].map(str::to_owned);
            // Tunnels that the kernel makes in each namespace come on top.
            let found = link_names().unwrap();
            assert!(found.is_superset(&wanted.into()), "{found:?}");
            let shown = Command::new("ip").args(["-o", "link"]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            assert_eq!(found.len(), shown.lines().count(), "{found:?}\n{shown}");
            let name = Name::new("elsewhere");
            let other = netns::create(&name).unwrap();
            let elsewhere = netns::within(&other, link_names).unwrap();
            assert!(elsewhere.contains("lo") && !elsewhere.contains("v1"), "{elsewhere:?}");
        });
    }

    #[test]
    fn names_end_at_the_colon_and_headings_are_none() {
        let counters = "Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes
    lo: 1040      10    0    0    0     0          0         0     1040
veth0123abcd:     0       0    0    0    0     0          0         0        0
";
        assert_eq!(names_in(counters), ["lo", "veth0123abcd"].map(str::to_owned).into());
    }

    #[test]
    fn uplinks_are_up_and_neither_bridges_nor_ports_nor_own() {
        in_new_netns(|| {
            let netlink = Netlink::open().unwrap();
            let bridge = BridgeSpec { name: "br0".into(), addrs: Vec::new(), mtu: None };
            let bridge = bridge::create(&bridge).unwrap();
            netlink.add_link(LinkVeth::new("port", "down").controller(bridge.index).up().build()).unwrap();
            netlink.add_link(LinkVeth::new("wan", "mine").up().build()).unwrap();
            let mine = netlink.existing_link("mine").unwrap().header.index;
            netlink.set_up(mine).unwrap();
            ip("link set lo up");
            ip("tuntap add tun0 mode tun");
            ip("link set tun0 up");
            let index = netlink.existing_link("wan").unwrap().header.index;
            let mac = link_of(&netlink.existing_link("wan").unwrap()).mac;
            let wan = Uplink { index, name: "wan".into(), mac, bus: None, has_vlans: false };
            assert_eq!(uplinks(&netlink, &["mine".to_owned()].into()).unwrap(), [wan]);
        });
    }
}
