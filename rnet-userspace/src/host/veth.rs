//! Veth pairs between a bridge and a container's namespace.

use std::{fs::File, io::ErrorKind, os::fd::AsRawFd, path::Path};

use anyhow::{Context, Error, Result, bail, ensure};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{
    bridge,
    netlink::{self, Netlink, link_of, random_mac, with_mtu},
    netns, or_undo,
    sysctl::{self, Family},
};
use crate::controller::backend::{Link, VethSpec};

/// Makes a pair that is complete and up on both ends, and returns the host's end. A failure leaves nothing.
pub(super) fn create(spec: &VethSpec) -> Result<Link> {
    let netlink = Netlink::open()?;
    let bridge = bridge::find(&netlink, &spec.bridge)?
        .with_context(|| format!("there is no bridge {}", spec.bridge))?;
    let namespace =
        spec.netns.as_ref().map(|path| File::open(path).context("open the namespace")).transpose()?;

    let inside = LinkMessageBuilder::<LinkUnspec>::new().name(&spec.name).address(spec.mac.0.into());
    // Made where it belongs: an interface that is moved there could meet another of its name on the way.
    let inside = match &namespace {
        Some(namespace) => inside.setns_by_fd(namespace.as_raw_fd()),
        None => inside,
    };
    let inside = InfoData::Veth(InfoVeth::Peer(with_mtu(inside, spec.mtu).build()));
    let mac = random_mac();
    let host = LinkVeth::new(&spec.host_name, &spec.name)
        .address(mac.into())
        .controller(bridge.index)
        .set_info_data(inside);
    let made = match netlink.add_link(with_mtu(host, spec.mtu).build()) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => bail!("one of the two is there already"),
        made => made.map_err(Error::from),
    };
    // The other end goes with it.
    or_undo(made.and_then(|()| configure(&netlink, spec)), || netlink::delete_made(&spec.host_name, mac))
}

/// Has the bridge pass nothing between this port and others that are isolated, or pass it again.
pub(super) fn isolate(name: &str, isolated: bool) -> Result<()> {
    let netlink = Netlink::open()?;
    let Some(link) = netlink.link(name)? else {
        ensure!(!isolated, "there is no link {name}");
        return Ok(());
    };
    // One that has left its bridge meanwhile passes nothing.
    let is_port =
        |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Controller(index) if *index != 0);
    if !link.attributes.iter().any(is_port) {
        ensure!(!isolated, "link {name} is no bridge port");
        return Ok(());
    }
    let port = LinkBridgePort::new(link.header.index).isolated(isolated).build();
    netlink.change_link(port).context("change the bridge port")
}

fn configure(netlink: &Netlink, spec: &VethSpec) -> Result<Link> {
    let host = link_of(&netlink.existing_link(&spec.host_name)?);
    // A bridge port has no business with addresses.
    sysctl::disable_ipv6(&spec.host_name)?;
    if spec.isolated {
        let port = LinkBridgePort::new(host.index).isolated(true).build();
        netlink.change_link(port).context("isolate the bridge port")?;
    }
    netlink.set_up(host.index)?;
    if let Some(netns) = &spec.netns {
        configure_inside(netns, spec).with_context(|| format!("configure {} inside", spec.name))?;
    }
    Ok(host)
}

fn configure_inside(netns: &Path, spec: &VethSpec) -> Result<()> {
    netns::within(netns, || set_sysctls(spec))?;
    let netlink = Netlink::in_netns(netns)?;
    let index = netlink.existing_link(&spec.name)?.header.index;
    for addr in &spec.addrs {
        netlink.add_address(index, *addr)?;
    }
    // After the addresses, which are announced when the interface comes up.
    netlink.set_up(index)?;
    for gateway in &spec.gateways {
        netlink.add_default_route(index, *gateway)?;
    }
    Ok(())
}

