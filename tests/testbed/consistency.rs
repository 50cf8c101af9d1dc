//! Whether what an instance says that it has, and what it has left on the machine, are the same.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

use serde_json::Value;

use crate::{Host, Netns, Rnet, snapshot};

/// Compares networks, containers, interfaces, addresses, default routes, held ports and files with one another.
///
/// # Panics
/// When they contradict one another.
pub fn assert_consistent(host: &Host, rnet: &Rnet<'_>, when: &str) {
    let networks = listed(rnet, &["network", "ls"], &["network", "inspect"]);
    let containers = listed(rnet, &["ps", "-a"], &["inspect"]);
    let running: Vec<&Value> = containers.iter().filter(|c| c["State"]["Running"] == true).collect();

    let bridges = networks.iter().filter(|n| n["Driver"] == "bridge").count();
    assert_eq!(links(&host.ns, "bridge").len(), bridges, "{when}: bridges are those of the networks");
    let own: Vec<&&Value> = running.iter().filter(|c| has_namespace(c)).collect();
    let names: BTreeSet<String> = own
        .iter()
        .map(|c| format!("{}-{}", rnet.instance(), text(&c["Name"]).trim_start_matches('/')))
        .collect();
    let namespaces: BTreeSet<String> = snapshot::namespaces(rnet.instance()).into_iter().collect();
    assert_eq!(namespaces, names, "{when}: namespaces are those of the containers");

    let endpoints: usize = own.iter().map(|c| check_interfaces(rnet, c, when)).sum();
    let is_own = |name: &&String| name.starts_with("veth") && name.len() == "veth01234567".len();
    let veths = links(&host.ns, "veth").iter().filter(is_own).count();
    assert_eq!(veths, endpoints, "{when}: veths are those of the endpoints");

    // Fails where the store has a port that the datapath has not.
    rnet.ok(&["stats"]);
    for port in running.iter().flat_map(|c| published(c)) {
        let is_held = host.ns.run(|| match port {
            (addr, true) => TcpListener::bind(addr).is_err(),
            (addr, false) => UdpSocket::bind(addr).is_err(),
        });
        assert!(is_held, "{when}: port {} is the host's own programs'", port.0);
    }

    let ids = |objects: &[Value]| objects.iter().map(|o| text(&o["Id"]).to_owned()).collect::<BTreeSet<_>>();
    let state = Path::new("/var/lib").join(rnet.instance());
    let run = Path::new("/run").join(rnet.instance());
    assert_eq!(files(&state.join("networks")), ids(&networks), "{when}: records of networks");
    assert_eq!(files(&state.join("containers")), ids(&containers), "{when}: records of containers");
    assert_eq!(files(&run.join("containers")), ids(&containers), "{when}: directories of containers");
}

/// The interfaces of a container are as it says. Returns how many it has.
fn check_interfaces(rnet: &Rnet<'_>, container: &Value, when: &str) -> usize {
    let name = text(&container["Name"]).trim_start_matches('/');
    let ns = Netns::open(Path::new("/run/netns").join(format!("{}-{name}", rnet.instance())));
    let shown = ns.output_of("ip", &["-o", "addr", "show"]).unwrap_or_default();
    let networks = container["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let bridged: Vec<&Value> =
        networks.iter().filter(|(name, _)| *name != "none").map(|(_, endpoint)| endpoint).collect();
    for endpoint in &bridged {
        let addr = text(&endpoint["IPAddress"]);
        assert!(shown.contains(&format!("inet {addr}/")), "{when}: {name} lacks {addr}:\n{shown}");
    }
    let inside = links(&ns, "veth").len();
    assert_eq!(inside, bridged.len(), "{when}: interfaces of {name}");
    let routes = ns.output_of("ip", &["-4", "route", "show", "default"]).unwrap_or_default();
    let lead_out = bridged.iter().any(|endpoint| !text(&endpoint["Gateway"]).is_empty());
    assert_eq!(routes.lines().count(), usize::from(lead_out), "{when}: default routes of {name}: {routes}");
    inside
}

/// Published addresses, and whether they are TCP's.
fn published(container: &Value) -> Vec<(SocketAddr, bool)> {
    let ports = container["NetworkSettings"]["Ports"].as_object().cloned().unwrap_or_default();
    let bound = ports.iter().flat_map(|(port, hosts)| {
        let hosts = hosts.as_array().cloned().unwrap_or_default();
        hosts.into_iter().map(|host| {
            let addr = text(&host["HostIp"]).parse().unwrap_or_else(|e| panic!("HostIp of {host}: {e}"));
            let number =
                text(&host["HostPort"]).parse().unwrap_or_else(|e| panic!("HostPort of {host}: {e}"));
            (SocketAddr::new(addr, number), port.ends_with("/tcp"))
        })
    });
    bound.collect()
}

fn has_namespace(container: &Value) -> bool {
    let mode = text(&container["HostConfig"]["NetworkMode"]);
    mode != "host" && !mode.starts_with("container:")
}

/// Everything in a list, as `inspect` shows it.
fn listed(rnet: &Rnet<'_>, list: &[&str], inspect: &[&str]) -> Vec<Value> {
    let ids = rnet.ok(&[list, &["-q", "--no-trunc"]].concat());
    let ids: Vec<&str> = ids.lines().collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let shown = rnet.ok(&[inspect, &ids].concat());
    serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{inspect:?} prints no JSON ({e}):\n{shown}"))
}

fn links(ns: &Netns, kind: &str) -> Vec<String> {
    let shown = ns.output_of("ip", &["-j", "link", "show", "type", kind]).unwrap_or_default();
    let links: Vec<Value> = serde_json::from_str(&shown).unwrap_or_default();
    links.iter().map(|link| text(&link["ifname"]).to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Names of the files of a directory, without what they end on.
fn files(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let stems = entries.map(|entry| entry.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    stems.flatten().collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
