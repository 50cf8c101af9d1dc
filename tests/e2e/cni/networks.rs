//! What a network is to be, and what cannot be had.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use testbed::{Host, Netns, Rnet, Snapshot, traffic::tcp};

use super::{Plugin, addr_in, network, path_of, publishing, with};

#[test]
fn what_is_taken_is_refused_and_nothing_is_left() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let mut plugin = Plugin::new(&host, &rnet);
    let ns = Netns::new("pod");
    let before = Snapshot::take(&host.ns, rnet.instance());
    let held = host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:8080").unwrap());
    let (code, message) = plugin.refused("c1", &ns, &with(&network("n1"), &publishing(8080, 80)));
    assert_eq!(code, 101);
    assert!(message.contains("8080/tcp: address already in use"), "{message}");
    before.assert_restored(&host.ns, rnet.instance(), "a port of the host's");
    // An engine that keeps ports itself has this one, and gets others after they are published.
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80 },
        { "hostPort": 8081, "containerPort": 80 },
        { "hostPort": 8082, "containerPort": 80, "hostIP": "10.200.0.9" },
    ]);
    let kept = json!({ "runtimeConfig": { "portMappings": ports }, "engineKeepsPorts": true });
    let kept = with(&network("n1"), &kept);
    plugin.add("c1", &ns, &kept);
    for addr in ["0.0.0.0:8081", "10.200.0.9:8082"] {
        drop(host.ns.run(|| std::net::TcpListener::bind(addr)).unwrap());
    }
    let server = tcp::echo(&ns, "0.0.0.0:80");
    for port in [8080, 8081] {
        tcp::ask(&host.client, host.at(port));
    }
    assert_eq!(server.peers().len(), 2);
    drop((held, server));
    plugin.del("c1", "", &kept);

    let (first, second) = (Netns::new("first"), Netns::new("second"));
    let config = with(&network("n1"), &publishing(8080, 80));
    plugin.add("c1", &first, &config);
    let all = Snapshot::take(&host.ns, rnet.instance());
    for (more, code, words) in [
        (publishing(8080, 80), 101, "8080"),
        (json!({ "runtimeConfig": { "ips": ["10.66.0.2"] } }), 101, "Address already in use: 10.66.0.2"),
        (json!({ "runtimeConfig": { "ips": ["10.66.0.1/24"] } }), 101, "Address already in use: 10.66.0.1"),
        (json!({ "runtimeConfig": { "ips": ["10.67.0.2"] } }), 7, "out of range"),
        (json!({ "runtimeConfig": { "mac": "01:00:00:00:00:01" } }), 7, "no interface's own"),
        (json!({ "subnet": "10.67.0.0/24" }), 7, "another subnet or gateway (10.66.0.0/24)"),
        (json!({ "ipMasq": false }), 7, "another bridge or option"),
        (json!({ "internal": true }), 7, "another internal"),
        (json!({ "name": "n2" }), 101, "overlaps"),
        (json!({ "name": "n2", "subnet": "10.68.0.0/24", "bridge": "eth0" }), 101, "is not a bridge"),
        (
            json!({ "name": "n2", "subnet": "10.68.0.0/24", "options": { "colour": "red" } }),
            7,
            "unknown network option",
        ),
        (
            json!({ "isDefaultGateway": false, "name": "n2", "subnet": "10.68.0.0/24",
                 "runtimeConfig": publishing(8081, 80)["runtimeConfig"] }),
            7,
            "could not answer",
        ),
    ] {
        let refused = plugin.refused("c2", &second, &with(&network("n1"), &more));
        assert_eq!(refused.0, code, "{more}: {refused:?}");
        assert!(refused.1.contains(words), "{more}: {refused:?} lacks {words:?}");
        all.assert_restored(&host.ns, rnet.instance(), &more.to_string());
    }
    // The name of the interface is taken, and DEL of what was refused leaves what is there alone.
    let other = with(&network("n2"), &json!({ "subnet": "10.68.0.0/24" }));
    let (code, message) = plugin.refused("c1", &first, &other);
    assert!(code == 101 && message.contains("eth0 is on network n1 already"), "{code} {message}");
    plugin.del("c1", path_of(&first), &other);
    all.assert_restored(&host.ns, rnet.instance(), "an interface that is there");

    // What is asked for by CNI_ARGS and can be had.
    plugin.args = "IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.66.0.77;MAC=02:00:00:00:00:77;".into();
    let result = plugin.add("c2", &second, &network("n1"));
    assert_eq!(addr_in(&result), Ipv4Addr::new(10, 66, 0, 77));
    assert_eq!(second.mac("eth0"), [2, 0, 0, 0, 0, 0x77]);
    assert!(rnet.ok(&["ps"]).contains("web"));
    assert!(rnet.fails(&["rm", "-f", "web"]).contains("the engine that called rnet as CNI plugin"));

    // Names of files that stand for no namespace of a container.
    for (netns, words) in
        [("/nowhere", "/nowhere"), (path_of(&host.ns), "the host's own"), ("/etc/passwd", "/etc/passwd")]
    {
        let refused = plugin.call("ADD", "c3", netns, "eth0", &network("n1")).unwrap_err();
        assert!(refused.code == 4 && refused.message.contains(words), "{refused:?}");
    }
}

