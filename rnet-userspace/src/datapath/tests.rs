//! The datapath on a kernel: in a network namespace and under a name of the test's own.

use std::{
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use rnet_common::EndpointFlags;

use super::{tables::Address as _, *};
use crate::controller::{
    backend::{Direct, EndpointAddr, Link, Policy},
    model::{HostPort, MacAddr, Protocol, xdp::Xdp},
};

mod flows;
mod quotas;

#[test]
fn an_instance_s_directory_goes_with_its_last_layout() {
    let dir = tempfile::tempdir().unwrap();
    let instance = dir.path().join("rnet");
    for layout in ["v1", "v2"] {
        fs::create_dir_all(instance.join(layout).join("links")).unwrap();
    }
    remove_pins(&instance.join("v1")).unwrap();
    assert!(instance.join("v2").exists());
    remove_pins(&instance.join("v2")).unwrap();
    assert!(!instance.exists());
    remove_pins(&instance.join("v2")).unwrap();
}

/// A network namespace with a veth, and a place for pins.
struct Place {
    pin_dir: PathBuf,
    ifindex: u32,
}

impl Place {
    fn open(&self) -> Ebpf {
        Ebpf::open(self.options(Sizes::default())).unwrap()
    }

    fn options(&self, sizes: Sizes) -> Options {
        // Any descriptor does for namespaces; the programs say nothing to processes of other namespaces.
        let cgroup = rustix::mount::fsopen("cgroup2", rustix::mount::FsOpenFlags::empty()).unwrap();
        rustix::mount::fsconfig_create(cgroup.as_fd()).unwrap();
        let cgroup = rustix::mount::fsmount(
            cgroup.as_fd(),
            rustix::mount::FsMountFlags::empty(),
            rustix::mount::MountAttrFlags::empty(),
        )
        .unwrap();
        Options {
            pin_dir: self.pin_dir.clone(),
            snat_ports: 1024..=32767,
            sizes,
            replace_layout: false,
            timeouts: Timeouts::default(),
            limits: FlowLimits::default(),
            netns_cookie: 1,
            cgroup,
            xdp: Xdp::Off,
            named_uplinks: false,
        }
    }

    fn endpoint(&self) -> EndpointSpec {
        EndpointSpec {
            host_name: "veth0".into(),
            ifindex: self.ifindex,
            bridge: Link { index: 900, mac: MacAddr([2, 0, 0, 0, 0, 1]) },
            network: 7,
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            addrs: [("172.17.0.2", "172.17.0.1"), ("fd00::2", "fd00::1")]
                .map(|(addr, gateway)| EndpointAddr {
                    addr: addr.parse().unwrap(),
                    gateway: Some(gateway.parse().unwrap()),
                    masquerade: true,
                    direct: Direct::None,
                })
                .to_vec(),
            mtu: 1500,
            policy: Policy { icc: true, internal: false, via_stack: false, exempts: false, max_flows: None },
            takes_frames: false,
        }
    }

    fn pins(&self) -> Vec<String> {
        let names = |dir: &Path| -> Vec<String> {
            let entries =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            entries.collect()
        };
        let mut pins = names(&self.pin_dir.join("links"));
        pins.sort();
        pins
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = remove_pins(&self.pin_dir);
    }
}

/// Pins that are there as long as the datapath is.
fn socket_pins() -> Vec<String> {
    let mut pins: Vec<String> = load::SOCKETS.map(str::to_owned).into();
    pins.sort();
    pins
}

fn in_place(test: impl FnOnce(&Place) + Send) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !nix::unistd::geteuid().is_root() || load::OBJECT.is_empty() {
        assert!(std::env::var_os("RNET_REQUIRE_ALL").is_none(), "needs root and the built datapath");
        eprintln!("skipped: needs root and the built datapath");
        return;
    }
    let name = format!("rnet-u{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let made =
                Command::new("ip").args("link add veth0 type veth peer veth1".split(' ')).status().unwrap();
            assert!(made.success());
            let ifindex = nix::net::if_::if_nametoindex("veth0").unwrap();
            let pin_dir = Path::new("/sys/fs/bpf").join(name).join("v1");
            test(&Place { pin_dir, ifindex });
        });
        inside.join().unwrap();
    });
}

