//! Tracked connections, and how long they are kept.

use rnet_common::settings::SECOND;

use super::*;
use crate::controller::{
    backend::{FlowInfo, FlowPosition, Page},
    model::{flow_filter::FlowFilter, timeouts::Seconds},
};

fn flow(src: &str, dst: &str, to_src: &str, to_dst: &str) -> FlowInfo {
    FlowInfo {
        protocol: "tcp".into(),
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        to_src: to_src.parse().unwrap(),
        to_dst: to_dst.parse().unwrap(),
        kind: "masqueraded".into(),
        state: "established".into(),
        packets: 1,
        bytes: 100,
        idle: 0,
        timeout: 7440,
    }
}

/// A published port's flow, and two masqueraded ones through different addresses.
fn flows() -> [FlowInfo; 3] {
    [
        flow("198.51.100.7:5000", "192.0.2.1:8080", "198.51.100.7:5000", "172.17.0.2:80"),
        flow("172.17.0.2:4000", "198.51.100.7:443", "192.0.2.1:4000", "198.51.100.7:443"),
        flow("172.17.0.2:4001", "203.0.113.7:443", "203.0.113.1:4001", "203.0.113.7:443"),
    ]
}

/// What each step of a walk through the table finds.
fn walk<T>(mut step: impl FnMut(FlowPosition) -> Result<Page<T>>) -> Vec<T> {
    let (mut found, mut at) = (Vec::new(), Some(FlowPosition::default()));
    while let Some(from) = at {
        let page = step(from).unwrap();
        found.push(page.found);
        at = page.next;
    }
    found
}

#[test]
fn flows_are_listed_and_forgotten_by_filter() {
    let bench = Bench::new();
    let mut instance = bench.start();
    bench.fake.world().flows = flows().into();
    let none = FlowFilter::default();
    assert_eq!(walk(|from| instance.flows(&none, from)).concat(), flows());
    assert_eq!(instance.status().unwrap().flows, 3);
    let to_443 = FlowFilter { dport: Some(443), ..none };
    assert_eq!(walk(|from| instance.flows(&to_443, from)).concat(), flows()[1..]);
    assert_eq!(walk(|from| instance.flush(&to_443, from)).iter().sum::<usize>(), 2);
    assert_eq!(walk(|from| instance.flows(&none, from)).concat(), flows()[..1]);
    assert_eq!(walk(|from| instance.flush(&none, from)).iter().sum::<usize>(), 1);
}

#[test]
fn flows_go_with_the_address_that_they_used() {
    let bench = Bench::new();
    bench.fake.world().foreign.addresses.push("203.0.113.1".parse().unwrap());
    let mut instance = bench.start();
    bench.fake.world().flows = flows().into();
    instance.refresh_host().unwrap();
    assert_eq!(bench.fake.world().flows, flows(), "nothing has changed");
    bench.fake.world().foreign.addresses.pop();
    instance.refresh_host().unwrap();
    assert_eq!(bench.fake.world().flows, flows()[..2]);
    assert!(!bench.fake.tables().known_addresses.contains(&"203.0.113.1".parse().unwrap()));
}

#[test]
fn timeouts_are_those_of_the_configuration_until_they_are_changed() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.timeouts.udp = 7 * SECOND;
    let mut instance = bench.start_with(config).unwrap();
    assert_eq!(bench.fake.world().timeouts.udp, 7 * SECOND);
    let change = Seconds::from([("tcp-established".to_owned(), 600)]);
    let all = instance.set_timeouts(&change).unwrap();
    assert_eq!((all["tcp-established"], all["udp"], all["icmp"]), (600, 7, 30));
    assert_eq!(instance.timeouts(), all);
    assert_eq!(bench.fake.world().timeouts.tcp_established, 600 * SECOND);
    let wrong = Seconds::from([("udp".to_owned(), 0), ("icmp".to_owned(), 5)]);
    assert!(message(instance.set_timeouts(&wrong)).contains("invalid timeout udp"));
    assert_eq!(instance.timeouts(), all);
}
