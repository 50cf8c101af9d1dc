//! Bridges.

use std::io::ErrorKind;

use anyhow::{Context, Error, Result, bail};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::{
    netlink::{self, Netlink, link_of, random_mac},
    or_undo,
    sysctl::{self, Family},
};
use crate::controller::backend::{BridgeSpec, Link};

/// Makes a bridge that is up. A failure leaves nothing, and a link that was there already as it was.
pub(super) fn create(spec: &BridgeSpec) -> Result<Link> {
    let netlink = Netlink::open()?;
    let mac = random_mac();
    let bridge = LinkMessageBuilder::<LinkBridge>::new(&spec.name).address(mac.into()).build();
    let made = match netlink.add_link(bridge) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => bail!("there is a link of that name already"),
        made => made.map_err(Error::from),
    };
    or_undo(made.and_then(|()| configure(&netlink, spec)), || netlink::delete_made(&spec.name, mac))
}

/// The bridge of this name. A link of another kind is an error.
pub(super) fn find(netlink: &Netlink, name: &str) -> Result<Option<Link>> {
    match netlink.link(name)? {
        Some(link) if is_bridge(&link) => Ok(Some(link_of(&link))),
        Some(_) => bail!("link {name} is there already and is not a bridge"),
        None => Ok(None),
    }
}

/// Whether a link is a bridge.
pub(super) fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| {
        let LinkAttribute::LinkInfo(info) = attribute else { return false };
        info.contains(&LinkInfo::Kind(InfoKind::Bridge))
    })
}

fn configure(netlink: &Netlink, spec: &BridgeSpec) -> Result<Link> {
    let link = link_of(&netlink.existing_link(&spec.name)?);
    set_mtu(netlink, link.index, spec)?;
    set_forwarding(spec)?;
    if !has_ipv6(spec) {
        sysctl::disable_ipv6(&spec.name)?;
    }
    for addr in &spec.addrs {
        netlink.add_address(link.index, *addr)?;
    }
    netlink.set_up(link.index)?;
    Ok(link)
}

/// The kernel lets the ports decide unless the MTU is changed after the bridge was made.
pub(super) fn set_mtu(netlink: &Netlink, index: u32, spec: &BridgeSpec) -> Result<()> {
    let Some(mtu) = spec.mtu else { return Ok(()) };
    netlink
        .change_link(LinkUnspec::new_with_index(index).mtu(mtu).build())
        .with_context(|| format!("set MTU {mtu}"))
}

/// Lets the host's stack forward what containers send through it; the switches for all interfaces stay untouched.
pub(super) fn set_forwarding(spec: &BridgeSpec) -> Result<()> {
    for (family, key, value) in SETTINGS {
        if matches!(family, Family::V4) || has_ipv6(spec) {
            sysctl::set(family, &spec.name, key, value)?;
        }
    }
    if has_ipv6(spec) { sysctl::force_ipv6_forwarding(&spec.name) } else { Ok(()) }
}

fn has_ipv6(spec: &BridgeSpec) -> bool {
    spec.addrs.iter().any(|addr| addr.is_ipv6())
}

