//! The flow table, gone through step by step.

use std::collections::HashSet;

use rnet_common::{
    Be16, Flow, FlowKey, Ip4, Ip6, Side, Tuple,
    flow::{flow_flags, proto, seen},
    settings::SECOND,
};

use super::*;
use crate::datapath::{
    flows::{LONE_EVERY, now},
    tables::{Address, Table},
};

/// More than some steps' worth.
const MANY: u16 = 10_000;

pub(super) type Halves<A> = [(FlowKey<A>, Flow<A>); 2];

/// Both halves of an established connection to a published port, which carried a packet each.
fn flow<A: Address>(
    ends: [A; 3],
    number: u16,
    (slot, generation): (u32, u32),
    last_seen: [u64; 2],
) -> Halves<A> {
    let [src, dst, container] = ends;
    let arrives = Tuple { src, dst, sport: Be16::new(number), dport: Be16::new(8080) };
    let half = |to, last_seen, flags| Flow {
        to,
        last_seen,
        flags,
        packets: 1,
        bytes: 100,
        mapping: slot,
        generation,
        seen: seen::PACKET | seen::ACK,
        ..Flow::default()
    };
    let becomes = Tuple { dst: container, dport: Be16::new(80), ..arrives };
    let forward = half(becomes, last_seen[0], flow_flags::ORIGINAL | flow_flags::TWIN_FROM_CONTAINER);
    let reply = half(arrives.reversed(), last_seen[1], 0);
    [(FlowKey::new(arrives, proto::TCP, Side::Uplink), forward), (forward.twin_key(proto::TCP), reply)]
}

fn v4(number: u16, mapping: (u32, u32), last_seen: [u64; 2]) -> Halves<Ip4> {
    let ends =
        ["192.0.2.1", "192.0.2.2", "172.17.0.2"].map(|a| a.parse::<std::net::Ipv4Addr>().unwrap().into());
    flow(ends, number, mapping, last_seen)
}

/// A datapath with one published port and a mapping of it. What has been idle for 5 s has expired.
fn published(place: &Place) -> (Ebpf, (u32, u32)) {
    let mut datapath = place.open();
    datapath.publish(&[binding(8080, 80)]).unwrap();
    let timeouts = Timeouts { tcp_established: 5 * SECOND, tcp_opening: 2 * SECOND, ..Timeouts::default() };
    datapath.set_timeouts(&timeouts).unwrap();
    let [(_, backend)] = datapath.tables.v4.ports.entries().unwrap()[..] else { panic!("one port") };
    (datapath, (backend.mapping, backend.generation))
}

pub(super) fn write<A: Address>(
    table: &mut Table<FlowKey<A>, Flow<A>>,
    flows: impl IntoIterator<Item = Halves<A>>,
) {
    table.insert_all(&flows.into_iter().flatten().collect::<Vec<_>>()).unwrap();
}

/// What the steps of a walk find.
fn walk<T>(mut step: impl FnMut(FlowPosition) -> Result<Page<T>>) -> Vec<T> {
    let (mut found, mut at) = (Vec::new(), Some(FlowPosition::default()));
    while let Some(from) = at {
        let page = step(from).unwrap();
        found.push(page.found);
        at = page.next;
    }
    found
}

pub(super) fn sweep(datapath: &mut Ebpf) -> usize {
    walk(|from| datapath.sweep(from)).iter().sum()
}

#[test]
fn each_flow_is_met_once_in_steps_of_some_thousand() {
    in_place(|place| {
        let (mut datapath, mapping) = published(place);
        let now = now().unwrap();
        write(&mut datapath.tables.v4.flows, (1..=MANY).map(|n| v4(n, mapping, [now; 2])));
        let all = FlowFilter::default();
        let pages = walk(|from| datapath.flows(&all, from));
        assert!(pages.iter().all(|page| page.len() <= 4096), "a step is bounded");
        let sources: Vec<_> = pages.concat().iter().map(|flow| flow.src).collect();
        assert_eq!(sources.len(), usize::from(MANY));
        assert_eq!(sources.iter().collect::<HashSet<_>>().len(), sources.len());
        assert_eq!(datapath.count_flows().unwrap(), sources.len());
        let one = FlowFilter { sport: Some(77), ..all };
        assert_eq!(walk(|from| datapath.flows(&one, from)).concat().len(), 1);
        assert_eq!(sweep(&mut datapath), 0, "all are alive");
        assert_eq!(walk(|from| datapath.flush(&one, from)).iter().sum::<usize>(), 1);
        assert_eq!(datapath.tables.v4.flows.entries().unwrap().len(), 2 * (sources.len() - 1));
        assert_eq!(walk(|from| datapath.flush(&all, from)).iter().sum::<usize>(), sources.len() - 1);
        assert!(datapath.tables.v4.flows.entries().unwrap().is_empty());
    });
}

