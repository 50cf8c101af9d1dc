//! The datapath on a kernel: in a network namespace and under a name of the test's own.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt::IpBindAddressNoPort},
};
use rustix::net::{AddressFamily, SocketType};

use super::{tables::Address as _, *};
use crate::controller::{
    backend::{Direct, EndpointAddr, Link, Policy},
    model::{HostPort, MacAddr, Protocol},
};

#[test]
fn other_layouts_are_removed_and_nothing_else() {
    let instance = tempfile::tempdir().unwrap();
    for name in ["v1/links", "v2/links", "v12", "vx", "other"] {
        fs::create_dir_all(instance.path().join(name)).unwrap();
    }
    remove_other_layouts(&instance.path().join("v2")).unwrap();
    let mut left: Vec<_> = fs::read_dir(instance.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["other", "v2", "vx"]);
}

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
        self.open_for(1)
    }

    /// A datapath for sockets of the namespace with this cookie.
    fn open_for(&self, netns_cookie: u64) -> Ebpf {
        // Any descriptor does for namespaces; the programs say nothing to processes of other namespaces.
        let cgroup = rustix::mount::fsopen("cgroup2", rustix::mount::FsOpenFlags::empty()).unwrap();
        rustix::mount::fsconfig_create(cgroup.as_fd()).unwrap();
        let cgroup = rustix::mount::fsmount(
            cgroup.as_fd(),
            rustix::mount::FsMountFlags::empty(),
            rustix::mount::MountAttrFlags::empty(),
        )
        .unwrap();
        let options =
            Options { pin_dir: self.pin_dir.clone(), snat_ports: 1024..=32767, netns_cookie, cgroup };
        Ebpf::open(options).unwrap()
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
            policy: Policy { icc: true, internal: false },
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
    Binding { host, addr: "172.17.0.2".parse().unwrap(), port: to }
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
        second.retain(&[place.endpoint()], &[binding(8080, 80)]).unwrap();
        assert_eq!(second.tables.v4.ports.entries().unwrap().len(), 1);
        assert_eq!(second.tables.held.entries().unwrap().len(), 1);
        let link = format!("from_container-{}", place.ifindex);
        let sockets = socket_pins();
        assert_eq!(place.pins(), [&[link], sockets.as_slice()].concat());
        second.retain(&[], &[]).unwrap();
        assert_eq!(place.pins(), sockets);
        second.destroy().unwrap();
        assert!(!place.pin_dir.parent().unwrap().exists());
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
        datapath.set_addresses(&addrs).unwrap();
        let read: HashSet<IpAddr> =
            datapath.tables.v4.locals.entries().unwrap().into_iter().map(|(addr, _)| addr.ip()).collect();
        assert_eq!(read, addrs.iter().copied().collect());
        datapath.set_addresses(&addrs[..10]).unwrap();
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

/// A container's place is taken by an address of the namespace's own, which the programs do not know from one.
#[test]
fn the_host_s_own_ipv6_sockets_are_led_to_published_ports() {
    in_place(|place| {
        for args in ["link set lo up", "addr add fd00::2/128 dev lo nodad"] {
            assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success());
        }
        let mut datapath = place.open_for(crate::host::preflight::netns_cookie().unwrap());
        let container: IpAddr = "fd00::2".parse().unwrap();
        datapath.set_addresses(&[IpAddr::from(Ipv6Addr::LOCALHOST), container]).unwrap();
        let bindings = [Protocol::Tcp, Protocol::Udp].map(|protocol| Binding {
            host: HostPort { addr: IpAddr::from(Ipv6Addr::UNSPECIFIED), port: 8080, protocol },
            addr: container,
            port: 80,
        });
        datapath.publish(&bindings).unwrap();
        let relay = datapath.take_relay().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| {
                runtime.block_on(async {
                    tokio::select! {
                        () = relay.run() => {}
                        _ = ended => {}
                    }
                });
            });
            // Dropped on failure too, which ends the relay.
            let _end = end;
            lead_to_container((container, 80).into());
        });
        let counts = datapath.port_counts(&bindings).unwrap();
        assert_eq!(counts.iter().map(|count| count.flows).collect::<Vec<_>>(), [5, 2]);
    });
}

/// Connects in every way to 8080 of the namespace, and expects to speak with `container`.
fn lead_to_container(container: SocketAddr) {
    let limit = Some(Duration::from_secs(10));
    let server = TcpListener::bind(container).unwrap();
    let names = ["[::1]:8080", "[::]:8080", "[fd00::2]:8080"].map(|name| name.parse::<SocketAddr>().unwrap());
    let told =
        |name: SocketAddr| if name.ip().is_unspecified() { "[::1]:8080".parse().unwrap() } else { name };
    for name in names {
        let client = TcpStream::connect(name).unwrap();
        assert_eq!(
            (client.peer_addr().unwrap(), client.local_addr().unwrap().ip()),
            (told(name), container.ip())
        );
        assert_eq!(server.accept().unwrap().1, client.local_addr().unwrap());
    }
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    for has_port in [true, false] {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
        setsockopt(&socket, IpBindAddressNoPort, &!has_port).unwrap();
        rustix::net::bind(&socket, &loopback).unwrap();
        rustix::net::connect(&socket, &names[0]).unwrap();
        let mut client = TcpStream::from(socket);
        client.set_read_timeout(limit).unwrap();
        assert_eq!(client.peer_addr().unwrap(), names[0]);
        // One that has its port keeps its address, and is relayed.
        assert_eq!(client.local_addr().unwrap().ip().is_loopback(), has_port);
        let (mut accepted, from) = server.accept().unwrap();
        assert_eq!(from.ip(), container.ip());
        accepted.write_all(b"relayed").unwrap();
        client.read_exact(&mut [0; 7]).unwrap();
    }

    let server = UdpSocket::bind(container).unwrap();
    let client = UdpSocket::bind("[::]:0").unwrap();
    client.set_read_timeout(limit).unwrap();
    server.set_read_timeout(limit).unwrap();
    for name in names {
        client.send_to(b"x", name).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"y", from).unwrap();
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (1, told(name)));
    }
}
