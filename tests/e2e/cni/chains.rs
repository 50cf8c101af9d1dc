//! Other plugins: such that give addresses, and such that come before rnet.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{
    Host, Netns, Rnet, Snapshot,
    topology::{CLIENT, wait_for_carrier},
    traffic::{Failure, tcp},
};

use super::{Plugin, path_of, publishing, with};

/// A plugin for addresses that writes down how it is called, and says what it is told to.
fn address_plugin(dir: &Path, result: &Value) {
    let script = format!(
        "#!/bin/sh\ncd {}\ncat >> input\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME\" >> calls\n\
         test -e refuse && echo '{{\"cniVersion\":\"1.0.0\",\"code\":42,\"msg\":\"none left\",\"details\":\"really\"}}' && exit 1\n\
         test $CNI_COMMAND != ADD || cat result\n",
        dir.display()
    );
    fs::write(dir.join("pool"), script).unwrap();
    fs::write(dir.join("result"), result.to_string()).unwrap();
    fs::set_permissions(dir.join("pool"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn addresses_of_another_plugin_are_given_and_given_back() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let mut plugin = Plugin::new(&host, &rnet);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let dir = TempDir::new().unwrap();
    plugin.path = format!("/nowhere:{}", dir.path().display());
    let result = |addr: &str, routes: Value| {
        let ips = json!([{ "address": addr, "gateway": "10.66.0.1" }]);
        json!({ "cniVersion": "1.1.0", "ips": ips, "routes": routes, "dns": { "nameservers": ["192.0.2.53"] } })
    };
    let calls = || fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
    let everywhere = json!([{ "dst": "0.0.0.0/0" }, { "dst": "10.99.0.0/16", "gw": "10.66.0.9" }, { "dst": "10.98.0.0/16" }]);
    address_plugin(dir.path(), &result("10.66.0.50/24", everywhere));
    let config = json!({
        "cniVersion": "1.1.0", "name": "n1", "type": "rnet", "ipam": { "type": "pool", "secret": 7 },
        "runtimeConfig": publishing(8080, 80)["runtimeConfig"],
    });
    let ns = Netns::new("pod");
    let added = plugin.add("c1", &ns, &config);
    assert_eq!(added["ips"], json!([{ "interface": 2, "address": "10.66.0.50/24", "gateway": "10.66.0.1" }]));
    assert_eq!(added["dns"], json!({ "nameservers": ["192.0.2.53"] }));
    let routes = ns.output_of("ip", &["route"]).unwrap();
    for route in ["default via 10.66.0.1", "10.99.0.0/16 via 10.66.0.9", "10.98.0.0/16 via 10.66.0.1"] {
        assert!(routes.contains(route), "{routes}");
    }
    assert_eq!(added["routes"].as_array().unwrap().len(), 3);
    let input = fs::read_to_string(dir.path().join("input")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&input).unwrap(), config);
    let server = tcp::echo(&ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
    drop(server);
    plugin.check("c1", &ns, &config, &added).unwrap();
    plugin.call("STATUS", "c1", "", "eth0", &config).unwrap();
    plugin
        .call(
            "GC",
            "c1",
            "",
            "eth0",
            &with(
                &config,
                &json!({ "cni.dev/valid-attachments": [
        { "containerID": "c1", "ifname": "eth0" }] }),
            ),
        )
        .unwrap();
    plugin.del("c1", "", &config);
    let said: Vec<String> =
        ["ADD", "CHECK", "STATUS", "GC", "DEL"].map(|command| format!("{command} c1 eth0\n")).into();
    assert_eq!(calls(), said.concat());

    // An address that cannot be used is given back.
    for (addr, routes, code, words) in [
        ("10.66.0.1/24", json!([]), 101, "the bridge's own"),
        ("10.66.0.7/24", json!([{ "dst": "0.0.0.0/0", "gw": "10.66.0.9" }]), 7, "leads to 10.66.0.9"),
        (
            "10.66.0.7/24",
            json!([{ "dst": "0.0.0.0/0" }, { "dst": "10.99.0.0/16", "gw": "10.77.0.9" }]),
            100,
            "10.99.0.0/16",
        ),
        (
            "10.66.0.7/24",
            json!([{ "dst": "0.0.0.0/0" }, { "dst": "10.99.0.0/16", "priority": 7 }]),
            7,
            "10.99.0.0/16",
        ),
        ("10.66.0.7/24", json!([]), 7, "could not answer"),
        ("10.200.0.7/24", json!([]), 101, "overlaps"),
    ] {
        fs::remove_file(dir.path().join("calls")).unwrap();
        let mut said = result(addr, routes);
        if addr == "10.200.0.7/24" {
            said["ips"][0].as_object_mut().unwrap().remove("gateway");
        }
        address_plugin(dir.path(), &said);
        let refused = plugin.refused("c1", &ns, &config);
        assert_eq!(refused.0, code, "{said}: {refused:?}");
        assert!(refused.1.contains(words), "{refused:?} lacks {words:?}");
        assert_eq!(calls(), "ADD c1 eth0\nDEL c1 eth0\n", "{said}");
        before.assert_restored(&host.ns, rnet.instance(), words);
    }
    // It refuses itself, in its own words.
    fs::write(dir.path().join("refuse"), "").unwrap();
    let refused = plugin.refused("c1", &ns, &config);
    assert_eq!(refused, (42, "ipam: pool: none left".to_owned()));
    let refused = plugin.call("DEL", "c1", "", "eth0", &config).unwrap_err();
    assert_eq!(refused.code, 42);
}

/// What CNI's bridge plugin makes, by hand.
fn bridged(host: &Host, number: u8) -> (Netns, Value) {
    let ns = Netns::new(&format!("bridged{number}"));
    if number == 2 {
        host.ns.ip("link add cni0 type bridge
                    addr add 10.88.0.1/24 dev cni0
                    link set cni0 up");
        host.ns.set_sysctl("net/ipv4/ip_forward", "1");
    }
    let mac = format!("02:00:00:00:00:{number:02x}");
    host.ns.ip(&format!(
        "link add v{number} type veth peer name eth0 address {mac} netns {}
         link set v{number} master cni0 up",
        ns.name()
    ));
    ns.ip(&format!(
        "addr add 10.88.0.{number}/24 dev eth0
         link set eth0 up
         route add default via 10.88.0.1"
    ));
    wait_for_carrier(&host.ns, "cni0");
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "cni0" },
            { "name": format!("v{number}") },
            { "name": "eth0", "mac": mac, "sandbox": path_of(&ns) },
        ],
        "ips": [{ "interface": 2, "address": format!("10.88.0.{number}/24"), "gateway": "10.88.0.1" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
        "dns": {},
        "somebodyElses": 7,
    });
    (ns, result)
}

#[test]
fn ports_of_what_another_plugin_has_made_are_published() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let (ns, result) = bridged(&host, 2);
    let (other, other_result) = bridged(&host, 3);
    let (third, third_result) = bridged(&host, 4);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let chain = json!({ "cniVersion": "1.0.0", "name": "n1", "type": "rnet", "mode": "portmap" });
    let of = |port: u16, result: &Value| {
        with(&with(&chain, &publishing(port, 80)), &json!({ "prevResult": result }))
    };
    let config = of(8080, &result);
    assert_eq!(plugin.add("c1", &ns, &config), result, "what was said goes on as it came");
    assert_eq!(plugin.add("c2", &other, &of(8081, &other_result)), other_result);
    let server = tcp::echo(&ns, "0.0.0.0:80");
    let other_server = tcp::echo(&other, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
    tcp::ask(&host.client, host.at(8081));
    assert_eq!(server.peers()[0].ip(), CLIENT, "the client is seen as it is");
    tcp::ask(&host.ns, SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    tcp::ask(&other, host.at(8080));
    tcp::ask(&ns, (Ipv4Addr::new(10, 88, 0, 3), 80).into());
    // What others' rules do to what goes out goes on.
    let outside = tcp::echo(&host.client, "0.0.0.0:9000");
    host.client.ip("route add 10.88.0.0/24 via 10.200.0.1");
    tcp::ask(&ns, (CLIENT, 9000).into());
    assert_eq!(outside.peers()[0].ip(), Ipv4Addr::new(10, 88, 0, 2), "rnet does not masquerade");
    plugin.call("CHECK", "c1", path_of(&ns), "eth0", &config).unwrap();
    let gone = plugin.call("CHECK", "c1", path_of(&ns), "eth0", &of(8082, &result)).unwrap_err();
    assert_eq!(gone.code, 102, "{gone:?}");
    let (code, message) = plugin.refused("c3", &third, &of(8080, &third_result));
    assert!(code == 101 && message.contains("8080"), "{code} {message}");
    rnet.kill9();
    rnet.start_daemon();
    tcp::ask(&host.client, host.at(8080));

    plugin.del("c1", path_of(&ns), &config);
    plugin.del("c1", "", &chain);
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    tcp::ask(&host.client, host.at(8081));
    tcp::ask(&host.ns, (Ipv4Addr::new(10, 88, 0, 2), 80).into());
    plugin.del("c2", "", &chain);
    drop((server, other_server, outside));
    before.assert_restored(&host.ns, rnet.instance(), "DEL");
}

#[test]
fn a_chain_without_ports_or_without_a_bridge_is_left_alone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let (ns, result) = bridged(&host, 2);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let chain = json!({ "cniVersion": "1.0.0", "name": "n1", "type": "rnet", "mode": "portmap" });
    let bare = with(&chain, &json!({ "prevResult": result }));
    assert_eq!(plugin.add("c1", &ns, &bare), result);
    plugin.call("CHECK", "c1", path_of(&ns), "eth0", &bare).unwrap();
    plugin.del("c1", "", &bare);
    let chain = with(&chain, &publishing(8080, 80));
    assert!(plugin.refused("c1", &ns, &chain).1.contains("prevResult is missing"));
    for (pointer, value, words) in [
        ("/interfaces/1/name", json!("lo"), "no veth on a bridge"),
        ("/interfaces/2/sandbox", json!(""), "no interface in the container"),
        ("/interfaces/2/mac", json!(null), "no mac"),
        ("/ips/0/gateway", json!(null), "no gateway"),
        ("/ips", json!([]), "no address"),
    ] {
        let mut result = result.clone();
        *result.pointer_mut(pointer).unwrap() = value;
        let (code, message) = plugin.refused("c1", &ns, &with(&chain, &json!({ "prevResult": result })));
        assert!(code == 7 && message.contains(words), "{pointer}: {code} {message}");
        before.assert_restored(&host.ns, rnet.instance(), pointer);
    }
}
