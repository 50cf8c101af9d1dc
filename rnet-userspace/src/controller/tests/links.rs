//! Networks whose containers are joined by netkits.

use super::*;
use crate::controller::{
    model::{engine::Engine, link::LinkKind, xdp::Xdp},
    request::EngineNetwork,
};

fn linked(name: &str, kind: &str) -> CreateNetwork {
    CreateNetwork { options: BTreeMap::from([("rnet.link".to_owned(), kind.to_owned())]), ..network(name) }
}

/// Kinds and names of the pairs, in the order of their indexes.
fn pairs(bench: &Bench) -> Vec<(LinkKind, String)> {
    let mut pairs: Vec<_> = bench.fake.tables().veths.into_values().collect();
    pairs.sort_by_key(|(link, _)| link.index);
    let kind_and_name = |spec: &str| spec.trim_end_matches(|c: char| c.is_ascii_hexdigit()).to_owned();
    pairs.into_iter().map(|(_, spec)| (spec.kind, kind_and_name(&spec.host_name))).collect()
}

#[test]
fn pairs_are_of_the_kind_that_their_network_says() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let made = instance.create_network(&linked("n1", "netkit")).unwrap();
    assert_eq!(made.options["rnet.link"], "netkit");
    instance.create_network(&linked("n2", "veth")).unwrap();
    for (name, network) in [("a", "n1"), ("b", "n2"), ("c", "bridge")] {
        instance.create_container(&joining(name, Connect::to(network))).unwrap();
    }
    let (netkit, veth) = ((LinkKind::Netkit, "netkit".to_owned()), (LinkKind::Veth, "veth".to_owned()));
    assert_eq!(pairs(&bench), [netkit.clone(), veth.clone(), veth.clone()]);
    instance.connect("c", &Connect::to("n1")).unwrap();
    assert_eq!(pairs(&bench), [netkit.clone(), veth.clone(), veth.clone(), netkit.clone()]);

    // Made again when they are gone, as the same.
    drop(instance);
    bench.fake.world().tables.veths.clear();
    let mut instance = bench.start();
    let mut again = pairs(&bench);
    again.sort_by_key(|(_, name)| name.clone());
    assert_eq!(again, [netkit.clone(), netkit, veth.clone(), veth]);
    instance.down().unwrap();
    assert!(bench.fake.tables().veths.is_empty());
}

#[test]
fn a_kernel_without_netkits_refuses_the_network_and_nothing_else() {
    let bench = Bench::new();
    let mut instance = bench.start();
    bench
        .fake
        .world()
        .lacking
        .insert("netkit", "kernel 6.18.1 is built without netkits (CONFIG_NETKIT)".into());
    let before = bench.snapshot();
    assert_eq!(
        message(instance.create_network(&linked("n1", "netkit"))),
        "network n1 with option rnet.link=netkit: kernel 6.18.1 is built without netkits (CONFIG_NETKIT); leave the \
         option out, or rnet.link=veth works"
    );
    let told = message(instance.create_network(&linked("n1", "macvlan")));
    assert!(told.contains("veth or netkit is allowed"), "{told}");
    assert_eq!(bench.snapshot(), before);
    instance.create_network(&linked("n1", "veth")).unwrap();
    let refused = instance.create_engine_network(Engine::Cni, &"1".repeat(64), &linked("n2", "netkit"));
    assert!(message(refused).starts_with("network n2 with option rnet.link=netkit"));
}

/// A netkit has no `ndo_xdp_xmit`: frames that XDP redirected to it would be lost.
#[test]
fn xdp_delivers_to_veths_alone() {
    let bench = Bench::new();
    let config = || Config { xdp: Xdp::Native, ..bench.config() };
    let mut instance = bench.start_with(config()).unwrap();
    instance.create_network(&linked("n1", "netkit")).unwrap();
    instance.create_container(&joining("a", Connect::to("n1"))).unwrap();
    instance.create_container(&namespace("b")).unwrap();
    let taking = || {
        let endpoints = bench.fake.tables().endpoints.into_values();
        endpoints.map(|e| (e.host_name.starts_with("netkit"), e.takes_frames)).collect::<Vec<_>>()
    };
    assert_eq!(taking(), [(true, false), (false, true)]);
    drop(instance);
    drop(bench.start_with(config()).unwrap());
    assert_eq!(taking(), [(true, false), (false, true)], "after a restart, too");
}

#[test]
fn an_engine_that_makes_its_interfaces_itself_makes_no_netkits() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let network = EngineNetwork {
        engine: Engine::Docker,
        id: "a".repeat(64),
        name: "n1".into(),
        bridge: "br-n1".into(),
        subnets: Vec::new(),
        internal: false,
        options: BTreeMap::from([("rnet.link".to_owned(), "netkit".to_owned())]),
        labels: BTreeMap::new(),
    };
    let before = bench.snapshot();
    let told = message(instance.follow_network(&network));
    assert!(
        told.starts_with("network n1 with option rnet.link: ") && told.contains("leave the option out"),
        "{told}"
    );
    assert_eq!(bench.snapshot(), before);
}