fn binding(port: u16, to: u16) -> Binding {
    let host = HostPort { addr: "0.0.0.0".parse().unwrap(), port, protocol: Protocol::Tcp };
    Binding { host, addr: "172.17.0.2".parse().unwrap(), port: to, sources: 0, unheld: false }
}

#[test]
fn a_port_that_an_engine_keeps_is_left_to_its_sockets() {
    in_place(|place| {
        let engines = |port| Binding { unheld: true, ..binding(port, 80) };
        let mut first = place.open();
        first.add_endpoint(&place.endpoint()).unwrap();
        first.publish(&[engines(8080), binding(8081, 80)]).unwrap();
        let held = |datapath: &Ebpf| -> Vec<_> {
            datapath.tables.held.entries().unwrap().iter().map(|(key, _)| key.port.get()).collect()
        };
        assert_eq!(held(&first), [8081]);
        let published = first.tables.v4.ports.entries().unwrap();
        drop(first);
        let mut second = place.open();
        assert_eq!(held(&second), [8081], "as the first left it");
        assert_eq!(second.tables.v4.ports.entries().unwrap(), published);
        // Who keeps it can change; its flows live on.
        second.publish(&[binding(8080, 80), engines(8081)]).unwrap();
        assert_eq!(held(&second), [8080]);
        let ids = |entries: Vec<(_, rnet_common::Backend<_>)>| -> BTreeSet<_> {
            entries.iter().map(|(_, b)| (b.mapping, b.generation)).collect()
        };
        assert_eq!(ids(second.tables.v4.ports.entries().unwrap()), ids(published));
        second.unpublish(&[engines(8081), binding(8080, 80)]).unwrap();
        assert!(held(&second).is_empty() && second.tables.v4.ports.entries().unwrap().is_empty());
    });
}

#[test]
fn programs_on_the_root_cgroup_are_found_at_their_hooks() {
    in_place(|place| {
        let _datapath = place.open();
        let hooks = survey::socket_hooks();
        assert_eq!(hooks.len(), load::SOCKETS.len());
        for (hook, programs) in hooks {
            let own = format!("sock_{}", hook.trim_start_matches("get"));
            assert!(programs.contains(&own), "{own} at {hook}: {programs:?}");
            let others = |program: &&String| load::SOCKETS.contains(&program.as_str()) && **program != own;
            assert_eq!(programs.iter().find(others), None, "at {hook}");
        }
    });
}

#[test]
fn a_second_daemon_adopts_what_the_first_left() {
    in_place(|place| {
        let mut first = place.open();
        first.add_endpoint(&place.endpoint()).unwrap();
        first.publish(&[binding(8080, 80), binding(8081, 81)]).unwrap();
        let before = (first.tables.v4.ports.entries().unwrap(), first.tables.v4.endpoints.entries().unwrap());
        drop(first);

        let mut second = place.open();
        second.add_endpoint(&place.endpoint()).unwrap();
        second.publish(&[binding(8080, 80)]).unwrap();
        let after =
            (second.tables.v4.ports.entries().unwrap(), second.tables.v4.endpoints.entries().unwrap());
        assert_eq!(before, after, "generations included, so that flows live on");
        second.retain(&[place.endpoint()], &[binding(8080, 80)], &BTreeSet::new()).unwrap();
        assert_eq!(second.tables.v4.ports.entries().unwrap().len(), 1);
        assert_eq!(second.tables.held.entries().unwrap().len(), 1);
        let link = format!("from_container-{}", place.ifindex);
        let sockets = socket_pins();
        assert_eq!(place.pins(), [&[link], sockets.as_slice()].concat());
        second.retain(&[], &[], &BTreeSet::new()).unwrap();
        assert_eq!(place.pins(), sockets);
        second.destroy().unwrap();
        assert!(!place.pin_dir.parent().unwrap().exists());
    });
}

