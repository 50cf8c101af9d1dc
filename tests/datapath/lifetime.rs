//! How flows live and end.

use std::net::Ipv4Addr;

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use rnet_common::{Flow, FlowKey, Ip4, Reason, Side, flow::seen};

use crate::{
    frames::{Kind, Way, frame},
    lab::{APP, CLIENT, From, HOST, Lab, WEB, tuple},
};

struct Connection {
    lab: Lab,
    inward: Way,
    outward: Way,
}

impl Connection {
    fn new() -> Self {
        let mut lab = Lab::new();
        lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
        let inward = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
        let outward = Way { link: lab.web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
        let mut connection = Self { lab, inward, outward };
        assert_eq!(connection.inward(&Kind::syn()), Reason::Published);
        connection
    }

    fn inward(&mut self, kind: &Kind) -> Reason {
        self.lab.judge(From::Uplink, &frame(self.inward, kind)).1
    }

    fn outward(&mut self, kind: &Kind) -> Reason {
        let web = self.lab.web.from();
        self.lab.judge(web, &frame(self.outward, kind)).1
    }

    /// What the two directions have seen.
    fn seen(&mut self) -> (u8, u8) {
        let inward = self.lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), 6, Side::Uplink).unwrap();
        let outward = self.lab.flow(tuple((WEB, 80), (CLIENT, 40_000)), 6, Side::Container).unwrap();
        (inward.seen, outward.seen)
    }
}

#[test]
fn each_direction_notes_what_it_has_seen() {
    testbed::require_root!();
    let mut connection = Connection::new();
    assert_eq!(connection.seen(), (seen::PACKET, 0));
    connection.outward(&Kind::tcp(|header| (header.syn, header.ack) = (true, true)));
    assert_eq!(connection.seen(), (seen::PACKET, seen::PACKET));
    connection.inward(&Kind::tcp(|header| header.ack = true));
    assert_eq!(connection.seen(), (seen::PACKET | seen::ACK, seen::PACKET));
    connection.outward(&Kind::tcp(|header| (header.fin, header.ack) = (true, true)));
    assert_eq!(connection.seen().1, seen::PACKET | seen::ACK | seen::FIN);
    connection.inward(&Kind::tcp(|header| header.rst = true));
    assert_eq!(connection.seen().0 & (seen::RST | seen::FIN), seen::RST);
}

#[test]
fn a_syn_on_a_closed_connection_begins_a_new_one() {
    testbed::require_root!();
    let mut connection = Connection::new();
    let fin = Kind::tcp(|header| (header.fin, header.ack) = (true, true));
    connection.outward(&fin);
    connection.inward(&Kind::syn());
    assert_ne!(connection.seen().1, 0, "half of it is still open");
    connection.inward(&fin);
    assert_eq!(connection.inward(&Kind::syn()), Reason::Published);
    assert_eq!(connection.seen(), (seen::PACKET, 0));
}

#[test]
fn a_withdrawn_port_ends_its_flows_with_the_next_packet() {
    testbed::require_root!();
    let mut connection = Connection::new();
    let data = Kind::tcp(|header| header.ack = true);
    assert_eq!(connection.inward(&data), Reason::Published);
    assert_eq!(connection.outward(&data), Reason::PublishedReply);
    connection.lab.set_mapping(16, 0);
    assert_eq!(connection.inward(&data), Reason::NotOurs);
    assert_eq!(connection.outward(&data), Reason::NoFlowOut, "nothing leaves with a private address");
}

#[test]
fn a_port_that_leads_elsewhere_takes_over_its_clients() {
    testbed::require_root!();
    let mut connection = Connection::new();
    connection.lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, APP, 81);
    assert_eq!(connection.inward(&Kind::syn()), Reason::Published);
    let flow = connection.lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), 6, Side::Uplink).unwrap();
    assert_eq!(flow.to, tuple((CLIENT, 40_000), (APP, 81)));
    assert_eq!(connection.lab.flows().len(), 2, "the old flow is gone, both halves");
}

#[test]
fn a_half_without_its_twin_is_no_obstacle() {
    testbed::require_root!();
    let mut connection = Connection::new();
    let key = FlowKey::new(tuple((WEB, 80), (CLIENT, 40_000)), 6, Side::Container);
    connection.lab.table::<_, Flow<Ip4>>("FLOWS4").remove(&key).unwrap();
    assert_eq!(connection.inward(&Kind::tcp(|header| header.ack = true)), Reason::Published);
    assert_eq!(connection.outward(&Kind::tcp(|header| header.ack = true)), Reason::NoFlowOut);
}

/// A lab whose table holds eight flows, with as many that came from ports 40,000 and on. Who opens more does so on
/// another processor, where there is one.
fn full_table() -> Lab {
    move_to(0);
    let mut lab = Lab::with_flows(16);
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
    for port in 40_000..40_008 {
        assert_eq!(opens(&mut lab, port), Reason::Published);
    }
    assert_eq!(lab.flows().len(), 16);
    move_to(1);
    lab
}

/// Has this thread run on one processor, if there is that one.
fn move_to(processor: usize) {
    let mut cpu = CpuSet::new();
    cpu.set(processor).unwrap();
    let _ = sched_setaffinity(Pid::from_raw(0), &cpu);
}

fn opens(lab: &mut Lab, port: u16) -> Reason {
    let inward = Way { link: lab.client_link(), src: (CLIENT, port), dst: (HOST, 8080) };
    lab.judge(From::Uplink, &frame(inward, &Kind::syn())).1
}

/// The rest of the handshake.
fn completes(lab: &mut Lab, port: u16) {
    let inward = Way { link: lab.client_link(), src: (CLIENT, port), dst: (HOST, 8080) };
    let outward = Way { link: lab.web.to_gateway(), src: (WEB, 80), dst: (CLIENT, port) };
    let web = lab.web.from();
    lab.judge(web, &frame(outward, &Kind::tcp(|header| (header.syn, header.ack) = (true, true))));
    lab.judge(From::Uplink, &frame(inward, &Kind::tcp(|header| header.ack = true)));
}

/// Where flows come from that are there, in both halves.
fn clients(lab: &mut Lab) -> Vec<u16> {
    let flows = lab.flows();
    let mut ports: Vec<u16> = flows
        .iter()
        .filter(|(key, _)| key.side == Side::Uplink as u8)
        .filter(|(key, flow)| flows.iter().any(|(twin, _)| *twin == flow.twin_key(key.proto)))
        .map(|(key, _)| key.tuple.sport.get())
        .collect();
    ports.sort_unstable();
    ports
}

#[test]
fn in_a_full_table_the_oldest_that_nobody_completed_gives_way() {
    testbed::require_root!();
    let mut lab = full_table();
    completes(&mut lab, 40_000);
    for port in 50_000..50_003 {
        assert_eq!(opens(&mut lab, port), Reason::Published);
    }
    let left = [40_000, 40_004, 40_005, 40_006, 40_007, 50_000, 50_001, 50_002];
    assert_eq!(clients(&mut lab), left, "the first was complete, the three after it were not");
    assert_eq!(lab.flows().len(), 16, "nothing is left of those that gave way");
}

#[test]
fn no_complete_flow_gives_way() {
    testbed::require_root!();
    let mut lab = full_table();
    for port in 40_000..40_008 {
        completes(&mut lab, port);
    }
    assert_eq!(opens(&mut lab, 50_000), Reason::TableFull);
    assert_eq!(clients(&mut lab), (40_000..40_008).collect::<Vec<_>>());
    assert_eq!(lab.flows().len(), 16);
}
