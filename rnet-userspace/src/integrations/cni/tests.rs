//! What engines send, and what they are answered without a daemon.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    call::Call,
    config::{Config, Mode},
    container_id,
    error::{Code, Result},
    network_id,
    serve::{Reply, serve},
};
use crate::{
    controller::{
        model::{MacAddr, options::NetworkOptions},
        request::Subnet,
    },
    host::shaping::Limit,
};

/// An instance that nobody runs.
const NOBODY: &str = "rnet-cni-nobody";

fn variable(command: &str, args: &str) -> impl Fn(&str) -> Option<String> {
    move |name| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_CONTAINERID" => "c1",
            "CNI_NETNS" => "/proc/self/ns/net",
            "CNI_IFNAME" => "eth0",
            "CNI_ARGS" => args,
            _ => return None,
        };
        Some(value.to_owned())
    }
}

fn answer(command: &str, config: &Value) -> Reply {
    serve(variable(command, ""), || Ok(config.to_string().into_bytes()), NOBODY)
}

/// The number and the words of a refusal.
fn refusal(command: &str, config: &Value) -> (u64, String) {
    let reply = answer(command, config);
    let json = reply.json.unwrap_or_default();
    assert!(reply.is_refusal, "{command} {config} is to be refused");
    assert!(json["cniVersion"].is_string(), "{json}");
    (json["code"].as_u64().unwrap(), json["msg"].as_str().unwrap().to_owned())
}

fn config_with(args: &str, more: Value) -> Result<Config> {
    let mut config = json!({ "cniVersion": "1.0.0", "name": "n1", "type": "rnet" });
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    Config::read(&config, &Call::read(variable("ADD", args))?)
}

fn config(more: Value) -> Result<Config> {
    config_with("", more)
}

