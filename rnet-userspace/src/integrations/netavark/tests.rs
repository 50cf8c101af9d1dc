//! What Podman says, read and answered.

use serde_json::json;

use super::*;

fn network() -> Value {
    json!({
        "name": "n", "id": "1f".repeat(32), "driver": "rnet", "created": "0001-01-01T00:00:00Z",
        "subnets": [{"subnet": "10.93.1.0/24", "lease_range": {"start_ip": "10.93.1.9"}}],
        "ipv6_enabled": false, "internal": false, "dns_enabled": true,
        "options": {"mtu": "1400", "isolate": "true"}, "labels": {"a": "b"}
    })
}

fn read<T: for<'de> Deserialize<'de>>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn made() -> view::Network {
    read(json!({
        "id": "1f".repeat(32), "name": "n", "driver": "bridge", "created": "", "bridge": "br-1f1f1f1f1f1f",
        "subnets": [{"subnet": "10.93.1.0/24", "ip_range": null, "gateway": "10.93.1.1"}], "internal": false,
        "attachable": false, "ipv4": true, "ipv6": false, "predefined": false, "options": {}, "labels": {},
        "containers": {}
    }))
}

#[test]
fn a_network_is_asked_for_as_podman_has_it() {
    let request = read::<Network>(network()).request().unwrap();
    assert_eq!(request.options, [(MTU.to_owned(), "1400".to_owned())].into());
    assert_eq!(request.subnets[0].subnet, Some("10.93.1.0/24".parse().unwrap()));
    assert_eq!((request.ipv4, request.ipv6), (Some(true), false));
    let mut only_v6 = network();
    only_v6["subnets"] = json!([{"subnet": "fd00:1::/64"}]);
    let request = read::<Network>(only_v6).request().unwrap();
    assert_eq!((request.ipv4, request.ipv6), (Some(false), true));
    let mut open = network();
    open["subnets"] = Value::Null;
    assert_eq!(read::<Network>(open).request().unwrap().ipv4, Some(true));
}

#[test]
fn what_cannot_be_served_is_refused() {
    for (key, value, word) in [
        ("routes", json!([{"destination": "10.0.0.0/8", "gateway": "10.93.1.2"}]), "static routes"),
        ("network_dns_servers", json!(["192.0.2.53"]), "name servers"),
        ("options", json!({"isolate": "false"}), "always isolated"),
    ] {
        let mut asked = network();
        asked[key] = value;
        let refused = read::<Network>(asked).request().unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
    let mut nothing = network();
    (nothing["routes"], nothing["network_dns_servers"]) = (json!([]), Value::Null);
    read::<Network>(nothing).request().unwrap();
}

#[test]
fn podman_gets_back_what_it_gave_and_what_was_chosen() {
    let answer = serde_json::to_value(read::<Network>(network()).with(&made())).unwrap();
    let mut expected = network();
    expected["subnets"][0]["gateway"] = json!("10.93.1.1");
    expected["network_interface"] = json!("br-1f1f1f1f1f1f");
    expected["ipam_options"] = json!({"driver": "host-local"});
    assert_eq!(answer, expected);
}

fn attachment(ports: &Value) -> Attachment {
    read(json!({
        "container_id": "80".repeat(32), "container_name": "web", "port_mappings": ports, "network": network(),
        "network_options": {
            "aliases": ["alias"], "interface_name": "eth0", "static_ips": ["10.93.1.9"], "static_mac": null,
            "options": null
        }
    }))
}

#[test]
fn ranges_and_lists_of_protocols_become_single_ports() {
    let port = |port, protocol, host_ip| {
        json!({
            "container_port": port, "host_ip": host_ip, "host_port": port + 1000, "protocol": protocol, "range": 2
        })
    };
    let container = attachment(&json!([port(80, "tcp,UDP", ""), port(90, "tcp", "127.0.0.1")]));
    let container = container.container("/run/netns/x".into()).unwrap();
    let ports: Vec<_> = container
        .ports
        .iter()
        .map(|p| (p.host_ip.map(|a| a.to_string()), p.host, p.container, p.protocol))
        .collect();
    let (any, local) = (None, Some("127.0.0.1".to_owned()));
    let at = PortChoice::Exactly;
    assert_eq!(
        ports,
        [
            (any.clone(), at(1080), 80, Protocol::Tcp),
            (any.clone(), at(1081), 81, Protocol::Tcp),
            (any.clone(), at(1080), 80, Protocol::Udp),
            (any, at(1081), 81, Protocol::Udp),
            (local.clone(), at(1090), 90, Protocol::Tcp),
            (local, at(1091), 91, Protocol::Tcp),
        ]
    );
    assert_eq!(container.interfaces[0].addrs, ["10.93.1.9/24".parse().unwrap()]);
    let container =
        attachment(&json!([port(80, "tcp,TCP, tcp", "")])).container("/run/netns/x".into()).unwrap();
    assert_eq!(container.ports.len(), 2, "a protocol that is there twice is one");
    for (port, protocol) in [(65535, "tcp"), (80, "icmp")] {
        let ports = json!([{
            "container_port": port, "host_ip": "", "host_port": 80, "protocol": protocol, "range": 2
        }]);
        attachment(&ports).container("/run/netns/x".into()).unwrap_err();
    }
}

#[test]
fn subnets_that_nobody_asked_for_follow_from_the_id() {
    let subnets = |of: Value, nth| -> Vec<String> {
        let request =
            with_subnets(read::<Network>(of).request().unwrap(), &"1f2e3d4c".repeat(8), nth).unwrap();
        request.subnets.iter().map(|s| s.subnet.unwrap().to_string()).collect()
    };
    let mut open = network();
    (open["subnets"], open["ipv6_enabled"]) = (Value::Null, true.into());
    assert_eq!(subnets(open.clone(), 0), ["10.159.46.0/24", "fd1f:2e3d:4c1f::/64"]);
    assert_eq!(subnets(open, 1), ["10.189.76.0/24", "fd2e:3d4c:1f2e::/64"]);
    assert_eq!(subnets(network(), 0), ["10.93.1.0/24"]);
}

#[test]
fn no_ports_at_all_is_fine() {
    assert!(attachment(&Value::Null).container("/run/netns/x".into()).unwrap().ports.is_empty());
}
