//! Containers' quotas, and how full tables are, as the collector finds them in maps of a kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use rnet_common::{
    Be16, Flow, FlowKey, Ip4, Ip6, Side, Tuple,
    flow::{flow_flags, proto, seen},
    pressure::UNLIMITED,
    settings::SECOND,
};

use super::{
    flows::{Halves, sweep, write},
    *,
};
use crate::{
    controller::backend::Opened,
    datapath::{flows::now, mappings::MappingId, tables::Address},
};

const WEB: &str = "172.17.0.2";
const WEB6: &str = "fd00::2";

/// A datapath with the endpoint of `place`, whose network says `own`. Where nobody says anything it is ten flows.
fn with_endpoint(place: &Place, own: Option<u32>) -> Ebpf {
    let limits = FlowLimits { per_container: Some(10), source_rate: 4 };
    let mut datapath = Ebpf::open(Options { limits, ..place.options(Sizes::default()) }).unwrap();
    datapath.add_endpoint(&endpoint(place, own)).unwrap();
    datapath
}

fn endpoint(place: &Place, own: Option<u32>) -> EndpointSpec {
    let plain = place.endpoint();
    EndpointSpec { policy: Policy { max_flows: own, ..plain.policy }, ..plain }
}

fn mapping_of(datapath: &Ebpf, addr: &str) -> MappingId {
    let addr: IpAddr = addr.parse().unwrap();
    let all = datapath.tables.endpoint_mappings().unwrap();
    all.iter().find(|(of, _)| *of == addr).unwrap().1
}

fn room(datapath: &Ebpf, addr: &str) -> i32 {
    datapath.tables.mappings.room(mapping_of(datapath, addr))
}

/// What a program does that opens flows.
fn take(datapath: &Ebpf, addr: &str, flows: i32) {
    datapath.tables.mappings.give_room(mapping_of(datapath, addr), -flows);
}

fn opened(datapath: &Ebpf, addr: &str) -> Opened {
    datapath.tally().unwrap().opened[&addr.parse().unwrap()]
}

/// A flow that a container has opened, whose last packet is so long ago.
fn flow<A: Address>(
    [container, host, remote]: [A; 3],
    number: u16,
    proto: u8,
    made_by: MappingId,
    idle: u64,
) -> Halves<A> {
    let arrives = Tuple { src: container, dst: remote, sport: Be16::new(number), dport: Be16::new(80) };
    let half = |to, flags| Flow {
        to,
        flags,
        last_seen: now().unwrap() - idle,
        mapping: made_by.slot,
        generation: made_by.generation,
        seen: seen::PACKET | seen::ACK,
        ..Flow::default()
    };
    let forward = half(Tuple { src: host, ..arrives }, flow_flags::ORIGINAL);
    let reply = half(arrives.reversed(), flow_flags::TWIN_FROM_CONTAINER);
    [(FlowKey::new(arrives, proto, Side::Container), forward), (forward.twin_key(proto), reply)]
}

fn v4(datapath: &Ebpf, number: u16, proto: u8, idle: u64) -> Halves<Ip4> {
    let ends = [WEB, "192.0.2.1", "198.51.100.1"].map(|a| a.parse::<Ipv4Addr>().unwrap().into());
    flow(ends, number, proto, mapping_of(datapath, WEB), idle)
}

fn v6(datapath: &Ebpf, number: u16) -> Halves<Ip6> {
    let ends = [WEB6, "2001:db8::1", "2001:db8::2"].map(|a| a.parse::<Ipv6Addr>().unwrap().into());
    flow(ends, number, proto::TCP, mapping_of(datapath, WEB6), 0)
}

