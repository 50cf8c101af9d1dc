//! Ports that are published on a loopback address: for the host's own programs and nobody else.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::Path,
    time::Duration,
};

use testbed::{
    Host, Netns, Rnet,
    capture::{self, Capture},
    packet,
    topology::{CLIENT, HOST, UPLINK},
    traffic::{Failure, tcp, udp},
    wait_until,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_port_on_loopback_is_for_the_host_alone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "127.0.0.1:8081:80", "-p", "127.0.0.1:8081:80/udp"]);
    let other = rnet.run("other", &[]);
    assert_eq!(rnet.ok(&["port", "web"]), "80/tcp -> 127.0.0.1:8081\n80/udp -> 127.0.0.1:8081\n");
    let servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    for name in ["127.0.0.1:8081", "[::ffff:127.0.0.1]:8081"].map(addr) {
        tcp::ask(&host.ns, name);
        assert_eq!(udp::ask_unconnected(&host.ns, name), Ok(name));
    }
    tcp::ask_from(&host.ns, addr("127.0.0.1:0"), addr("127.0.0.1:8081"));
    let known = (servers.0.peers().len(), servers.1.peers().len());
    for name in ["127.0.0.2:8081", "172.17.0.1:8081", "10.200.0.1:8081"].map(addr) {
        assert_eq!(tcp::connect(&host.ns, name).unwrap_err(), Failure::Refused, "{name}");
    }
    assert_eq!(tcp::connect(&host.client, host.at(8081)).unwrap_err(), Failure::Refused);
    assert_eq!(udp::ask(&udp::connect(&host.client, host.at(8081)), b"x"), Err(Failure::Refused));
    for name in ["127.0.0.1:8081", "172.17.0.1:8081", "10.200.0.1:8081"].map(addr) {
        assert_eq!(tcp::connect(&other.ns, name).unwrap_err(), Failure::Refused, "from a container: {name}");
    }
    let taken = host.ns.run(|| TcpListener::bind("127.0.0.1:8081"));
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!((servers.0.peers().len(), servers.1.peers().len()), known);
}

#[test]
fn a_neighbour_who_forges_a_loopback_address_reaches_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "127.0.0.1:8081:80", "-p", "127.0.0.1:8081:80/udp", "-p", "8080:80"]);
    let neighbour = rnet.run("neighbour", &[]);
    // Without it the kernel drops such packets, and it is not the kernel that is tested.
    for interface in ["all", UPLINK, "rnet0"] {
        let key = format!("net/ipv4/conf/{interface}/route_localnet");
        let there = host.ns.run(|| Path::new("/proc/sys").join(&key).exists());
        if there {
            host.ns.set_sysctl(&key, "1");
        }
    }
    let servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:80"));
    let capture = Capture::start(&web.ns, "eth0");
    forge(&host.client, UPLINK, CLIENT, host.ns.mac(UPLINK));
    forge(&neighbour.ns, "eth0", neighbour.addr, mac_of(&neighbour.ns, GATEWAY));
    // What comes behind them on the same ways arrives.
    tcp::ask(&host.client, host.at(8080));
    tcp::ask(&neighbour.ns, host.at(8080));
    assert!(capture.has(|t| t.dst == web.at(80)), "the capture sees what arrives");
    for frame in capture.stop() {
        let payload = b"forged";
        assert!(!frame.windows(payload.len()).any(|w| w == payload), "{}", packet::describe(&frame));
        assert!(packet::tuple(&frame).is_none_or(|t| t.src.port() != 4444), "{}", packet::describe(&frame));
    }
    assert_eq!((servers.0.peers().len(), servers.1.peers().len()), (2, 0));
}

fn forge(ns: &Netns, interface: &str, own: Ipv4Addr, to: [u8; 6]) {
    let link = packet::Ethernet { src: ns.mac(interface), dst: to };
    let mut frames = Vec::new();
    for src in [own, Ipv4Addr::LOCALHOST, HOST] {
        for dst in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
            for port in [8080, 8081] {
                let (src, dst) = (SocketAddrV4::new(src, 4444), SocketAddrV4::new(dst, port));
                frames.push(packet::udp(link, src, dst, b"forged"));
                frames.push(packet::tcp(link, src, dst, packet::syn(1), b""));
            }
        }
    }
    capture::send(ns, interface, &frames);
}

/// The Ethernet address of a neighbour, which is asked for if it is not known.
fn mac_of(ns: &Netns, addr: Ipv4Addr) -> [u8; 6] {
    let asked = udp::connect(ns, (addr, 9).into());
    wait_until("the neighbour's Ethernet address is known", Duration::from_secs(10), || {
        // Refused or not, the neighbour is asked for.
        let _ = asked.send(b"x");
        let known = ns.output_of("ip", &["neighbour", "show", &addr.to_string()])?;
        let mac = known.split_whitespace().skip_while(|w| *w != "lladdr").nth(1)?;
        let octets = mac.split(':').map(|o| u8::from_str_radix(o, 16)).collect::<Result<Vec<_>, _>>();
        octets.ok()?.try_into().ok()
    })
}