#[test]
fn what_leaves_is_looked_at_while_an_endpoint_needs_it() {
    in_place(|place| {
        let plain = place.endpoint();
        let policy = Policy { via_stack: true, ..plain.policy };
        let via_stack = EndpointSpec { policy, ..plain.clone() };
        let uplink = Uplink {
            index: nix::net::if_::if_nametoindex("veth1").unwrap(),
            name: "veth1".into(),
            ..Uplink::default()
        };
        let pin = format!("to_uplink-{}", uplink.index);
        let is_there = || place.pins().contains(&pin);

        let mut first = place.open();
        first.set_uplinks(std::slice::from_ref(&uplink)).unwrap();
        first.add_endpoint(&plain).unwrap();
        assert!(!is_there());
        first.add_endpoint(&via_stack).unwrap();
        assert!(is_there());
        let [(_, entry)] = first.tables.v4.endpoints.entries().unwrap()[..] else { panic!("one endpoint") };
        assert!(entry.is(EndpointFlags::VIA_STACK));
        first.set_uplinks(&[]).unwrap();
        assert!(!is_there());
        first.set_uplinks(std::slice::from_ref(&uplink)).unwrap();
        assert!(is_there(), "an uplink that comes later has it too");
        drop(first);

        let mut second = place.open();
        second.set_uplinks(std::slice::from_ref(&uplink)).unwrap();
        assert!(is_there(), "before the endpoint is added again");
        second.add_endpoint(&via_stack).unwrap();
        second.retain(std::slice::from_ref(&via_stack), &[], &BTreeSet::new()).unwrap();
        assert!(is_there());
        second.remove_endpoint(&via_stack).unwrap();
        assert!(!is_there());
        second.add_endpoint(&via_stack).unwrap();
        assert!(is_there());
        second.retain(&[], &[], &BTreeSet::new()).unwrap();
        assert!(!is_there());
        // Again and again: the kernel takes its time to let go of a program.
        for _ in 0..5 {
            second.add_endpoint(&via_stack).unwrap();
            assert!(is_there());
            second.add_endpoint(&plain).unwrap();
            assert!(!is_there());
        }
        let [(_, entry)] = second.tables.v4.endpoints.entries().unwrap()[..] else { panic!("one endpoint") };
        assert!(!entry.is(EndpointFlags::VIA_STACK));
    });
}

#[test]
fn publishing_is_all_or_none() {
    in_place(|place| {
        let mut datapath = place.open();
        datapath.add_endpoint(&place.endpoint()).unwrap();
        datapath.publish(&[binding(8080, 80)]).unwrap();
        let before = datapath.tables.v4.ports.entries().unwrap();
        let mixed = Binding { addr: "fd00::2".parse().unwrap(), ..binding(8082, 80) };
        let error = datapath.publish(&[binding(8080, 9), binding(8081, 80), mixed]).unwrap_err();
        assert!(format!("{error:#}").contains("0.0.0.0:8082/tcp"), "{error:#}");
        assert_eq!(datapath.tables.v4.ports.entries().unwrap(), before);
        assert!(datapath.port_counts(&[binding(8080, 80)]).is_ok(), "its mapping is alive");
        assert_eq!(datapath.tables.held.entries().unwrap().len(), 1);
    });
}

#[test]
fn a_port_that_leads_elsewhere_is_another_s() {
    in_place(|place| {
        let mut datapath = place.open();
        datapath.publish(&[binding(8080, 80)]).unwrap();
        let [(_, first)] = datapath.tables.v4.ports.entries().unwrap()[..] else { panic!("one port") };
        datapath.unpublish(&[binding(8080, 81)]).unwrap();
        assert_eq!(datapath.tables.v4.ports.entries().unwrap().len(), 1);
        datapath.publish(&[binding(8080, 81)]).unwrap();
        let [(_, second)] = datapath.tables.v4.ports.entries().unwrap()[..] else { panic!("one port") };
        assert_ne!(first.generation, second.generation, "flows of the first are dead");
        datapath.unpublish(&[binding(8080, 81)]).unwrap();
        assert!(datapath.tables.v4.ports.entries().unwrap().is_empty());
        assert!(datapath.tables.held.entries().unwrap().is_empty());
    });
}