#[test]
fn a_round_gives_containers_what_they_have_left() {
    in_place(|place| {
        let mut datapath = with_endpoint(place, None);
        assert_eq!((room(&datapath, WEB), room(&datapath, WEB6)), (10, 10), "from the first packet on");
        let flows: Vec<_> = (1..=4).map(|n| v4(&datapath, n, proto::TCP, 0)).collect();
        write(&mut datapath.tables.v4.flows, flows);
        let flow = v6(&datapath, 1);
        write(&mut datapath.tables.v6.flows, [flow]);
        take(&datapath, WEB, 7);
        sweep(&mut datapath);
        assert_eq!((room(&datapath, WEB), room(&datapath, WEB6)), (6, 9), "whatever was counted before");
        assert_eq!(opened(&datapath, WEB), Opened { flows: 4, quota: Some(10) });
        assert!(!datapath.is_pressed());

        // Three of them are over.
        let timeouts = Timeouts { tcp_established: 5 * SECOND, ..Timeouts::default() };
        datapath.set_timeouts(&timeouts).unwrap();
        let flows: Vec<_> = (1..=3).map(|n| v4(&datapath, n, proto::TCP, 9 * SECOND)).collect();
        write(&mut datapath.tables.v4.flows, flows);
        assert_eq!(sweep(&mut datapath), 3);
        assert_eq!((room(&datapath, WEB), opened(&datapath, WEB).flows), (9, 1));
    });
}

#[test]
fn flows_that_are_opened_during_a_round_are_not_given_back() {
    in_place(|place| {
        let mut datapath = with_endpoint(place, None);
        let first = datapath.sweep(FlowPosition::default()).unwrap();
        let last = first.next.unwrap();
        assert!(last.v6, "the table of IPv6 comes last");
        take(&datapath, WEB, 3);
        assert_eq!(datapath.sweep(last).unwrap().next, None);
        assert_eq!(room(&datapath, WEB), 7);
    });
}

#[test]
fn what_others_open_towards_a_container_is_not_counted() {
    in_place(|place| {
        let mut datapath = with_endpoint(place, None);
        datapath.publish(&[binding(8080, 80)]).unwrap();
        let [(key, mut forward), (twin, mut reply)] = v4(&datapath, 1, proto::TCP, 0);
        // The same the other way round: from outside, and to the container.
        (forward.flags, reply.flags) = (0, flow_flags::ORIGINAL | flow_flags::TWIN_FROM_CONTAINER);
        datapath.tables.v4.flows.insert_all(&[(key, forward), (twin, reply)]).unwrap();
        sweep(&mut datapath);
        assert_eq!((room(&datapath, WEB), opened(&datapath, WEB).flows), (10, 0));
        assert_eq!(datapath.tally().unwrap().flows, 1);
    });
}

#[test]
fn a_network_s_own_quota_goes_before_and_a_changed_one_holds_from_the_next_round_on() {
    in_place(|place| {
        let mut datapath = with_endpoint(place, Some(3));
        assert_eq!(room(&datapath, WEB), 3);
        let flows: Vec<_> = (1..=4).map(|n| v4(&datapath, n, proto::TCP, 0)).collect();
        write(&mut datapath.tables.v4.flows, flows);
        sweep(&mut datapath);
        assert_eq!(room(&datapath, WEB), -1, "it has one too many");
        assert_eq!(datapath.flow_limits(), FlowLimits { per_container: Some(10), source_rate: 4 });
        // A daemon that is started again adds the endpoint as it is.
        datapath.add_endpoint(&endpoint(place, None)).unwrap();
        sweep(&mut datapath);
        assert_eq!(room(&datapath, WEB), 6);
        datapath.set_flow_limits(&FlowLimits { per_container: Some(0), source_rate: 4 });
        sweep(&mut datapath);
        assert_eq!((room(&datapath, WEB), opened(&datapath, WEB).quota), (UNLIMITED, None));
        datapath.set_flow_limits(&FlowLimits { per_container: Some(5), source_rate: 4 });
        sweep(&mut datapath);
        assert_eq!(room(&datapath, WEB), 1);
    });
}

