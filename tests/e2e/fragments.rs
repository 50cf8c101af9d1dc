//! Datagrams larger than a packet.

use std::net::SocketAddrV4;

use testbed::{
    Host, Rnet, capture,
    packet::{self, Ethernet},
    topology::{CLIENT, FAR, HOST, UPLINK},
    traffic::{random_bytes, udp},
    wait_until,
};

with_and_without_offload!(
    large_datagrams_pass_a_published_port_both_ways,
    large_datagrams_leave_and_are_answered,
    large_datagrams_reach_a_neighbour,
);

const SIZES: [usize; 4] = [1473, 4000, 20_001, 60_000];

fn large_datagrams_pass_a_published_port_both_ways(host: &Host) {
    let rnet = Rnet::start(host);
    let web = rnet.run("web", &["-p", "8080:80/udp"]);
    let server = udp::echo(&web.ns, "0.0.0.0:80");
    let socket = udp::connect(&host.client, host.at(8080));
    for (seed, size) in SIZES.into_iter().enumerate() {
        udp::ask(&socket, &random_bytes(seed as u64, size)).unwrap();
    }
    assert!(server.peers().iter().all(|peer| peer.ip() == CLIENT));
}

/// The far machine lies behind a link of 1300 bytes: fragments are cut again on the way.
fn large_datagrams_leave_and_are_answered(host: &Host) {
    let far = host.far();
    let rnet = Rnet::start(host);
    let app = rnet.run("app", &[]);
    let (near, behind) = (udp::echo(&host.client, "0.0.0.0:9000"), udp::echo(far, "0.0.0.0:9000"));
    for (server, addr) in [(near, CLIENT), (behind, FAR)] {
        let socket = udp::connect(&app.ns, (addr, 9000).into());
        // Where the path takes less than the link, the first datagram finds that out.
        let _ = udp::ask(&socket, &random_bytes(9, 1473));
        for (seed, size) in SIZES.into_iter().enumerate() {
            udp::ask(&socket, &random_bytes(seed as u64, size)).unwrap();
        }
        assert!(server.peers().iter().all(|peer| peer.ip() == HOST));
    }
}

fn large_datagrams_reach_a_neighbour(host: &Host) {
    let rnet = Rnet::start(host);
    let (web, app) = (rnet.run("web", &[]), rnet.run("app", &[]));
    let _server = udp::echo(&web.ns, "0.0.0.0:80");
    let socket = udp::connect(&app.ns, web.at(80));
    for (seed, size) in SIZES.into_iter().enumerate() {
        udp::ask(&socket, &random_bytes(seed as u64, size)).unwrap();
    }
}

/// The fragments of a datagram from the client to port 8080, in order.
fn fragments(host: &Host, id: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    const SIZE: usize = 1480;
    let link = Ethernet { src: host.client.mac(UPLINK), dst: host.ns.mac(UPLINK) };
    let whole = packet::udp(link, SocketAddrV4::new(CLIENT, 40_000), SocketAddrV4::new(HOST, 8080), payload);
    let (header, rest) = whole.split_at(34);
    let last = rest.len().div_ceil(SIZE) - 1;
    let cut = |(n, part): (usize, &[u8])| {
        let mut header = etherparse::Ipv4Header::from_slice(&header[14..]).unwrap().0;
        header.identification = id;
        header.dont_fragment = false;
        header.more_fragments = n < last;
        header.fragment_offset = u16::try_from(n * SIZE / 8).unwrap().try_into().unwrap();
        header.set_payload_len(part.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut frame = whole[..14].to_vec();
        header.write(&mut frame).unwrap();
        frame.extend(part);
        frame
    };
    rest.chunks(SIZE).enumerate().map(cut).collect()
}

/// Has packets that arrive at the uplink handled by another processor than the one that this thread is bound to, as a
/// network card's are: here they would be handled before the next is sent.
fn receive_elsewhere(host: &Host) {
    let steer = format!("echo 2 > /sys/class/net/{UPLINK}/queues/rx-0/rps_cpus");
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", host.ns.name(), "sh", "-c", &steer]);
    testbed::process::run(command, std::time::Duration::from_secs(10)).assert_ok("steer packets");
    let mut first = nix::sched::CpuSet::new();
    first.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &first).unwrap();
}

/// Within a burst: a fragment whose first comes much later is lost.
#[test]
fn the_order_of_fragments_does_not_matter() {
    testbed::require_root!();
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        return testbed::skip("needs two processors");
    }
    let host = Host::new();
    receive_elsewhere(&host);
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80/udp"]);
    let server = udp::echo(&web.ns, "0.0.0.0:80");
    let payload = random_bytes(5, 8000);
    let parts = fragments(&host, 1, &payload);
    for (round, order) in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 1, 2]].into_iter().enumerate()
    {
        let id = u16::try_from(round).unwrap() + 1;
        let parts = fragments(&host, id, &payload);
        let burst: Vec<_> = order.iter().map(|n| parts[*n].clone()).collect();
        let before = server.peers().len();
        // The machine may be busy with other tests just when the burst is under way.
        wait_until("the datagram arrives whole", std::time::Duration::from_secs(20), || {
            capture::send(&host.client, UPLINK, &burst);
            (server.peers().len() > before).then_some(())
        });
    }
    assert_eq!(parts.len(), 6);
    // Without its first fragment nothing arrives, in the container or anywhere.
    capture::send(&host.client, UPLINK, &fragments(&host, 77, &payload)[1..]);
    let socket = udp::connect(&host.client, host.at(8080));
    let before = server.peers().len();
    udp::ask(&socket, b"behind them").unwrap();
    assert_eq!(server.peers().len(), before + 1);
}