fn set_sysctls(spec: &VethSpec) -> Result<()> {
    sysctl::set(Family::V4, &spec.name, "arp_notify", "1")?;
    if spec.addrs.iter().any(|addr| addr.is_ipv6()) {
        sysctl::set(Family::V6, &spec.name, "disable_ipv6", "0")?;
        // Addresses and routes are the controller's to give.
        sysctl::set(Family::V6, &spec.name, "accept_ra", "0")
    } else {
        sysctl::disable_ipv6(&spec.name)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::IpAddr, process::Command};

    use netlink_packet_route::link::LinkFlags;

    use super::*;
    use crate::{
        controller::{backend::BridgeSpec, model::MacAddr},
        host::{
            routes,
            testing::{Name, in_new_netns, mtu_of},
        },
    };

    const MAC: MacAddr = MacAddr([2, 0x42, 10, 1, 0, 2]);

    fn make_bridge(addrs: &[&str]) -> Link {
        let addrs = addrs.iter().map(|a| a.parse().unwrap()).collect();
        bridge::create(&BridgeSpec { name: "br0".into(), addrs, mtu: Some(1400) }).unwrap()
    }

    fn spec(netns: &Path, addrs: &[&str], gateways: &[&str]) -> VethSpec {
        VethSpec {
            host_name: "veth0".into(),
            bridge: "br0".into(),
            netns: Some(netns.into()),
            name: "eth0".into(),
            mac: MAC,
            addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
            gateways: gateways.iter().map(|a| a.parse().unwrap()).collect(),
            isolated: false,
            mtu: Some(1400),
        }
    }

    fn conf(family: &str, interface: &str, key: &str) -> Result<String> {
        let file = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
        Ok(fs::read_to_string(file)?.trim().into())
    }

    fn ping(netns: &Path, to: IpAddr) -> bool {
        let ping = || Ok(Command::new("ping").args(["-c1", "-W5", &to.to_string()]).output()?);
        netns::within(netns, ping).unwrap().status.success()
    }

    #[test]
    fn a_container_reaches_its_gateway() {
        in_new_netns(|| {
            let bridge = make_bridge(&["10.1.0.1/24"]);
            let name = Name::new("veth");
            let ns = netns::create(&name).unwrap();
            let made = create(&spec(&ns, &["10.1.0.2/24"], &["10.1.0.1"])).unwrap();

            let netlink = Netlink::open().unwrap();
            let host = netlink.existing_link("veth0").unwrap();
            assert_eq!(link_of(&host), made);
            assert!(host.header.flags.contains(LinkFlags::Up));
            assert!(host.attributes.contains(&LinkAttribute::Controller(bridge.index)));
            assert_eq!(conf("ipv6", "veth0", "disable_ipv6").unwrap(), "1");
            assert_eq!(mtu_of(&netlink, "veth0"), 1400);

            let inside = Netlink::in_netns(&ns).unwrap();
            let eth0 = inside.existing_link("eth0").unwrap();
            assert_eq!(link_of(&eth0).mac, MAC);
            assert!(eth0.header.flags.contains(LinkFlags::Up));
            assert_eq!(mtu_of(&inside, "eth0"), 1400);
            assert_eq!(routes::destinations(&inside).unwrap(), ["10.1.0.0/24".parse().unwrap()]);
            let settings =
                || Ok((conf("ipv4", "eth0", "arp_notify")?, conf("ipv6", "eth0", "disable_ipv6")?));
            assert_eq!(netns::within(&ns, settings).unwrap(), ("1".into(), "1".into()));
            assert!(ping(&ns, "10.1.0.1".parse().unwrap()));
        });
    }

    #[test]
    fn an_end_that_an_engine_is_to_take_waits_beside_the_other() {
        in_new_netns(|| {
            make_bridge(&["10.1.0.1/24"]);
            let waiting = VethSpec { netns: None, name: "veth0p".into(), ..spec(Path::new(""), &[], &[]) };
            create(&waiting).unwrap();
            let netlink = Netlink::open().unwrap();
            let end = netlink.existing_link("veth0p").unwrap();
            assert_eq!(link_of(&end).mac, MAC);
            assert!(!end.header.flags.contains(LinkFlags::Up));
            assert_eq!(mtu_of(&netlink, "veth0p"), 1400);
        });
    }

    #[test]
    fn a_container_has_both_families() {
        in_new_netns(|| {
            make_bridge(&["10.1.0.1/24", "fd00:1::1/64"]);
            let name = Name::new("dual");
            let ns = netns::create(&name).unwrap();
            create(&spec(&ns, &["10.1.0.2/24", "fd00:1::2/64"], &["10.1.0.1", "fd00:1::1"])).unwrap();
            assert!(ping(&ns, "10.1.0.1".parse().unwrap()));
            assert!(ping(&ns, "fd00:1::1".parse().unwrap()));
        });
    }

    #[test]
    fn isolated_ports_reach_the_bridge_and_not_one_another() {
        in_new_netns(|| {
            make_bridge(&["10.1.0.1/24"]);
            let names = ["iso1", "iso2", "open"].map(Name::new);
            let spaces = names.each_ref().map(|name| netns::create(name).unwrap());
            for (i, ns) in spaces.iter().enumerate() {
                let octet = i + 2;
                let open = spec(ns, &[&format!("10.1.0.{octet}/24")], &["10.1.0.1"]);
                let mac = MacAddr([2, 0x42, 10, 1, 0, octet as u8]);
                create(&VethSpec { host_name: format!("veth{i}"), mac, isolated: i < 2, ..open }).unwrap();
            }
            let reaches = |from: usize, to: &str| ping(&spaces[from], to.parse().unwrap());
            for from in 0..3 {
                assert!(reaches(from, "10.1.0.1"), "{from} reaches the bridge");
            }
            assert!(
                reaches(0, "10.1.0.4") && reaches(2, "10.1.0.3"),
                "a port that is not isolated reaches all"
            );
            assert!(!reaches(0, "10.1.0.3") && !reaches(1, "10.1.0.2"));
            isolate("veth0", false).unwrap();
            assert!(reaches(0, "10.1.0.3"));
            isolate("veth0", true).unwrap();
            assert!(!reaches(0, "10.1.0.3"));
            isolate("gone", false).unwrap();
            assert!(isolate("gone", true).is_err());
            assert!(isolate("lo", true).is_err());
        });
    }

    #[test]
    fn a_failure_leaves_nothing() {
        in_new_netns(|| {
            make_bridge(&["10.1.0.1/24"]);
            let name = Name::new("fail");
            let ns = netns::create(&name).unwrap();
            let good = spec(&ns, &["10.1.0.2/24"], &["10.1.0.1"]);
            let bad = [
                VethSpec { bridge: "br1".into(), ..good.clone() },
                VethSpec { netns: Some("/proc/self/ns/uts".into()), ..good.clone() },
                VethSpec { gateways: vec!["192.0.2.1".parse().unwrap()], ..good.clone() },
                VethSpec { mtu: Some(1), ..good.clone() },
                VethSpec { name: "lo".into(), ..good.clone() },
            ];
            let (netlink, inside) = (Netlink::open().unwrap(), Netlink::in_netns(&ns).unwrap());
            for spec in bad {
                let error = create(&spec).unwrap_err();
                assert!(!format!("{error:#}").contains("left behind"), "{error:#}");
                assert!(netlink.link("veth0").unwrap().is_none(), "{error:#}");
                assert!(inside.link("eth0").unwrap().is_none(), "{error:#}");
            }
            create(&good).unwrap();
            assert_eq!(create(&good).unwrap_err().to_string(), "one of the two is there already");
            assert!(netlink.link("veth0").unwrap().is_some(), "what was there stays");
        });
    }
}
