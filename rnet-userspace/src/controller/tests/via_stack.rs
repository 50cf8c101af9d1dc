use super::*;

fn via_stack(name: &str, value: &str) -> CreateNetwork {
    CreateNetwork {
        options: BTreeMap::from([("rnet.via_stack".to_owned(), value.to_owned())]),
        ..network(name)
    }
}

#[test]
fn endpoints_of_such_a_network_say_so() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let made = instance.create_network(&via_stack("n1", "true")).unwrap();
    assert_eq!(made.options["rnet.via_stack"], "true");
    instance.create_network(&via_stack("n2", "false")).unwrap();
    for (name, network) in [("a", "n1"), ("b", "n2"), ("c", "bridge")] {
        instance.create_container(&joining(name, Connect::to(network))).unwrap();
    }
    let policies = |bench: &Bench| -> Vec<bool> {
        let mut endpoints: Vec<_> = bench.fake.tables().endpoints.into_values().collect();
        endpoints.sort_by_key(|endpoint| endpoint.ifindex);
        endpoints.iter().map(|endpoint| endpoint.policy.via_stack).collect()
    };
    assert_eq!(policies(&bench), [true, false, false]);
    drop(instance);
    let _instance = bench.start();
    assert_eq!(policies(&bench), [true, false, false]);
}

#[test]
fn without_forwarding_it_is_refused_with_the_setting_to_change() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let [v4, v6] = ["net.ipv4.conf.uplink0.forwarding", "net.ipv6.conf.all.forwarding"];
    let set = |ipv4: bool, ipv6: bool| {
        let names = |name: &str, off: bool| off.then(|| name.to_owned()).into_iter().collect();
        bench.fake.world().forwarding_off = [names(v4, ipv4), names(v6, ipv6)];
    };
    let both = CreateNetwork { ipv6: true, ..via_stack("n1", "true") };
    set(true, true);
    let before = bench.snapshot();
    assert_eq!(
        message(instance.create_network(&via_stack("n1", "true"))),
        format!(
            "network n1 with option rnet.via_stack needs the host to forward between its uplinks and the network, \
             which it does not: set {v4}=1"
        )
    );
    let told = message(instance.create_network(&both));
    assert!(told.ends_with(&format!("set {v4}=1, {v6}=1")), "{told}");
    set(false, true);
    assert!(message(instance.create_network(&both)).ends_with(&format!("set {v6}=1")));
    assert_eq!(bench.snapshot(), before);
    instance.create_network(&via_stack("n1", "true")).unwrap();
    set(true, true);
    instance.create_network(&via_stack("n2", "false")).unwrap();
    instance.create_network(&network("n3")).unwrap();
    // What is there is kept, with a warning.
    drop(instance);
    assert!(bench.start().network("n1").is_ok());
}

#[test]
fn an_internal_network_has_nothing_to_deliver() {
    let bench = Bench::new();
    let mut instance = bench.start();
    let internal = |value| CreateNetwork { internal: true, ..via_stack("n1", value) };
    let told = message(instance.create_network(&internal("true")));
    assert!(told.starts_with("network option rnet.via_stack is for what passes between"), "{told}");
    instance.create_network(&internal("false")).unwrap();
}