/// What a bridge with containers needs, those of IPv6 where it has that.
pub(super) const SETTINGS: [(Family, &str, &str); 6] = [
    (Family::V4, "forwarding", "1"),
    // What is to be fragmented on its way out comes back from the datapath with the host's address as its source.
    // Containers cannot send such a packet themselves.
    (Family::V4, "accept_local", "1"),
    (Family::V4, "rp_filter", "2"),
    (Family::V6, "disable_ipv6", "0"),
    // A router on the containers' side has nothing to tell the host.
    (Family::V6, "accept_ra", "0"),
    (Family::V6, "forwarding", "1"),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use netlink_packet_route::link::LinkFlags;
    use rtnetlink::LinkVeth;

    use super::*;
    use crate::host::{
        routes::addresses,
        testing::{in_new_netns, mtu_of},
    };

    fn spec(name: &str, addrs: &[&str], mtu: Option<u32>) -> BridgeSpec {
        BridgeSpec { name: name.into(), addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(), mtu }
    }

    fn conf(family: &str, interface: &str, key: &str) -> String {
        let file = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
        fs::read_to_string(file).unwrap().trim().into()
    }

    #[test]
    fn a_bridge_is_up_and_forwards_alone() {
        in_new_netns(|| {
            let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
            let made = create(&spec("br.0", &["10.1.0.1/24", "10.2.0.1/16"], None)).unwrap();
            let netlink = Netlink::open().unwrap();
            assert_eq!(find(&netlink, "br.0").unwrap(), Some(made.clone()));
            let link = netlink.existing_link("br.0").unwrap();
            assert!(link.header.flags.contains(LinkFlags::Up));
            assert_eq!(made.mac.0[0] & 3, 2, "locally administered, one station");
            assert_eq!(conf("ipv4", "br.0", "forwarding"), "1");
            assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
            assert_eq!(conf("ipv4", "lo", "forwarding"), before.trim());
            assert_eq!(conf("ipv6", "br.0", "disable_ipv6"), "1");
            let own = addresses(&netlink).unwrap();
            for addr in ["10.1.0.1", "10.2.0.1"] {
                assert!(own.contains(&addr.parse().unwrap()), "{own:?}");
            }
            assert!(!own.iter().any(|addr| addr.is_ipv6() && !addr.is_loopback()), "{own:?}");
        });
    }

    #[test]
    fn a_bridge_with_ipv6_forwards_it_alone() {
        in_new_netns(|| {
            fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            create(&spec("br0", &["10.1.0.1/24", "fd00:1::1/64"], None)).unwrap();
            assert_eq!(conf("ipv6", "br0", "forwarding"), "1");
            assert_eq!(conf("ipv6", "all", "forwarding"), "0");
            if fs::exists("/proc/sys/net/ipv6/conf/br0/force_forwarding").unwrap() {
                assert_eq!(conf("ipv6", "br0", "force_forwarding"), "1");
                assert_eq!(conf("ipv6", "all", "force_forwarding"), "0");
            }
            assert_eq!(conf("ipv6", "br0", "accept_ra"), "0");
            let own = addresses(&Netlink::open().unwrap()).unwrap();
            assert!(own.contains(&"fd00:1::1".parse().unwrap()), "{own:?}");
        });
    }

    #[test]
    fn ports_do_not_change_a_bridges_address_or_mtu() {
        in_new_netns(|| {
            let made = create(&spec("br0", &["10.1.0.1/24"], Some(1400))).unwrap();
            let netlink = Netlink::open().unwrap();
            let port = LinkVeth::new("a", "b").address(vec![2, 0, 0, 0, 0, 1]).controller(made.index).up();
            netlink.add_link(port.mtu(9000).build()).unwrap();
            assert_eq!(find(&netlink, "br0").unwrap(), Some(made.clone()));
            assert_eq!(mtu_of(&netlink, "br0"), 1400);
            netlink.delete_link("a").unwrap();
            assert_eq!(find(&netlink, "br0").unwrap(), Some(made));
            assert_eq!(mtu_of(&netlink, "br0"), 1400);
        });
    }

    #[test]
    fn a_failure_leaves_nothing() {
        in_new_netns(|| {
            let netlink = Netlink::open().unwrap();
            for bad in [
                spec("br0", &["10.1.0.1/24", "10.1.0.1/24"], None),
                spec("br0", &["10.1.0.1/24"], Some(20_000_000)),
            ] {
                let error = create(&bad).unwrap_err();
                assert!(!format!("{error:#}").contains("left behind"), "{error:#}");
                assert!(netlink.link("br0").unwrap().is_none());
            }
        });
    }

    #[test]
    fn what_is_there_stays_and_is_told_apart() {
        in_new_netns(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_link(LinkVeth::new("a", "b").build()).unwrap();
            let error = create(&spec("a", &["10.1.0.1/24"], None)).unwrap_err();
            assert_eq!(error.to_string(), "there is a link of that name already");
            assert!(netlink.link("a").unwrap().is_some());
            assert_eq!(
                find(&netlink, "a").unwrap_err().to_string(),
                "link a is there already and is not a bridge"
            );
            assert_eq!(find(&netlink, "c").unwrap(), None);
            netlink.delete_link("c").unwrap();
        });
    }
}