#[test]
fn a_container_near_its_quota_loses_its_idle_flows_sooner_and_no_connection() {
    in_place(|place| {
        let mut datapath = with_endpoint(place, None);
        // Of 180 s that an answered datagram's flow may be idle, one fifth is left at nine of ten.
        let idle = |n| [SECOND, 50 * SECOND, 10 * SECOND][usize::from(n % 3)];
        let mut flows: Vec<_> = (0..8).map(|n| v4(&datapath, n, proto::UDP, idle(n))).collect();
        // And of 30 s where none has come.
        flows.iter_mut().skip(2).step_by(3).for_each(|[_, (_, reply)]| reply.seen = 0);
        flows.push(v4(&datapath, 9, proto::TCP, 1000 * SECOND));
        write(&mut datapath.tables.v4.flows, flows);
        assert_eq!(sweep(&mut datapath), 0, "none is over");
        assert_eq!((opened(&datapath, WEB).flows, datapath.is_pressed()), (9, true));
        assert_eq!(sweep(&mut datapath), 5);
        // What was met before its other half was found to be over was counted.
        sweep(&mut datapath);
        assert_eq!((room(&datapath, WEB), opened(&datapath, WEB).flows), (6, 4));
        let left = datapath.tables.v4.flows.entries().unwrap();
        assert!(left.iter().any(|(key, _)| key.proto == proto::TCP), "an idle connection stays");
        assert_eq!(sweep(&mut datapath), 0);
        assert!(!datapath.is_pressed(), "half is left");
    });
}

#[test]
fn programs_are_told_how_much_room_a_table_has() {
    in_place(|place| {
        let limits = FlowLimits { per_container: None, source_rate: 4 };
        let sizes = Sizes { flows: Some(16), ports: None };
        let mut datapath = Ebpf::open(Options { limits, ..place.options(sizes) }).unwrap();
        datapath.add_endpoint(&place.endpoint()).unwrap();
        assert_eq!(datapath.flow_limits().per_container, Some(4), "a quarter of the table");
        assert_eq!(
            datapath.tables.pressure().unwrap().counted_until,
            0,
            "before the first round nobody counts"
        );
        let flows: Vec<_> = (1..=10).map(|n| v4(&datapath, n, proto::TCP, 0)).collect();
        write(&mut datapath.tables.v4.flows, flows);
        sweep(&mut datapath);
        let told = datapath.tables.pressure().unwrap();
        assert_eq!((told.room, told.source_interval), ([2, 12], SECOND / 4));
        assert!(told.counted_until > now().unwrap() + 30 * SECOND);
        let more: Vec<_> = (11..=12).map(|n| v4(&datapath, n, proto::TCP, 0)).collect();
        write(&mut datapath.tables.v4.flows, more);
        sweep(&mut datapath);
        assert_eq!(datapath.tables.pressure().unwrap().room, [0, 12]);
        assert!(datapath.is_pressed());
        datapath.set_flow_limits(&FlowLimits { per_container: None, source_rate: 0 });
        sweep(&mut datapath);
        assert_eq!(datapath.tables.pressure().unwrap().source_interval, 0, "no limit");
    });
}

#[test]
fn a_daemon_that_takes_over_goes_on_with_what_containers_have() {
    in_place(|place| {
        let mut first = with_endpoint(place, None);
        let flows: Vec<_> = (1..=4).map(|n| v4(&first, n, proto::TCP, 0)).collect();
        write(&mut first.tables.v4.flows, flows);
        // As one leaves it that knows of no quotas.
        take(&first, WEB, 10);
        drop(first);
        let mut second = with_endpoint(place, None);
        assert_eq!(room(&second, WEB), 0, "which nobody looks at before the first round");
        sweep(&mut second);
        assert_eq!((room(&second, WEB), room(&second, WEB6)), (6, 10));
        assert_eq!(second.tables.v4.flows.entries().unwrap().len(), 8);
    });
}
