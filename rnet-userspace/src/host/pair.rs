//! Pairs of interfaces, veths or netkits, between a bridge and a container's namespace.

use std::{fs::File, io::ErrorKind, os::fd::AsRawFd, path::Path};

use anyhow::{Context, Error, Result, bail, ensure};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoNetkit, InfoVeth, LinkAttribute, LinkMessage, NetkitMode,
};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkNetkit, LinkUnspec};
use rustix::io::Errno;

use super::{
    bridge,
    netlink::{self, Netlink, link_of, random_mac, with_mtu},
    netns, or_undo, preflight,
    sysctl::{self, Family},
};
use crate::controller::{
    backend::{Link, PairSpec},
    model::link::LinkKind,
};

/// The oldest kernel whose netkits are used. There are some from Linux 6.7 on, on which nothing of this has been tried.
const OLDEST_WITH_NETKIT: (u32, u32) = (6, 12);

/// What the kernel lacks to make pairs of this kind.
pub(super) fn lacks(kind: LinkKind) -> Result<Option<String>> {
    match kind {
        LinkKind::Veth => Ok(None),
        LinkKind::Netkit => lacks_netkit(&preflight::release()?),
    }
}

fn lacks_netkit(release: &str) -> Result<Option<String>> {
    let (major, minor) = OLDEST_WITH_NETKIT;
    if preflight::version(release).is_none_or(|version| version < OLDEST_WITH_NETKIT) {
        return Ok(Some(format!(
            "kernel {release} is too old for netkits: they need Linux {major}.{minor} or later"
        )));
    }
    // No kernel makes one in this mode, but only one that knows of netkits gets as far as looking at it.
    let impossible = LinkNetkit::new("netkit-none", "netkit-nonep", NetkitMode::Other(u32::MAX)).build();
    let refused = Netlink::open()?.add_link(impossible);
    let refused = refused.err().context("the kernel has made a netkit of an impossible mode")?;
    match refused.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INVAL | Errno::RANGE) => Ok(None),
        Some(Errno::OPNOTSUPP) => Ok(Some(no_netkit(release))),
        _ => Err(refused).context("ask the kernel for netkits"),
    }
}

fn no_netkit(release: &str) -> String {
    format!("kernel {release} is built without netkits (CONFIG_NETKIT)")
}

/// Makes a pair that is complete and up on both ends, and returns the host's end. A failure leaves nothing.
pub(super) fn create(spec: &PairSpec) -> Result<Link> {
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
    let (kind, data) = kind_and_data(spec.kind, with_mtu(inside, spec.mtu).build());
    let mac = random_mac();
    let host = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
        .name(&spec.host_name)
        .address(mac.into())
        .controller(bridge.index)
        .set_info_data(data);
    let made = match netlink.add_link(with_mtu(host, spec.mtu).build()) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => bail!("one of the two is there already"),
        // A network may be older than the kernel.
        Err(e)
            if spec.kind == LinkKind::Netkit && e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) =>
        {
            bail!(no_netkit(&preflight::release()?))
        }
        made => made.map_err(Error::from),
    };
    // The other end goes with it.
    or_undo(made.and_then(|()| configure(&netlink, spec)), || netlink::delete_made(&spec.host_name, mac))
}

/// How the kernel is told of the end inside. Of a netkit, both policies are left at `forward`: they are for what no
/// netkit program has decided, and `from_container` is a tcx program of the end on the bridge, as with a veth.
fn kind_and_data(kind: LinkKind, inside: LinkMessage) -> (InfoKind, InfoData) {
    match kind {
        LinkKind::Veth => (InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(inside))),
        LinkKind::Netkit => {
            let data = vec![InfoNetkit::Peer(inside), InfoNetkit::Mode(NetkitMode::L2)];
            (InfoKind::Netkit, InfoData::Netkit(data))
        }
    }
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

fn configure(netlink: &Netlink, spec: &PairSpec) -> Result<Link> {
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

fn configure_inside(netns: &Path, spec: &PairSpec) -> Result<()> {
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

fn set_sysctls(spec: &PairSpec) -> Result<()> {
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

    fn spec(netns: &Path, addrs: &[&str], gateways: &[&str]) -> PairSpec {
        PairSpec {
            kind: LinkKind::Veth,
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
            let waiting = PairSpec { netns: None, name: "veth0p".into(), ..spec(Path::new(""), &[], &[]) };
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
                create(&PairSpec { host_name: format!("veth{i}"), mac, isolated: i < 2, ..open }).unwrap();
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
    fn netkits_are_there_or_refused_for_what_the_kernel_lacks() {
        in_new_netns(|| {
            assert_eq!(lacks(LinkKind::Veth).unwrap(), None);
            let old = lacks_netkit("6.8.0-31-generic").unwrap();
            let wanted = "kernel 6.8.0-31-generic is too old for netkits: they need Linux 6.12 or later";
            assert_eq!(old.as_deref(), Some(wanted));

            make_bridge(&["10.1.0.1/24"]);
            let name = Name::new("netkit");
            let ns = netns::create(&name).unwrap();
            let netkit = PairSpec { kind: LinkKind::Netkit, ..spec(&ns, &["10.1.0.2/24"], &["10.1.0.1"]) };
            let before = routes::link_names().unwrap();
            let lacking = lacks(LinkKind::Netkit).unwrap();
            assert_eq!(routes::link_names().unwrap(), before, "asking makes nothing");
            let Some(lacking) = lacking else {
                create(&netkit).unwrap();
                assert!(ping(&ns, "10.1.0.1".parse().unwrap()));
                return;
            };
            let release = preflight::release().unwrap();
            assert_eq!(lacking, format!("kernel {release} is built without netkits (CONFIG_NETKIT)"));
            assert_eq!(create(&netkit).unwrap_err().to_string(), lacking);
            assert_eq!(routes::link_names().unwrap(), before);
            assert!(Netlink::in_netns(&ns).unwrap().link("eth0").unwrap().is_none());
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
                PairSpec { bridge: "br1".into(), ..good.clone() },
                PairSpec { netns: Some("/proc/self/ns/uts".into()), ..good.clone() },
                PairSpec { gateways: vec!["192.0.2.1".parse().unwrap()], ..good.clone() },
                PairSpec { mtu: Some(1), ..good.clone() },
                PairSpec { name: "lo".into(), ..good.clone() },
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
