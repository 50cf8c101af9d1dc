//! Bridges that somebody else made, which are used and given back as they were.

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::LinkUnspec;

use super::{
    bridge::{self, SETTINGS, set_forwarding, set_mtu},
    netlink::{Netlink, link_of},
    sysctl,
};
use crate::controller::{
    backend::{BridgeSpec, BridgeState, Link},
    model::InterfaceAddr,
};

/// What a bridge is like.
pub(super) fn state(name: &str) -> Result<BridgeState> {
    let netlink = Netlink::open()?;
    let bridge = existing(&netlink, name)?;
    let keys = SETTINGS.iter().map(|(family, key, _)| (*family, *key));
    let keys = keys.chain([(sysctl::Family::V6, sysctl::FORCE_FORWARDING)]);
    let paths = keys.map(|(family, key)| sysctl::path(family, name, key));
    let settings = paths.map(|path| Ok(sysctl::read(&path)?.map(|value| (path, value))));
    let settings = settings.filter_map(Result::transpose).collect::<Result<_>>()?;
    let addrs = addresses(&netlink, bridge.index)?.into_iter().map(|(addr, _)| addr).collect();
    Ok(BridgeState { addrs, settings })
}

/// Makes a bridge one that containers can be on.
pub(super) fn adopt(spec: &BridgeSpec) -> Result<Link> {
    let netlink = Netlink::open()?;
    let bridge = existing(&netlink, &spec.name)?;
    // Said once, it stays: else the kernel takes the lowest of the ports', and so another with every container.
    let address = LinkUnspec::new_with_index(bridge.index).address(bridge.mac.0.into());
    netlink.change_link(address.build()).context("fix its Ethernet address")?;
    set_mtu(&netlink, bridge.index, spec)?;
    set_forwarding(spec)?;
    let there = addresses(&netlink, bridge.index)?;
    for addr in spec.addrs.iter().filter(|wanted| !there.iter().any(|(addr, _)| addr.ip() == wanted.ip())) {
        netlink.add_address(bridge.index, *addr)?;
    }
    netlink.set_up(bridge.index)?;
    Ok(bridge)
}

/// Gives a bridge, if it is still there, the settings that it had, and takes the addresses that it had not.
pub(super) fn restore(name: &str, state: &BridgeState) -> Result<()> {
    let netlink = Netlink::open()?;
    let Some(bridge) = bridge::find(&netlink, name)? else { return Ok(()) };
    for (addr, message) in addresses(&netlink, bridge.index)? {
        if !state.addrs.iter().any(|before| before.ip() == addr.ip()) {
            netlink.delete_address(message)?;
        }
    }
    state.settings.iter().try_for_each(|(path, value)| sysctl::write(path, value))
}

/// What a bridge that stays somebody else's needs all the same, as of [`SETTINGS`].
const LENT: [(sysctl::Family, &str, &str); 2] =
    [(sysctl::Family::V4, "accept_local", "1"), (sysctl::Family::V4, "rp_filter", "2")];

/// Has a bridge take back what the host is to fragment.
pub(super) fn lend(name: &str) -> Result<()> {
    LENT.iter().try_for_each(|(family, key, value)| sysctl::set(*family, name, key, value))
}

/// Gives a bridge, if it is still there, back what [`lend`] has changed.
pub(super) fn give_back(name: &str, state: &BridgeState) -> Result<()> {
    if bridge::find(&Netlink::open()?, name)?.is_none() {
        return Ok(());
    }
    let paths = LENT.map(|(family, key, _)| sysctl::path(family, name, key));
    let settings = state.settings.iter().filter(|(path, _)| paths.contains(path));
    settings.into_iter().try_for_each(|(path, value)| sysctl::write(path, value))
}

fn existing(netlink: &Netlink, name: &str) -> Result<Link> {
    let link = netlink.existing_link(name)?;
    bridge::find(netlink, name)?;
    Ok(link_of(&link))
}

/// The addresses of an interface, IPv6's link-local ones left out.
pub(super) fn addresses(netlink: &Netlink, index: u32) -> Result<Vec<(InterfaceAddr, AddressMessage)>> {
    let own = netlink.addresses()?.into_iter().filter(|message| message.header.index == index);
    Ok(own.filter_map(|message| Some((address(&message)?, message))).collect())
}

fn address(message: &AddressMessage) -> Option<InterfaceAddr> {
    let addr = message.attributes.iter().find_map(|attribute| {
        let AddressAttribute::Address(addr) = attribute else { return None };
        Some(*addr)
    })?;
    let is_link_local = matches!(addr, std::net::IpAddr::V6(addr) if addr.is_unicast_link_local());
    if is_link_local { None } else { IpNetwork::new(addr, message.header.prefix_len).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{in_new_netns, ip};

    #[test]
    fn a_bridge_that_stays_its_owners_gets_its_settings_back() {
        in_new_netns(|| {
            ip("link add name br0 type bridge");
            sysctl::set(sysctl::Family::V4, "br0", "rp_filter", "1").unwrap();
            let before = state("br0").unwrap();
            lend("br0").unwrap();
            assert_ne!(state("br0").unwrap(), before);
            // What its owner does meanwhile stays.
            ip("addr add 192.0.2.9/24 dev br0");
            give_back("br0", &before).unwrap();
            let after = state("br0").unwrap();
            assert_eq!((after.settings, after.addrs.len()), (before.settings.clone(), 1));
            give_back("gone", &before).unwrap();
            assert!(lend("gone").is_err());
        });
    }

    #[test]
    fn a_bridge_is_given_back_as_it_was() {
        in_new_netns(|| {
            ip("link add name br0 type bridge");
            ip("addr add 192.0.2.9/24 dev br0");
            let before = state("br0").unwrap();
            assert_eq!(before.addrs, ["192.0.2.9/24".parse().unwrap()]);
            let addrs = ["192.0.2.9/24", "10.1.0.1/24", "fd00:1::1/64"].map(|a| a.parse().unwrap()).into();
            let spec = BridgeSpec { name: "br0".into(), addrs, mtu: None };
            let adopted = adopt(&spec).unwrap();
            let after = state("br0").unwrap();
            assert_eq!(after.addrs.len(), 3);
            assert_eq!(after.settings["ipv4/conf/br0/forwarding"], "1");
            assert_eq!(adopt(&spec).unwrap(), adopted);
            ip("link add name v1 address 02:00:00:00:00:01 type veth peer name v2");
            ip("link set v1 master br0");
            assert_eq!(
                existing(&Netlink::open().unwrap(), "br0").unwrap(),
                adopted,
                "its address is its own"
            );
            restore("br0", &before).unwrap();
            assert_eq!(state("br0").unwrap(), before);
            ip("link del br0");
            restore("br0", &before).unwrap();
        });
    }

    #[test]
    fn what_is_no_bridge_is_refused() {
        in_new_netns(|| {
            let error = |name| format!("{:#}", state(name).unwrap_err());
            assert_eq!(error("lo"), "link lo is there already and is not a bridge");
            assert_eq!(error("br9"), "there is no link br9");
        });
    }
}
