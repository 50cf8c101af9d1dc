//! Podman's plugin, called as netavark calls it.

use serde_json::{Value, json};
use testbed::{
    Host, Netns, Rnet, Snapshot,
    process::{self, Finished},
    traffic::{tcp, udp},
};

const NETWORK: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";

/// Runs the plugin with JSON on standard input.
fn call(rnet: &Rnet<'_>, args: &[&str], input: &Value) -> Finished {
    process::run_with_input(rnet.command(args), &input.to_string(), testbed::commands::COMMAND_LIMIT)
}

fn answer(rnet: &Rnet<'_>, args: &[&str], input: &Value) -> Value {
    let finished = call(rnet, args, input).assert_ok(&args.join(" "));
    if finished.stdout.is_empty() { Value::Null } else { serde_json::from_str(&finished.stdout).unwrap() }
}

fn refusal(rnet: &Rnet<'_>, args: &[&str], input: &Value) -> String {
    let finished = call(rnet, args, input);
    assert_eq!(finished.status.code(), Some(1), "{args:?}: {}", finished.stdout);
    let said: Value = serde_json::from_str(&finished.stdout).unwrap();
    said["error"].as_str().unwrap().to_owned()
}

fn network(more: &Value) -> Value {
    let mut network = json!({
        "name": "pods", "id": NETWORK, "driver": "rnet", "created": "2026-01-02T03:04:05Z", "ipv6_enabled": false,
        "internal": false, "dns_enabled": true
    });
    network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    network
}

fn attachment(digit: char, network: &Value, options: &Value, ports: &Value) -> Value {
    json!({
        "container_id": digit.to_string().repeat(64), "container_name": format!("c{digit}"), "port_mappings": ports,
        "network": network, "network_options": options
    })
}

#[test]
fn a_network_is_completed_and_nothing_is_left_of_trying() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    assert_eq!(answer(&rnet, &["info"], &Value::Null)["api_version"], "1.0.0");
    let made = answer(&rnet, &["create"], &network(&json!({})));
    assert_eq!(
        (&made["name"], &made["id"], &made["driver"]),
        (&json!("pods"), &json!(NETWORK), &json!("rnet"))
    );
    // Chosen by the id.
    assert_eq!(made["subnets"], json!([{"subnet": "10.175.37.0/24", "gateway": "10.175.37.1"}]));
    assert_eq!(made["network_interface"], "br-2f259bab93aa");
    assert_eq!(made["ipam_options"]["driver"], "host-local");
    let subnet =
        json!({"subnets": [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.9"}], "options": {"mtu": "1400"}});
    assert_eq!(answer(&rnet, &["create"], &network(&subnet))["subnets"], subnet["subnets"]);

    for (asked, why) in [
        (json!({"subnets": [{"subnet": "172.17.0.0/24"}]}), "overlaps"),
        (json!({"options": {"colour": "red"}}), "unknown network option \"colour\""),
        (json!({"options": {"isolate": "false"}}), "always isolated"),
        (json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "172.18.0.2"}]}), "static routes"),
    ] {
        let told = refusal(&rnet, &["create"], &network(&asked));
        assert!(told.contains(why), "{told}");
    }
    assert!(refusal(&rnet, &["create"], &json!("nonsense")).contains("standard input"));
    before.assert_restored(&host.ns, rnet.instance(), "creating networks");
}

#[test]
fn containers_come_and_go_and_the_network_with_them() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let subnets = json!({"subnets": [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}]});
    let network = network(&subnets);
    let (web, db) = (Netns::new("web"), Netns::new("db"));
    let ports = json!([
        {"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1},
        {"container_port": 53, "host_ip": "", "host_port": 5300, "protocol": "udp", "range": 2}
    ]);
    let options = json!({
        "aliases": ["www"], "interface_name": "eth0", "static_ips": ["10.9.0.7"], "static_mac": "02:11:22:33:44:55"
    });
    let of_web = attachment('a', &network, &options, &ports);
    let status = answer(&rnet, &["setup", web.path().to_str().unwrap()], &of_web);
    let expected = json!({
        "dns_search_domains": [], "dns_server_ips": ["10.9.0.1"],
        "interfaces": {"eth0": {
            "mac_address": "02:11:22:33:44:55", "subnets": [{"gateway": "10.9.0.1", "ipnet": "10.9.0.7/24"}]
        }}
    });
    assert_eq!(status, expected);
    let of_db = attachment('b', &network, &json!({"interface_name": "eth0"}), &Value::Null);
    let status = answer(&rnet, &["setup", db.path().to_str().unwrap()], &of_db);
    assert_eq!(status["interfaces"]["eth0"]["subnets"][0]["ipnet"], "10.9.0.2/24");

    let servers = (
        tcp::echo(&web, "0.0.0.0:80"),
        udp::echo(&web, "0.0.0.0:54"),
        tcp::echo(&host.client, "0.0.0.0:9000"),
    );
    tcp::ask(&host.client, host.at(8080));
    udp::ask(&udp::connect(&host.client, host.at(5301)), b"x").unwrap();
    tcp::ask(&db, "10.9.0.7:80".parse().unwrap());
    tcp::ask(&db, (testbed::topology::CLIENT, 9000).into());
    assert_eq!(rnet.ok(&["port", "ca", "80"]).lines().next(), Some("0.0.0.0:8080"));

    // Podman's conmon takes the ports of its containers afterwards.
    let conmons = host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:8080"));
    conmons.unwrap();
    let taken =
        json!([{"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1}]);
    let third = Netns::new("third");
    let of_third = attachment('c', &network, &json!({"interface_name": "eth0"}), &taken);
    let told = refusal(&rnet, &["setup", third.path().to_str().unwrap()], &of_third);
    assert!(told.contains("port is already allocated"), "{told}");
    let told = rnet.fails(&["rm", "-f", "ca"]);
    assert!(told.contains("`podman`"), "{told}");

    for (ns, attachment) in [(&web, &of_web), (&db, &of_db), (&db, &of_db)] {
        assert_eq!(answer(&rnet, &["teardown", ns.path().to_str().unwrap()], attachment), Value::Null);
    }
    before.assert_restored(&host.ns, rnet.instance(), "teardown");
    drop(servers);
}

#[test]
fn a_container_is_on_several_networks_and_its_namespace_may_be_gone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let one = network(&json!({"subnets": [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}]}));
    let mut two = network(&json!({"subnets": [{"subnet": "10.10.0.0/24", "gateway": "10.10.0.1"}]}));
    (two["id"], two["name"]) = (json!("3f".repeat(32)), json!("more"));
    let ports =
        json!([{"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1}]);
    let web = Netns::new("web");
    let path = web.path().to_str().unwrap().to_owned();
    let of_one = attachment('a', &one, &json!({"interface_name": "eth0"}), &ports);
    let of_two = attachment('a', &two, &json!({"interface_name": "eth1"}), &ports);
    answer(&rnet, &["setup", &path], &of_one);
    answer(&rnet, &["setup", &path], &of_two);
    let server = tcp::echo(&web, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
    answer(&rnet, &["teardown", &path], &of_two);
    tcp::ask(&host.client, host.at(8080));
    drop(server);
    drop(web);
    answer(&rnet, &["teardown", &path], &of_one);
    before.assert_restored(&host.ns, rnet.instance(), "teardown of what is gone");
    let told = refusal(&rnet, &["setup", &path], &of_one);
    assert!(told.contains("network namespace"), "{told}");
    before.assert_restored(&host.ns, rnet.instance(), "setup in what is gone");
    rnet.down();
    assert!(refusal(&rnet, &["setup", &path], &of_one).contains("rnet daemon"));
}