#[test]
fn a_container_may_be_on_two_networks() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let ns = Netns::new("pod");
    let publish = publishing(8080, 80);
    let first = with(&network("n2"), &publish);
    let second = with(&network("n1"), &with(&publish, &json!({ "subnet": "10.67.0.0/24" })));
    let inner = with(&network("n3"), &with(&publish, &json!({ "subnet": "10.68.0.0/24", "internal": true })));
    let on = |command: &str, interface: &str, config: &Value| {
        let done = plugin.call(command, "c1", path_of(&ns), interface, config);
        done.unwrap_or_else(|e| panic!("{command} {interface}: {e:?}"))
    };
    let inner_result = on("ADD", "eth2", &inner);
    assert!(inner_result.get("routes").is_none(), "{inner_result}");
    on("ADD", "eth0", &first);
    let result = on("ADD", "eth1", &second);
    assert!(result.get("routes").is_none(), "the first has the default route: {result}");
    let routes = ns.output_of("ip", &["route", "show", "default"]).unwrap();
    assert!(routes.contains("via 10.66.0.1 dev eth0"), "{routes}");
    let server = tcp::echo(&ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
    let twice = plugin.call("ADD", "c1", path_of(&ns), "eth3", &first).unwrap_err();
    assert!(twice.message.contains("on network n2 twice"), "{twice:?}");
    // The other network takes over.
    on("DEL", "eth0", &first);
    tcp::ask(&host.client, host.at(8080));
    on("CHECK", "eth1", &with(&second, &json!({ "prevResult": result })));
    assert_eq!(server.peers().len(), 2);
    drop(server);
    on("DEL", "eth1", &second);
    on("DEL", "eth2", &inner);
    before.assert_restored(&host.ns, rnet.instance(), "DEL");
}

#[test]
fn both_address_families_are_given() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let ns = Netns::new("pod");
    let dual =
        json!({ "subnet": ["10.66.0.0/24", "fd00:66::/64"], "runtimeConfig": { "ips": ["fd00:66::77/64"] } });
    let result = plugin.add("c1", &ns, &with(&network("n1"), &dual));
    assert_eq!(
        result["ips"],
        json!([
            { "interface": 2, "address": "10.66.0.2/24", "gateway": "10.66.0.1" },
            { "interface": 2, "address": "fd00:66::77/64", "gateway": "fd00:66::1" },
        ])
    );
    let mut routes: Vec<&str> =
        result["routes"].as_array().unwrap().iter().map(|r| r["dst"].as_str().unwrap()).collect();
    routes.sort_unstable();
    assert_eq!(routes, ["0.0.0.0/0", "::/0"]);
    plugin.check("c1", &ns, &with(&network("n1"), &dual), &result).unwrap();
    let only6 = with(&network("n2"), &json!({ "subnet": "fd00:67::/64" }));
    let second = plugin.call("ADD", "c1", path_of(&ns), "eth1", &only6).unwrap();
    assert_eq!(second["ips"].as_array().unwrap().len(), 1);
}
