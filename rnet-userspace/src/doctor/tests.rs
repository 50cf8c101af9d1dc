//! Each check on facts that are right, and on facts with one fault.

use std::collections::BTreeMap;

use super::{
    Finding, Level,
    facts::{Answers, Configuration, Daemon, Facts},
    instance, machine,
};
use crate::{controller::view, datapath::survey::Hooks, host::survey::LinkFacts};

/// A host that is as it should be, with an uplink, a network and a container.
fn well() -> Facts {
    let link = |index, is_bridge| LinkFacts { index, is_bridge, mtu: 1500, ..LinkFacts::default() };
    let hooks = |program: &str| Hooks { ingress: vec![program.to_owned()], egress: Vec::new() };
    let settings = [
        ("ipv4/ip_local_port_range", "32768\t60999"),
        ("ipv4/ip_forward", "0"),
        ("ipv4/conf/all/route_localnet", "0"),
        ("core/bpf_jit_enable", "1"),
    ];
    let own = format!("v{}", rnet_common::LAYOUT_VERSION);
    Facts {
        instance: "rnet".into(),
        release: "6.18.1".into(),
        capabilities: u64::MAX,
        settings: settings.map(|(path, value)| (path.to_owned(), value.to_owned())).into(),
        unprivileged_bpf: Some("2".into()),
        has_btf: true,
        has_bpffs: true,
        has_cgroup2: true,
        docker_has_rules: false,
        links: [("eth0", 2, false), ("rnet0", 3, true), ("veth0", 4, false)]
            .map(|(name, index, is_bridge)| (name.to_owned(), link(index, is_bridge)))
            .into(),
        hooks: [
            ("eth0", hooks("from_uplink")),
            ("veth0", hooks("from_container")),
            ("rnet0", Hooks::default()),
        ]
        .map(|(name, hooks)| (name.to_owned(), hooks))
        .into(),
        socket_hooks: [("bind4", vec!["sock_bind4".to_owned()])].into(),
        xdp: BTreeMap::new(),
        layouts: [own].into(),
        pinned: [("from_uplink".into(), 2), ("from_container".into(), 4)].into(),
        unpinned_sockets: Vec::new(),
        namespaces: ["web".to_owned()].into(),
        records: ["c1".to_owned()].into(),
        config: Configuration { path: "/etc/rnet/daemon.json".into(), ..Configuration::default() },
        daemon: Daemon::Answers(Box::new(answers())),
    }
}

fn answers() -> Answers {
    let container = serde_json::json!({
        "id": "c1", "name": "web", "hostname": "web", "state": "running", "pid": null, "exit_code": null,
        "created": "", "started": null, "finished": null, "command": [], "remove": false, "rootfs": null,
        "network_mode": "bridge", "netns": null, "attached": false, "namespaces": "host", "sysctls": {}, "dns": [],
        "dns_search": [], "dns_options": [], "extra_hosts": [], "terminal": false, "dir": "/run", "exposed": [],
        "ports": [],
        "endpoints": [{
            "id": "e", "network": "bridge", "network_id": "n", "interface": "eth0", "host_interface": "veth0",
            "mac": "02:00:00:00:00:01", "addrs": [], "gateways": [], "names": [], "aliases": [], "gw_priority": 0,
            "fixed": []
        }]
    });
    let network = serde_json::json!({
        "id": "n", "name": "bridge", "driver": "bridge", "created": "", "bridge": "rnet0", "subnets": [],
        "internal": false, "attachable": false, "ipv4": true, "ipv6": false, "predefined": true, "options": {},
        "labels": {}, "containers": {}
    });
    let status = serde_json::json!({
        "instance": "rnet", "version": crate::version::full(), "pid": 7, "pins": "", "state": "", "uplinks": ["eth0"],
        "networks": 1, "containers": 1, "running": 1, "ports": 0, "flows": 0, "snat_ports": [1024, 32767]
    });
    let opened = |flows: u64, quota: Option<u64>| view::OpenedFlows { family: "ipv4".into(), flows, quota };
    let used = serde_json::json!({
        "id": "c1", "name": "web", "state": "running", "netns": null, "ports": 0, "opened": 0, "flows": 8,
        "interfaces": [{
            "name": "eth0", "network": "bridge", "traffic": null, "opened": [opened(8, Some(10)), opened(99, None)]
        }]
    });
    Answers {
        status: serde_json::from_value(status).unwrap(),
        usage: view::Usage {
            tables: vec![view::TableUsage { name: "FLOWS4".into(), entries: Some(8), capacity: 10 }],
            containers: vec![serde_json::from_value(used).unwrap()],
            ..view::Usage::default()
        },
        networks: vec![serde_json::from_value(network).unwrap()],
        containers: vec![serde_json::from_value(container).unwrap()],
        free: Vec::new(),
        listening: Vec::new(),
        mute: Vec::new(),
    }
}

fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = machine::check(facts);
    findings.extend(instance::check(facts));
    findings
}

/// One fault, and what is to be said of it: by one check alone.
#[track_caller]
fn tells(change: impl FnOnce(&mut Facts), check: &str, level: Level, word: &str) {
    let mut facts = well();
    change(&mut facts);
    let told: Vec<Finding> = findings(&facts).into_iter().filter(|f| f.level != Level::Ok).collect();
    let [finding] = &told[..] else { panic!("one finding of {check}, not {told:#?}") };
    assert_eq!((finding.check, finding.level), (check, level), "{finding:?}");
    assert!(finding.found.contains(word), "{finding:?}");
    assert!(finding.remedy.is_some());
}

fn set(facts: &mut Facts, path: &str, value: &str) {
    facts.settings.insert(path.to_owned(), value.to_owned());
}

fn answering(facts: &mut Facts) -> &mut Answers {
    match &mut facts.daemon {
        Daemon::Answers(answers) => answers,
        Daemon::Silent(why) => panic!("{why}"),
    }
}

#[test]
fn nothing_is_said_against_a_host_that_is_well() {
    let findings = findings(&well());
    assert!(findings.iter().all(|f| f.level == Level::Ok && f.remedy.is_none()), "{findings:#?}");
    let names: std::collections::BTreeSet<_> = findings.iter().map(|f| f.check).collect();
    assert_eq!(names.len(), findings.len(), "every check has a name of its own");
}

#[test]
fn faults_of_the_machine_are_told() {
    tells(|f| f.release = "6.1.0".into(), "kernel", Level::Error, "too old");
    tells(|f| f.capabilities = 1 << 12, "capabilities", Level::Warning, "CAP_SYS_ADMIN");
    tells(|f| set(f, "core/bpf_jit_enable", "0"), "bpf-jit", Level::Warning, "interpreted");
    tells(|f| set(f, "core/bpf_jit_harden", "2"), "bpf-jit", Level::Warning, "blinded");
    tells(|f| f.unprivileged_bpf = Some("0".into()), "unprivileged-bpf", Level::Warning, "every user");
    tells(|f| f.has_btf = false, "btf", Level::Warning, "vmlinux");
    tells(|f| f.has_bpffs = false, "bpffs", Level::Warning, "/sys/fs/bpf");
    tells(|f| f.has_cgroup2 = false, "cgroup", Level::Error, "cgroup2");
    tells(|f| f.config.wrong = Some("1:2: bad".into()), "configuration", Level::Error, "1:2");
    tells(|f| f.config.warnings = vec!["it has expired".into()], "configuration", Level::Warning, "expired");
    tells(|f| set(f, "ipv4/ip_local_port_range", "30000 60999"), "port-range", Level::Error, "30000-60999");
    tells(|f| set(f, "bridge/bridge-nf-call-iptables", "1"), "bridge-netfilter", Level::Warning, "rules");
    tells(|f| set(f, "ipv4/conf/all/route_localnet", "1"), "route-localnet", Level::Warning, "127.0.0.1");
    let full = |f: &mut Facts| {
        set(f, "netfilter/nf_conntrack_count", "81");
        set(f, "netfilter/nf_conntrack_max", "100");
    };
    tells(full, "conntrack", Level::Warning, "81 of 100");
    let docker = |f: &mut Facts| (f.config.follows_docker, f.docker_has_rules) = (true, true);
    tells(docker, "docker", Level::Error, "firewall");
}