#[test]
fn only_flows_that_were_idle_in_both_directions_are_swept_and_their_counts_are_kept() {
    in_place(|place| {
        let (mut datapath, mapping) = published(place);
        let now = now().unwrap();
        let idle = now - 10 * SECOND;
        // Of four: one is over, and one is not used in one direction or the other.
        let last_seen = |n: u16| [[idle, idle], [idle, now], [now, idle], [now, now]][usize::from(n % 4)];
        write(&mut datapath.tables.v4.flows, (1..=MANY).map(|n| v4(n, mapping, last_seen(n))));
        let ends = ["2001:db8::1", "2001:db8::2", "fd00::2"];
        let ends: [Ip6; 3] = ends.map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().into());
        write(
            &mut datapath.tables.v6.flows,
            [flow(ends, 1, mapping, [idle; 2]), flow(ends, 2, mapping, [now; 2])],
        );
        let before = datapath.port_counts(&[binding(8080, 80)]).unwrap();
        assert_eq!(before[0].packets, 2 * u64::from(MANY) + 4);

        assert_eq!(sweep(&mut datapath), usize::from(MANY / 4) + 1);
        let left = datapath.tables.v4.flows.entries().unwrap();
        assert_eq!(left.len(), 2 * usize::from(MANY - MANY / 4));
        assert!(left.iter().all(|(key, _)| key.tuple.sport.get() % 4 != 0 || key.side != Side::Uplink as u8));
        assert_eq!(datapath.tables.v6.flows.entries().unwrap().len(), 2);
        assert_eq!(datapath.port_counts(&[binding(8080, 80)]).unwrap(), before);
        assert_eq!(sweep(&mut datapath), 0);
    });
}

#[test]
fn flows_of_a_withdrawn_port_are_swept_whatever_they_did() {
    in_place(|place| {
        let (mut datapath, mapping) = published(place);
        datapath.publish(&[binding(8081, 81)]).unwrap();
        let ports = datapath.tables.v4.ports.entries().unwrap();
        let other = ports.iter().find(|(key, _)| key.port == Be16::new(8081)).unwrap().1;
        let now = now().unwrap();
        let flows = &mut datapath.tables.v4.flows;
        write(flows, (1..=100).map(|n| v4(n, mapping, [now; 2])));
        write(flows, (101..=150).map(|n| v4(n, (other.mapping, other.generation), [now; 2])));
        datapath.unpublish(&[binding(8080, 80)]).unwrap();
        assert_eq!(sweep(&mut datapath), 100);
        assert_eq!(datapath.tables.v4.flows.entries().unwrap().len(), 100);
    });
}

/// The key of its twin may be another flow's.
#[test]
fn a_half_that_is_over_takes_no_other_flow_with_it() {
    in_place(|place| {
        let (mut datapath, mapping) = published(place);
        let now = now().unwrap();
        let flows = &mut datapath.tables.v4.flows;
        let [(key, gone), (twin_key, _)] = v4(1, (mapping.0, mapping.1 + 1), [now; 2]);
        let [_, (_, theirs)] = v4(1, mapping, [now; 2]);
        flows.insert_all(&[(key, gone), (twin_key, theirs)]).unwrap();
        assert_eq!(sweep(&mut datapath), 1);
        assert_eq!(datapath.tables.v4.flows.entries().unwrap(), [(twin_key, theirs)]);
    });
}

#[test]
fn a_half_without_its_twin_is_swept_within_some_rounds() {
    in_place(|place| {
        let (mut datapath, mapping) = published(place);
        // So many rounds take some seconds on a busy machine.
        let timeouts = Timeouts { tcp_opening: 2 * SECOND, ..Timeouts::default() };
        datapath.set_timeouts(&timeouts).unwrap();
        let now = now().unwrap();
        // Too long for a connection that was never answered, which is what a lone half looks like.
        let idle = now - 3 * SECOND;
        let flows = &mut datapath.tables.v4.flows;
        let halves: Vec<_> = (1..=100).map(|n| v4(n, mapping, [idle; 2])[usize::from(n % 2)]).collect();
        flows.insert_all(&halves).unwrap();
        write(flows, (101..=150).map(|n| v4(n, mapping, [idle; 2])));
        let swept: usize = (0..LONE_EVERY).map(|_| sweep(&mut datapath)).sum();
        assert_eq!(swept, 100, "those that have their twins stay");
    });
}