#[test]
fn a_whole_table_is_read() {
    in_place(|place| {
        let mut datapath = place.open();
        let addrs: Vec<IpAddr> = (0..4000u16).map(|n| [10, 0, (n >> 8) as u8, n as u8].into()).collect();
        datapath.set_addresses(&addrs, &BTreeSet::new()).unwrap();
        let read: HashSet<IpAddr> =
            datapath.tables.v4.locals.entries().unwrap().into_iter().map(|(addr, _)| addr.ip()).collect();
        assert_eq!(read, addrs.iter().copied().collect());
        datapath.set_addresses(&addrs[..10], &BTreeSet::new()).unwrap();
        assert_eq!(datapath.tables.v4.locals.entries().unwrap().len(), 10);
    });
}

#[test]
fn an_endpoint_that_changes_gets_another_generation() {
    in_place(|place| {
        let mut datapath = place.open();
        let spec = place.endpoint();
        datapath.add_endpoint(&spec).unwrap();
        let [(_, first)] = datapath.tables.v4.endpoints.entries().unwrap()[..] else {
            panic!("one endpoint")
        };
        let changed = EndpointSpec { mac: MacAddr([2, 0, 0, 0, 0, 3]), ..spec.clone() };
        datapath.add_endpoint(&changed).unwrap();
        let [(_, second)] = datapath.tables.v4.endpoints.entries().unwrap()[..] else {
            panic!("one endpoint")
        };
        assert_ne!(first.generation, second.generation);
        // What is removed late is not taken for its successor.
        datapath.remove_endpoint(&EndpointSpec { ifindex: 0, ..spec }).unwrap();
        assert_eq!(datapath.tables.v4.endpoints.entries().unwrap().len(), 1);
        datapath.remove_endpoint(&EndpointSpec { ifindex: 0, ..changed }).unwrap();
        assert!(datapath.tables.v4.endpoints.entries().unwrap().is_empty());
        assert_eq!(place.pins(), socket_pins());
    });
}

#[test]
fn tables_are_as_large_as_asked_and_are_not_changed_under_traffic() {
    in_place(|place| {
        let sizes = Sizes { flows: Some(500), ports: Some(3) };
        let max = |map: &str| {
            let map = aya::maps::MapData::from_pin(place.pin_dir.join(map)).unwrap();
            map.info().unwrap().max_entries()
        };
        let mut datapath = Ebpf::open(place.options(sizes)).unwrap();
        assert_eq!((max("FLOWS4"), max("PORTS4")), (1000, 3));
        datapath.add(&place.endpoint()).unwrap();
        datapath.publish(&[binding(1, 1), binding(2, 2), binding(3, 3)]).unwrap();
        let full = datapath.publish(&[binding(4, 4)]).unwrap_err();
        assert!(format!("{full:#}").starts_with("publish port 0.0.0.0:4/tcp: "), "{full:#}");
        drop(datapath);

        let other = Ebpf::open(place.options(Sizes { flows: Some(501), ..sizes })).err().unwrap();
        assert!(format!("{other:#}").contains("1002 entries, and the one in use has 1000"), "{other:#}");
        drop(Ebpf::open(place.options(sizes)).unwrap());
        drop(place.open());
        assert_eq!(max("FLOWS4"), 1000, "kept");
    });
}

