//! What single interfaces are like, here and in other namespaces, and routes through them. Plugins that engines call ask
//! this, beside the daemon.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridgePort, RouteMessageBuilder};

use super::{
    adopted::addresses,
    bridge::is_bridge,
    netlink::{Netlink, link_of, name_of},
    netns,
    routes::default_gateways,
};
use crate::controller::model::{InterfaceAddr, MacAddr};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its MTU, in bytes.
    pub mtu: Option<u32>,
    /// It is a bridge.
    pub is_bridge: bool,
    /// The bridge that it is a port of, or whatever else it is part of.
    pub part_of: Option<String>,
}

/// The interface of this name in the calling thread's namespace, if there is one.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn interface(name: &str) -> Result<Option<Interface>> {
    let netlink = Netlink::open()?;
    let Some(link) = netlink.link(name)? else { return Ok(None) };
    let part_of = match controller_of(&link) {
        Some(index) => {
            netlink.links()?.iter().find(|l| l.header.index == index).and_then(name_of).map(str::to_owned)
        }
        None => None,
    };
    Ok(Some(Interface { mac: link_of(&link).mac, mtu: mtu_of(&link), is_bridge: is_bridge(&link), part_of }))
}

/// What an interface inside another namespace has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses, IPv6's link-local ones left out.
    pub addrs: Vec<InterfaceAddr>,
    /// Where its default routes lead.
    pub gateways: Vec<IpAddr>,
    /// It is up.
    pub is_up: bool,
}

/// The interface of this name in the namespace at `netns`, if there is one.
///
/// # Errors
/// When the namespace cannot be opened, or the kernel not asked.
pub fn inside(netns: &Path, name: &str) -> Result<Option<Inside>> {
    let netlink = Netlink::in_netns(netns)?;
    let Some(link) = netlink.link(name)? else { return Ok(None) };
    let index = link.header.index;
    Ok(Some(Inside {
        mac: link_of(&link).mac,
        addrs: addresses(&netlink, index)?.into_iter().map(|(addr, _)| addr).collect(),
        gateways: default_gateways(&netlink, index)?,
        is_up: link.header.flags.contains(netlink_packet_route::link::LinkFlags::Up),
    }))
}

/// Adds a route through an interface of the namespace at `netns`; without a gateway what it leads to is on the link.
///
/// # Errors
/// When there is no such interface, or the kernel refuses.
pub fn add_route(netns: &Path, name: &str, to: IpNetwork, gateway: Option<IpAddr>) -> Result<()> {
    let netlink = Netlink::in_netns(netns)?;
    let index = netlink.existing_link(name)?.header.index;
    let route = match (to, gateway) {
        (IpNetwork::V4(to), gateway) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.network(), to.prefix())
                .output_interface(index);
            match gateway {
                Some(IpAddr::V4(gateway)) => route.gateway(gateway).build(),
                None => route.scope(netlink_packet_route::route::RouteScope::Link).build(),
                Some(IpAddr::V6(_)) => bail!("add a route to {to}: its gateway is of the other family"),
            }
        }
        (IpNetwork::V6(to), gateway) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.network(), to.prefix())
                .output_interface(index);
            match gateway {
                Some(IpAddr::V6(gateway)) => route.gateway(gateway).build(),
                None => route.build(),
                Some(IpAddr::V4(_)) => bail!("add a route to {to}: its gateway is of the other family"),
            }
        }
    };
    netlink.add_route(route).with_context(|| format!("add a route to {to}"))
}

/// Has a bridge send what comes from this port back to it, where that is its way.
///
/// # Errors
/// When there is no such interface, or it is no port of a bridge.
pub fn set_hairpin(name: &str) -> Result<()> {
    let netlink = Netlink::open()?;
    let index = netlink.existing_link(name)?.header.index;
    let port = LinkBridgePort::new(index).hairpin(true).build();
    netlink.change_link(port).with_context(|| format!("set hairpin mode of {name}"))
}

/// Whether `path` is the namespace that the calling thread is in.
///
/// # Errors
/// When it is no network namespace.
pub fn is_own_netns(path: &Path) -> Result<bool> {
    Ok(netns::id(path)? == netns::id(Path::new("/proc/thread-self/ns/net"))?)
}

fn controller_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Controller(index) = attribute else { return None };
        Some(*index).filter(|index| *index != 0)
    })
}

fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Mtu(mtu) = attribute else { return None };
        Some(*mtu)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{Name, in_new_netns, ip};

    #[test]
    fn interfaces_are_seen_here_and_inside() {
        in_new_netns(|| {
            ip("link add name br0 type bridge");
            let name = Name::new("inside");
            let ns = netns::create(&name).unwrap();
            ip(&format!("link add name v0 mtu 1400 type veth peer name eth0 mtu 1400 netns {}", &*name));
            ip("link set v0 master br0");
            let v0 = interface("v0").unwrap().unwrap();
            assert_eq!((v0.mtu, v0.is_bridge, v0.part_of.as_deref()), (Some(1400), false, Some("br0")));
            assert!(interface("br0").unwrap().unwrap().is_bridge);
            assert_eq!(interface("v9").unwrap(), None);

            let netlink = Netlink::in_netns(&ns).unwrap();
            let index = netlink.existing_link("eth0").unwrap().header.index;
            netlink.add_address(index, "10.1.0.2/24".parse().unwrap()).unwrap();
            netlink.set_up(index).unwrap();
            netlink.add_default_route(index, "10.1.0.1".parse().unwrap()).unwrap();
            add_route(&ns, "eth0", "10.9.0.0/16".parse().unwrap(), Some("10.1.0.9".parse().unwrap()))
                .unwrap();
            add_route(&ns, "eth0", "10.8.0.0/16".parse().unwrap(), None).unwrap();
            let wrong =
                add_route(&ns, "eth0", "10.7.0.0/16".parse().unwrap(), Some("fd00::1".parse().unwrap()));
            assert!(wrong.unwrap_err().to_string().contains("of the other family"));
            let seen = inside(&ns, "eth0").unwrap().unwrap();
            assert_eq!(seen.addrs, ["10.1.0.2/24".parse().unwrap()]);
            assert_eq!(seen.gateways, ["10.1.0.1".parse::<IpAddr>().unwrap()]);
            assert!(seen.is_up);
            assert_eq!(
                crate::host::routes::destinations(&netlink).unwrap(),
                ["10.1.0.0/24", "10.8.0.0/16", "10.9.0.0/16"].map(|net| net.parse().unwrap())
            );
            assert_eq!(inside(&ns, "eth9").unwrap(), None);
            assert!(
                !is_own_netns(&ns).unwrap() && is_own_netns(Path::new("/proc/thread-self/ns/net")).unwrap()
            );
        });
    }
}
