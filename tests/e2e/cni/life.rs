//! A container from ADD to DEL.

use std::{net::Ipv4Addr, thread, time::Duration};

use serde_json::{Value, json};
use testbed::{
    Host, Netns, Rnet, Snapshot,
    topology::{CLIENT, HOST, HOST_SECOND},
    traffic::{Failure, tcp, udp},
    wait_until,
};

use super::{Plugin, addr_in, network, path_of, publishing, with};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_container_is_added_checked_and_deleted() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let (ns, other) = (Netns::new("pod"), Netns::new("other"));
    let empty = ns.output_of("ip", &["-o", "addr", "show"]);
    let ports = json!({ "runtimeConfig": { "portMappings": [
        { "HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": "" },
        { "hostPort": 5300, "containerPort": 53, "protocol": "udp", "hostIP": "10.200.0.9" },
        { "hostPort": 0, "containerPort": 81 },
    ] } });
    let config = with(
        &network("n1"),
        &with(&ports, &json!({ "bridge": "pods0", "mtu": 1400, "cniVersion": "1.1.0" })),
    );
    let result = plugin.add("c1", &ns, &config);
    let macs = [host.ns.mac("pods0"), ns.mac("eth0")];
    let mac = |octets: [u8; 6]| octets.map(|octet| format!("{octet:02x}")).join(":");
    let veth = result["interfaces"][1]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "pods0", "mac": mac(macs[0]), "mtu": 1400 },
                { "name": veth, "mac": mac(host.ns.mac(&veth)), "mtu": 1400 },
                { "name": "eth0", "mac": mac(macs[1]), "mtu": 1400, "sandbox": path_of(&ns) },
            ],
            "ips": [{ "interface": 2, "address": "10.66.0.2/24", "gateway": "10.66.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.66.0.1" }],
            "dns": {},
        })
    );
    // Other versions have less to say, or more; of one network, all mean the same.
    let old = with(&network("n1"), &json!({ "bridge": "pods0", "mtu": 1400, "cniVersion": "0.4.0" }));
    let second = plugin.add("c2", &other, &old);
    assert_eq!(
        second["ips"],
        json!([{ "version": "4", "interface": 2, "address": "10.66.0.3/24", "gateway": "10.66.0.1" }])
    );
    assert!(second["interfaces"][0].get("mtu").is_none() && second["cniVersion"] == "0.4.0");

    let server = tcp::echo(&ns, "0.0.0.0:80");
    let names = udp::echo(&ns, "0.0.0.0:53");
    let outside = tcp::echo(&host.client, "0.0.0.0:9000");
    tcp::ask(&host.client, host.at(8080));
    let socket = udp::connect(&host.client, (HOST_SECOND, 5300).into());
    udp::ask(&socket, b"name").unwrap();
    tcp::ask(&other, (addr_in(&result), 80).into());
    tcp::ask(&host.ns, (addr_in(&result), 80).into());
    tcp::ask(&ns, (CLIENT, 9000).into());
    assert_eq!(outside.peers()[0].ip(), HOST);
    assert_eq!((server.peers().len(), names.peers().len()), (3, 1));
    // Nobody else keeps the port, so rnet does.
    let bound = host.ns.run(|| std::net::TcpListener::bind("0.0.0.0:8080"));
    assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

    plugin.check("c1", &ns, &config, &result).unwrap();
    drop((server, names));
    plugin.del("c1", path_of(&ns), &with(&config, &json!({ "prevResult": result })));
    assert_eq!(ns.output_of("ip", &["-o", "addr", "show"]), empty);
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
    // The network is there while somebody is on it.
    assert!(rnet.ok(&["network", "ls", "-q", "--filter", "name=n1"]).lines().count() == 1);
    // Again, of a container that was never there, without a namespace, and of one that is gone.
    for (container, netns) in [("c1", path_of(&ns)), ("c1", ""), ("c9", ""), ("c2", "/run/netns/gone")] {
        plugin.del(container, netns, &config);
    }
    before.assert_restored(&host.ns, rnet.instance(), "DEL");
}

#[test]
fn check_says_what_is_not_as_it_was() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let ns = Netns::new("pod");
    let config = with(&network("n1"), &publishing(8080, 80));
    let result = plugin.add("c1", &ns, &config);
    let expect = |code: u64, config: &Value, words: &str| {
        let refused = plugin.check("c1", &ns, config, &result).unwrap_err();
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.message.contains(words), "{refused:?} lacks {words:?}");
    };
    plugin.check("c1", &ns, &config, &result).unwrap();
    let more = with(&network("n1"), &publishing(8081, 80));
    expect(102, &more, "port 8081:80/tcp is not published");
    expect(102, &with(&config, &json!({ "name": "n2" })), "no interface eth0 on network n2");
    let refused = plugin.call("CHECK", "c1", path_of(&ns), "eth0", &config).unwrap_err();
    assert_eq!(refused.code, 7, "without prevResult: {refused:?}");
    let refused = plugin.check("c2", &ns, &config, &result).unwrap_err();
    assert_eq!(refused.code, 3, "{refused:?}");

    ns.ip("route del default");
    expect(102, &config, "lacks its default route through 10.66.0.1");
    ns.ip("route add default via 10.66.0.1");
    plugin.check("c1", &ns, &config, &result).unwrap();
    ns.ip("addr add 10.66.0.77/24 dev eth0");
    ns.ip("addr del 10.66.0.2/24 dev eth0");
    expect(102, &config, "lacks address 10.66.0.2/24");
    ns.ip("link set eth0 down");
    expect(102, &config, "is down");
    // One that is gone altogether is made again.
    let veth = result["interfaces"][1]["name"].as_str().unwrap();
    host.ns.ip(&format!("link del {veth}"));
    wait_until("the veth is there again", SOON, || plugin.check("c1", &ns, &config, &result).ok());
    host.ns.ip(&format!("link set {veth} nomaster"));
    expect(102, &config, "is not on bridge br-");
    rnet.kill9();
    let refused = plugin.check("c1", &ns, &config, &result).unwrap_err();
    assert_eq!(refused.code, 11, "nobody can say: {refused:?}");
}