#[test]
fn versions_are_told_whatever_else_is_said() {
    let supported = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (input, version) in [(r#"{"cniVersion":"1.0.0"}"#, "1.0.0"), ("", "1.1.0"), ("{}", "1.1.0")] {
        let reply = serve(variable("VERSION", ""), || Ok(input.into()), NOBODY);
        assert!(!reply.is_refusal);
        assert_eq!(reply.json, Some(json!({ "cniVersion": version, "supportedVersions": supported })));
    }
}

#[test]
fn refusals_have_the_specifications_numbers() {
    let good = json!({ "cniVersion": "1.1.0", "name": "n1", "type": "rnet" });
    let with = |key: &str, value: Value| {
        let mut config = good.clone();
        config[key] = value;
        config
    };
    for (command, config, number, words) in [
        ("ADD", json!({ "name": "n1" }), 1, "rnet speaks 0.3.1"),
        ("ADD", with("cniVersion", json!("2.0.0")), 1, "\"2.0.0\""),
        ("GC", with("cniVersion", json!("1.0.0")), 1, "has no GC"),
        ("STATUS", with("cniVersion", json!("0.4.0")), 1, "came with 1.1.0"),
        ("CHECK", with("cniVersion", json!("0.3.1")), 1, "has no CHECK"),
        ("ADD", json!([]), 6, "should be an object"),
        ("ADD", with("bridge", json!(7)), 6, "bridge should be a string"),
        ("ADD", with("prevResult", json!({ "ips": 7 })), 6, "ips should be a list"),
        ("ADD", with("name", json!("a/b")), 7, "invalid network name"),
        ("ADD", with("instance", json!("../x")), 7, "invalid instance name"),
        ("ADD", with("mode", json!("macvlan")), 7, "bridge or portmap"),
        ("ADD", with("ipam", json!({ "type": "host-local" })), 7, "no plugin host-local in CNI_PATH"),
        ("ADD", with("ipam", json!({ "type": "../x" })), 7, "is a path"),
        ("ADD", with("ipam", json!({ "type": "rnet" })), 7, "leave ipam out"),
        ("ADD", good.clone(), 4, "the host's own network namespace"),
        ("GC", good.clone(), 7, "cni.dev/valid-attachments is missing"),
        ("DEL", good.clone(), 11, "start one with 'rnet --instance rnet-cni-nobody daemon'"),
        ("GC", with("cni.dev/attachments", Value::Null), 11, "no rnet daemon answers"),
        ("STATUS", good.clone(), 50, "no rnet daemon answers"),
        ("CHECK", with("prevResult", json!({})), 11, "no rnet daemon answers"),
    ] {
        let (code, message) = refusal(command, &config);
        assert_eq!(code, number, "{command} {config}: {message}");
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
    let reply = serve(variable("ADD", ""), || Ok(b"{".to_vec()), NOBODY);
    assert_eq!(reply.json.unwrap()["code"], 6);
    let reply = serve(variable("ADD", "COLOUR=red"), || Ok(Vec::new()), NOBODY);
    assert_eq!(reply.json.unwrap()["code"], 4);
}

#[test]
fn what_cannot_be_served_is_refused_and_what_does_not_matter_is_not() {
    for (more, words) in [
        (json!({ "isGateway": false }), "isGateway false"),
        (json!({ "vlan": 7 }), "VLANs"),
        (json!({ "vlanTrunk": [{ "id": 7 }] }), "VLANs"),
        (json!({ "forceAddress": true }), "forceAddress"),
        (json!({ "disableContainerInterface": true }), "disableContainerInterface"),
        (json!({ "hairpinMode": true, "promiscMode": true }), "at the same time"),
        (json!({ "runtimeConfig": { "bandwidth": { "ingressRate": 1000 } } }), "ingressBurst 0 is no limit"),
        (json!({ "egressRate": 7, "egressBurst": 8 }), "egressRate 7 is no limit"),
        (json!({ "egressRate": 8, "egressBurst": 1_u64 << 32 }), "egressBurst 4294967296 is no limit"),
        (
            json!({ "mode": "portmap", "runtimeConfig": { "bandwidth": { "egressRate": 8, "egressBurst": 8 } } }),
            "in mode portmap that is not rnet",
        ),
        (json!({ "mtu": 1400, "options": { "com.docker.network.driver.mtu": "1500" } }), "leave out one"),
        (json!({ "subnet": "10.1.0.0/24", "ipam": { "type": "static" } }), "leave out one"),
        (json!({ "mode": "portmap", "subnet": "10.1.0.0/24" }), "gives no addresses"),
        (json!({ "subnet": "10.1.0.0" , "gateway": "10.2.0.1" }), "in none of the network's subnets"),
        (json!({ "ranges": [[{ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9" }]] }), "ipRange"),
        (
            json!({ "ranges": [[{ "subnet": "10.1.0.0/24" }, { "subnet": "10.2.0.0/24" }]] }),
            "one range in each set",
        ),
        (json!({ "runtimeConfig": { "ips": ["10.1.0.2", "10.1.0.3/24"] } }), "one address of each family"),
        (json!({ "runtimeConfig": { "mac": "red" } }), "mac"),
    ] {
        let error = config(more.clone()).unwrap_err();
        assert_eq!(error.code, Code::Config, "{more}");
        assert!(error.message.contains(words), "{:?} lacks {words:?}", error.message);
    }
    let passed = json!({
        "isGateway": true, "isDefaultGateway": true, "hairpinMode": true, "forceAddress": false, "vlan": 0,
        "macspoofchk": true, "enabledad": true, "somebodyElses": { "key": [1] }, "ipam": {}, "mtu": 0,
        "runtimeConfig": {
            "bandwidth": { "ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0 },
            "io.kubernetes.cri.pod-annotations": null, "dns": { "Servers": ["10.255.255.53"], "Searches": null },
        },
    });
    let config = config(passed).unwrap();
    assert_eq!((config.mode, config.default_route), (Mode::Bridge, Some(true)));
    assert!(config.options.is_empty() && config.ports.is_empty());
}

#[test]
fn keys_of_the_bridge_plugin_become_options() {
    let read = config(json!({
        "bridge": "cni0", "ipMasq": false, "mtu": 1400, "portIsolation": true,
        "options": { "com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected", "rnet.via_stack": true },
    }));
    let options = NetworkOptions::parse(&read.unwrap().options).unwrap();
    assert_eq!((options.bridge.as_deref(), options.mtu), (Some("cni0"), Some(1400)));
    assert!(!options.icc && !options.masquerade && options.via_stack);
    let chained = config(json!({ "mode": "portmap", "ipMasq": true })).unwrap();
    let options = NetworkOptions::parse(&chained.options).unwrap();
    assert!(options.via_stack && !options.masquerade, "others' rules go on seeing the packets");
    let own = json!({ "mode": "portmap", "masquerade": true, "options": { "rnet.via_stack": "false" } });
    let options = NetworkOptions::parse(&config(own).unwrap().options).unwrap();
    assert!(!options.via_stack && options.masquerade);
}

#[test]
fn bandwidth_is_said_in_bits_and_kept_in_bytes() {
    // What containerd makes of a pod's annotation.
    let kubelet =
        json!({ "ingressRate": 8_000_000, "ingressBurst": u32::MAX, "egressRate": 0, "egressBurst": 0 });
    let read = config(json!({ "runtimeConfig": { "bandwidth": kubelet } })).unwrap().bandwidth;
    assert_eq!(read.incoming, Some(Limit { rate: 1_000_000, burst: u32::MAX / 8 }));
    assert_eq!(read.outgoing, None);
    let plain = config(json!({ "egressRate": 80, "egressBurst": 160 })).unwrap().bandwidth;
    assert_eq!(plain.outgoing, Some(Limit { rate: 10, burst: 20 }));
}

#[test]
fn subnets_are_said_in_three_ways() {
    let subnet = |subnet: &str, gateway: Option<&str>, range: Option<&str>| Subnet {
        subnet: subnet.parse().ok(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        ip_range: range.map(|range| range.parse().unwrap()),
        ..Subnet::default()
    };
    let read = |more| config(more).unwrap().subnets;
    assert_eq!(
        read(json!({ "subnet": "10.1.0.0/24", "gateway": "10.1.0.9" })),
        [subnet("10.1.0.0/24", Some("10.1.0.9"), None)]
    );
    assert_eq!(
        read(json!({ "subnet": ["10.1.0.0/24", "fd00:1::/64"] })),
        [subnet("10.1.0.0/24", None, None), subnet("fd00:1::/64", None, None)]
    );
    let ranges = json!([[{ "subnet": "10.1.0.0/24", "ipRange": "10.1.0.64/26", "gateway": "10.1.0.1" }],
                        { "subnet": "fd00:1::/64" }]);
    assert_eq!(
        read(json!({ "ranges": ranges })),
        [subnet("10.1.0.0/24", Some("10.1.0.1"), Some("10.1.0.64/26")), subnet("fd00:1::/64", None, None)]
    );
}

#[test]
fn addresses_are_asked_for_in_all_the_places_that_engines_know() {
    let args = "IP=10.1.0.7;MAC=02:00:00:00:00:01";
    let read = config_with(args, json!({})).unwrap();
    assert_eq!(read.ips, ["10.1.0.7".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(read.mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
    let in_args = json!({ "args": { "cni": { "ips": ["10.1.0.7"], "mac": "02:00:00:00:00:02" } } });
    let read = config_with(args, in_args.clone()).unwrap();
    assert_eq!((read.ips.len(), read.mac), (1, Some(MacAddr([2, 0, 0, 0, 0, 2]))));
    let mut all = in_args;
    all["runtimeConfig"] = json!({ "ips": ["10.1.0.7/24", "fd00:1::7/64"], "mac": "02:00:00:00:00:03" });
    let read = config_with(args, all).unwrap();
    assert_eq!((read.ips.len(), read.mac), (2, Some(MacAddr([2, 0, 0, 0, 0, 3]))));
}

#[test]
fn who_keeps_the_ports_is_known_by_what_the_engine_says() {
    let kept = |args: &str, more: Value| {
        let call = Call::read(variable("ADD", args)).unwrap();
        config(more).unwrap().ports_are_kept(&call)
    };
    assert!(kept("IgnoreUnknown=1;K8S_POD_NAME=c1", json!({})), "Podman");
    let kubelet = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=p1;K8S_POD_INFRA_CONTAINER_ID=c1";
    assert!(!kept(kubelet, json!({})) && !kept("", json!({})));
    assert!(kept(kubelet, json!({ "engineKeepsPorts": true })));
    assert!(!kept("K8S_POD_NAME=c1", json!({ "engineKeepsPorts": false })));
}

#[test]
fn what_add_refuses_del_takes_away() {
    let config = json!({
        "cniVersion": "1.1.0", "name": "n1", "type": "rnet", "vlan": 7, "subnet": 7, "prevResult": 7,
        "runtimeConfig": { "bandwidth": { "ingressRate": 1 } },
    });
    // It gets as far as the daemon.
    assert_eq!(refusal("DEL", &config).0, 11);
    let reply = serve(variable("DEL", "nonsense"), || Ok(config.to_string().into_bytes()), NOBODY);
    assert_eq!(reply.json.unwrap()["code"], 11);
}

#[test]
fn ids_stay_what_they_are() {
    let id = "ad39b61ad39dd55fe9f9fdd1eb38b2bda198ded9a59c0f14835e9c62b20bde0e";
    assert_eq!(container_id(id), id);
    for other in ["c1", &id[1..], &id.to_uppercase()] {
        let made = container_id(other);
        assert!(made.len() == 64 && made != *other && made == container_id(other));
    }
    // Networks that are there are found by it: another hash would lose them.
    assert_eq!(
        network_id("n1", Mode::Bridge),
        "846f4b7c93d783bb952babd9ea995d67210e0009496e01aaa78796fe38e5d42a"
    );
    assert_ne!(network_id("n1", Mode::Bridge), network_id("n1", Mode::Portmap));
}

/// JSON that is close to a configuration.
fn nearly_a_config() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof!["", "10.1.0.0/24", "10.1.0.1", "bridge", "portmap", "eth0", "fd00::/64", "tcp", ".*"]
            .prop_map(Value::from),
    ];
    let keys = prop_oneof![
        "bridge|mtu|ipMasq|vlan|subnet|gateway|ranges|ipv6|internal|options|mode|instance|runtimeConfig|args|cni",
        "portMappings|hostPort|containerPort|HostIP|Protocol|ips|mac|aliases|n1|ipam|type|prevResult|interfaces",
        "name|sandbox|address|routes|dst|gw|dns|cni.dev/valid-attachments|containerID|ifname|bandwidth|.*",
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(keys.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
            let _ = serve(variable(command, ""), || Ok(bytes.clone()), NOBODY);
        }
    }

    #[test]
    fn no_configuration_panics(config in nearly_a_config(), command in "ADD|DEL|CHECK|GC|STATUS") {
        let mut config = config;
        if let Some(config) = config.as_object_mut() {
            config.insert("cniVersion".into(), "1.1.0".into());
            config.insert("name".into(), "n1".into());
            // Another instance would be asked.
            config.remove("instance");
        }
        let reply = answer(&command, &config);
        prop_assert!(reply.is_refusal);
        prop_assert!(reply.json.is_some_and(|json| json["code"].as_u64().is_some_and(|code| code > 0)));
    }
}