#[test]
fn rules_of_a_docker_that_is_not_followed_are_its_own_affair() {
    let facts = Facts { docker_has_rules: true, ..well() };
    assert!(findings(&facts).iter().all(|f| f.level == Level::Ok));
}

#[test]
fn faults_of_the_instance_are_told() {
    tells(|f| _ = f.layouts.insert("v1".into()), "layout", Level::Warning, "v1");
    let other = |f: &mut Facts| f.hooks.get_mut("eth0").unwrap().ingress.insert(0, "theirs".into());
    tells(other, "other-programs", Level::Warning, "theirs, before rnet's");
    let other = |f: &mut Facts| f.socket_hooks.get_mut("bind4").unwrap().push("theirs".into());
    let told = "bind4 of the root cgroup: theirs, behind rnet's";
    tells(other, "other-programs", Level::Warning, told);
    tells(|f| _ = f.xdp.insert("eth0".into(), "x".into()), "other-programs", Level::Warning, "XDP of eth0");
    tells(|f| f.links.get_mut("eth0").unwrap().has_clsact = true, "other-programs", Level::Warning, "clsact");
    tells(|f| f.hooks.get_mut("eth0").unwrap().ingress.clear(), "uplinks", Level::Error, "eth0");
    tells(|f| answering(f).status.uplinks.clear(), "uplinks", Level::Warning, "none");
    tells(|f| _ = f.links.remove("rnet0"), "bridges", Level::Error, "rnet0");
    tells(|f| f.hooks.get_mut("veth0").unwrap().ingress.clear(), "containers", Level::Error, "not on veth0");
    tells(|f| f.unpinned_sockets.push("sock_bind4"), "socket-programs", Level::Error, "sock_bind4");
    tells(|f| answering(f).usage.tables[0].entries = Some(9), "tables", Level::Warning, "FLOWS4 9 of 10");
    let near = |f: &mut Facts| answering(f).usage.containers[0].interfaces[0].opened[0].flows = 9;
    tells(near, "flow-quotas", Level::Warning, "web has 9 of 10 over ipv4");
    tells(|f| _ = f.namespaces.insert("old".into()), "leftovers", Level::Warning, "rnet-old");
    tells(|f| _ = f.records.insert("c2".into()), "leftovers", Level::Warning, "c2");
    tells(|f| _ = f.pinned.insert(("from_uplink".into(), 99)), "leftovers", Level::Warning, "from_uplink-99");
    tells(|f| f.links.get_mut("eth0").unwrap().mtu = 1400, "mtu", Level::Warning, "bridge 1500");
    let via = |f: &mut Facts| {
        _ = answering(f).networks[0].options.insert("rnet.via_stack".into(), "true".into());
    };
    tells(via, "forwarding", Level::Warning, "ip_forward");
    tells(|f| answering(f).mute.push([10, 0, 0, 1].into()), "name-servers", Level::Error, "10.0.0.1");
    tells(|f| answering(f).status.version = "0".into(), "daemon", Level::Warning, "version 0");
}

#[test]
fn programs_where_rnet_has_none_are_nobody_s_affair() {
    let mut facts = well();
    facts.socket_hooks.insert("connect4", vec!["theirs".into()]);
    let hooks = Hooks { ingress: vec!["theirs".into()], egress: Vec::new() };
    facts.hooks.insert("rnet0".into(), hooks);
    let told: Vec<Finding> = findings(&facts).into_iter().filter(|f| f.level != Level::Ok).collect();
    assert_eq!(told, []);
}

#[test]
fn without_the_daemon_the_rest_is_checked() {
    let facts = Facts { daemon: Daemon::Silent("no rnet daemon answers".into()), has_btf: false, ..well() };
    let told: Vec<_> =
        findings(&facts).into_iter().filter(|f| f.level != Level::Ok).map(|f| f.check).collect();
    assert_eq!(told, ["btf", "daemon"]);
}