#[test]
fn a_daemon_that_is_gone_is_waited_for() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let ns = Netns::new("pod");
    // The configuration knows better which instance is meant than the environment.
    let config = with(&network("n1"), &json!({ "cniVersion": "1.1.0", "instance": "rnet-nobody" }));
    let (code, message) = plugin.refused("c1", &ns, &config);
    assert_eq!(code, 11);
    assert!(message.contains("'rnet --instance rnet-nobody daemon'"), "{message}");
    let config = with(&config, &json!({ "instance": rnet.instance() }));
    let result = plugin.add("c1", &ns, &config);
    plugin.call("STATUS", "", "", "", &config).unwrap();
    rnet.kill9();
    let codes = ["ADD", "DEL", "CHECK", "STATUS"].map(|command| {
        let config = with(&config, &json!({ "prevResult": result }));
        let refused = plugin.call(command, "c1", path_of(&ns), "eth0", &config).unwrap_err();
        assert!(refused.message.contains("no rnet daemon answers"), "{command}: {refused:?}");
        refused.code
    });
    assert_eq!(codes, [11, 11, 11, 50]);
    assert_eq!(plugin.call("VERSION", "", "", "", &config).unwrap()["cniVersion"], "1.1.0");
    rnet.start_daemon();
    plugin.check("c1", &ns, &config, &result).unwrap();
    // What an ADD has made that nobody heard of is said again.
    assert_eq!(plugin.add("c1", &ns, &config), result);
    plugin.del("c1", "", &config);
    assert!(ns.output_of("ip", &["link", "show", "eth0"]).is_none());
}

#[test]
fn many_are_added_at_once_and_no_address_is_given_twice() {
    testbed::require_root!();
    const MANY: usize = 30;
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let spaces: Vec<Netns> = (0..MANY).map(|number| Netns::new(&format!("pod{number}"))).collect();
    let config = with(&network("n1"), &json!({ "ranges": [{ "subnet": "10.66.0.0/26" }], "subnet": null }));
    let each = |act: &(dyn Fn(usize, &Netns) -> Option<Ipv4Addr> + Sync)| -> Vec<Ipv4Addr> {
        thread::scope(|scope| {
            let all: Vec<_> =
                spaces.iter().enumerate().map(|(number, ns)| scope.spawn(move || act(number, ns))).collect();
            all.into_iter().filter_map(|one| one.join().unwrap()).collect()
        })
    };
    let mut addrs = each(&|number, ns| Some(addr_in(&plugin.add(&format!("c{number}"), ns, &config))));
    addrs.sort();
    let expected: Vec<Ipv4Addr> = (2..).take(MANY).map(|last| Ipv4Addr::new(10, 66, 0, last)).collect();
    assert_eq!(addrs, expected, "the lowest, each once");
    // Networks come and go with their containers meanwhile.
    each(&|number, ns| {
        plugin.del(&format!("c{number}"), path_of(ns), &config);
        let again = plugin.add(&format!("d{number}"), ns, &config);
        plugin.del(&format!("d{number}"), "", &config);
        Some(addr_in(&again))
    });
    before.assert_restored(&host.ns, rnet.instance(), "DEL of all");
}

#[test]
fn gc_removes_what_the_engine_no_longer_knows() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let empty = Snapshot::take(&host.ns, rnet.instance());
    let spaces = ["a", "b", "c"].map(Netns::new);
    let config = with(&network("n1"), &json!({ "cniVersion": "1.1.0" }));
    let other = with(&config, &json!({ "name": "n2", "subnet": "10.67.0.0/24" }));
    let long = "ad39b61ad39dd55fe9f9fdd1eb38b2bda198ded9a59c0f14835e9c62b20bde0e";
    let results = [plugin.add("c1", &spaces[0], &config), plugin.add(long, &spaces[1], &config)];
    let elsewhere = plugin.add("c3", &spaces[2], &other);
    let gc = |config: &Value, key: &str, valid: &Value| {
        plugin.call("GC", "", "", "", &with(config, &json!({ key: valid }))).unwrap();
    };
    let all = json!([{ "containerID": "c1", "ifname": "eth0" }, { "containerID": long, "ifname": "eth0" }]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        gc(&config, key, &all);
        plugin.check("c1", &spaces[0], &config, &results[0]).unwrap();
        plugin.check(long, &spaces[1], &config, &results[1]).unwrap();
    }
    let second =
        json!([{ "containerID": "c1", "ifname": "eth1" }, { "containerID": long, "ifname": "eth0" }]);
    gc(&config, "cni.dev/valid-attachments", &second);
    assert_eq!(plugin.check("c1", &spaces[0], &config, &results[0]).unwrap_err().code, 3);
    plugin.check(long, &spaces[1], &config, &results[1]).unwrap();
    gc(&config, "cni.dev/valid-attachments", &json!([]));
    assert_eq!(plugin.check(long, &spaces[1], &config, &results[1]).unwrap_err().code, 3);
    plugin.check("c3", &spaces[2], &other, &elsewhere).unwrap();
    gc(&other, "cni.dev/attachments", &Value::Null);
    empty.assert_restored(&host.ns, rnet.instance(), "GC of all");
}
