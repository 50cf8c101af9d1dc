//! A node of a cluster, made so by the script of the DaemonSet: `install` in `packaging/kubernetes`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{
    Host, Netns, Rnet, commands, process,
    topology::{CLIENT, FAR, HOST},
    traffic::tcp,
};

use super::{LIMIT, Plugin, addr_in, path_of, publishing, with};

/// A pod of the other node, which the client of the testbed plays.
const REMOTE_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);
/// The address of a Service.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn installer(host: &Host, root: &Path, nodes: &str) -> Command {
    let file = root.join("nodes");
    fs::write(&file, nodes).unwrap();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes/install");
    let mut command = host.ns.command(script);
    command.env("NODE_NAME", "node-a").env("CLUSTER_CIDR", "10.244.0.0/16");
    command.env("NODES", file).env("HOST", root).env("RNET", commands::binary());
    command
}

/// The configuration that the script has written, as a runtime hands it to the plugin.
fn configuration(root: &Path) -> Value {
    let list = fs::read_to_string(root.join("etc/cni/net.d/10-rnet.conflist")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    with(&list["plugins"][0], &json!({ "cniVersion": list["cniVersion"], "name": list["name"] }))
}

#[test]
fn pods_of_a_cluster_reach_one_another_and_its_services() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let plugin = Plugin::new(&host, &rnet);
    let root = TempDir::new().unwrap();
    let unknown = process::run(installer(&host, root.path(), "node-b 10.244.1.0/24 10.200.0.2\n"), LIMIT);
    assert!(!unknown.status.success() && unknown.stderr.contains("node-a has no line"), "{unknown:?}");
    let nodes = "node-a 10.244.0.0/24 10.200.0.1\n\n# the other\nnode-b 10.244.1.0/24 10.200.0.2\n";
    // A node that starts again is made so again.
    for _ in 0..2 {
        process::run(installer(&host, root.path(), nodes), LIMIT).assert_ok("install");
    }
    assert_eq!(
        fs::read(root.path().join("opt/cni/bin/rnet")).unwrap(),
        fs::read(commands::binary()).unwrap()
    );
    let config = configuration(root.path());
    let (pod, backend) = (Netns::new("pod"), Netns::new("backend"));
    let pod_addr = addr_in(&plugin.add("c1", &pod, &with(&config, &publishing(8080, 80))));
    let backend_addr = addr_in(&plugin.call("ADD", "c2", path_of(&backend), "eth0", &config).unwrap());
    assert_eq!((pod_addr, backend_addr), ([10, 244, 0, 2].into(), [10, 244, 0, 3].into()));

    // What the other node has of its own.
    host.client.ip(&format!(
        "addr add {REMOTE_POD}/32 dev lo
         route add 10.244.0.0/24 via {HOST}"
    ));
    let far_server = tcp::echo(host.far(), "0.0.0.0:9000");
    let servers = [&pod, &backend].map(|ns| tcp::echo(ns, "0.0.0.0:80"));
    let remote = tcp::echo(&host.client, &format!("{REMOTE_POD}:80"));
    let on = |addr: Ipv4Addr, port: u16| SocketAddr::from((addr, port));
    // Pods and nodes, both ways, untranslated.
    tcp::ask_from(&host.client, on(REMOTE_POD, 0), on(pod_addr, 80));
    tcp::ask(&host.client, on(pod_addr, 80));
    tcp::ask(&pod, on(REMOTE_POD, 80));
    assert_eq!(servers[0].peers().iter().map(|peer| peer.ip()).collect::<Vec<_>>(), [REMOTE_POD, CLIENT]);
    assert_eq!(remote.peers()[0].ip(), pod_addr);
    // From outside by published ports, to the outside by the node's address.
    tcp::ask(host.far(), host.at(8080));
    tcp::ask(&pod, on(FAR, 9000));
    assert_eq!((servers[0].peers()[2].ip(), far_server.peers()[0].ip()), (FAR.into(), HOST.into()));
    tcp::ask(&pod, on(backend_addr, 80));

    // A Service, as kube-proxy has it: to a pod elsewhere, to one on this node, and to the pod itself.
    for (to, server) in [(REMOTE_POD, &remote), (backend_addr, &servers[1]), (pod_addr, &servers[0])] {
        let rules = format!(
            "table ip kube-proxy\ndelete table ip kube-proxy\ntable ip kube-proxy {{\n\
             chain prerouting {{ type nat hook prerouting priority dstnat; ip daddr {SERVICE} tcp dport 80 dnat to {to}:80; }}\n\
             }}\n"
        );
        let mut nft = host.ns.command("sh");
        nft.args(["-c", r#"printf %s "$RULES" | nft -f -"#]).env("RULES", rules);
        process::run(nft, LIMIT).assert_ok("nft");
        let before = server.peers().len();
        tcp::ask(&pod, on(SERVICE, 80));
        assert_eq!(server.peers().len(), before + 1, "{to}");
        tcp::ask(&pod, on(SERVICE, 80));
    }
    for container in ["c1", "c2"] {
        plugin.del(container, "", &config);
    }
    assert!(rnet.json(&["network", "ls"]).iter().all(|network| network["Name"] != "rnet-pods"));
}