#[test]
fn timeouts_are_set_without_touching_other_settings() {
    in_place(|place| {
        let mut datapath = place.open();
        let before = datapath.tables.settings().unwrap();
        let timeouts = Timeouts { udp: 5 * rnet_common::settings::SECOND, ..Timeouts::default() };
        datapath.set_timeouts(&timeouts).unwrap();
        let after = datapath.tables.settings().unwrap();
        assert_eq!(after.timeouts, timeouts);
        assert_eq!((after.snat_min, after.netns_cookie), (before.snat_min, before.netns_cookie));
    });
}

#[test]
fn a_routed_port_is_no_port_of_the_host() {
    in_place(|place| {
        let mut datapath = place.open();
        let own = binding(80, 80);
        let routed = Binding { host: HostPort { addr: own.addr, ..own.host }, ..own };
        datapath.publish(&[routed]).unwrap();
        assert_eq!(datapath.tables.v4.ports.entries().unwrap().len(), 1);
        assert!(datapath.tables.held.entries().unwrap().is_empty());
        drop(datapath);
        let mut datapath = place.open();
        assert!(datapath.tables.held.entries().unwrap().is_empty());
        datapath.unpublish(&[routed]).unwrap();
        assert!(datapath.tables.v4.ports.entries().unwrap().is_empty());
    });
}

#[test]
fn lists_of_sources_are_exactly_what_was_said() {
    in_place(|place| {
        let nets = |nets: &[&str]| nets.iter().map(|n| n.parse().unwrap()).collect::<Vec<IpNetwork>>();
        let count = |datapath: &Ebpf| {
            let Tables { v4, v6, .. } = &datapath.tables;
            (v4.sources.count(), v6.sources.count())
        };
        let mut datapath = place.open();
        datapath.set_sources(1, &nets(&["10.0.0.0/8", "192.0.2.7/32", "fd00::/64"])).unwrap();
        datapath.set_sources(2, &nets(&["10.0.0.0/8", "0.0.0.0/0"])).unwrap();
        assert_eq!(count(&datapath), (4, 1));
        // A prefix is the network's, whichever address of it was named.
        datapath.set_sources(1, &nets(&["10.9.9.9/8", "192.0.2.8/32"])).unwrap();
        assert_eq!(count(&datapath), (4, 0));
        drop(datapath);
        let mut datapath = place.open();
        assert_eq!(count(&datapath), (4, 0));
        datapath.set_sources(2, &[]).unwrap();
        assert_eq!(count(&datapath), (2, 0));
        datapath.retain(&[], &[], &[3].into()).unwrap();
        assert_eq!(count(&datapath), (0, 0));
    });
}

#[test]
fn a_port_that_is_opened_to_others_keeps_its_flows() {
    in_place(|place| {
        let mut datapath = place.open();
        datapath.publish(&[binding(8080, 80)]).unwrap();
        let [(_, first)] = datapath.tables.v4.ports.entries().unwrap()[..] else { panic!("one port") };
        datapath.publish(&[Binding { sources: 5, ..binding(8080, 80) }]).unwrap();
        let [(_, second)] = datapath.tables.v4.ports.entries().unwrap()[..] else { panic!("one port") };
        assert_eq!((second.mapping, second.generation, second.sources), (first.mapping, first.generation, 5));
        assert!(datapath.port_counts(&[binding(8080, 80)]).is_ok(), "its mapping is alive");
    });
}

#[test]
fn ten_thousand_ports_come_and_go() {
    in_place(|place| {
        let mut datapath = place.open();
        let all: Vec<_> = (10_000..20_000).map(|port| binding(port, port)).collect();
        datapath.publish(&all).unwrap();
        assert_eq!(datapath.tables.v4.ports.entries().unwrap().len(), all.len());
        assert_eq!(datapath.tables.held.entries().unwrap().len(), all.len());
        // Some of them are gone already.
        datapath.unpublish(&all[5000..5010]).unwrap();
        datapath.unpublish(&all).unwrap();
        assert!(datapath.tables.v4.ports.entries().unwrap().is_empty());
        assert!(datapath.tables.held.entries().unwrap().is_empty());
    });
}
