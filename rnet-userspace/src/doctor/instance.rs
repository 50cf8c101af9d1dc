//! Checks of the instance: whether what the daemon says that there is, is there.

use std::{collections::BTreeSet, fmt::Display};

use super::{
    Finding,
    facts::{Answers, Daemon, Facts},
};
use crate::{
    controller::{layout, view},
    datapath::survey::is_own,
};

/// Tables that are filled further are told of.
const NEARLY_FULL: f64 = 0.8;
/// The program on uplinks, and the one on containers' interfaces.
const FROM_UPLINK: &str = "from_uplink";
const FROM_CONTAINER: &str = "from_container";

/// All of them. Most compare with what the daemon says.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![daemon(facts), layouts(facts), foreign(facts)];
    let Some(answers) = facts.answers() else { return findings };
    findings.extend([
        uplinks(facts, answers),
        bridges(facts, answers),
        containers(facts, answers),
        socket_programs(facts),
        tables(answers),
        quotas(answers),
        leftovers(facts, answers),
        mtu(facts, answers),
        forwarding(facts, answers),
        held_ports(answers),
        listeners(answers),
        name_servers(answers),
    ]);
    findings
}

fn again(facts: &Facts) -> String {
    match facts.instance.as_str() {
        "rnet" => "start the daemon again: `systemctl restart rnet`".to_owned(),
        other => format!("start the daemon of instance {other} again"),
    }
}

fn daemon(facts: &Facts) -> Finding {
    match &facts.daemon {
        Daemon::Silent(why) => Finding::error(
            "daemon",
            format!("{why}; what only it knows is not checked"),
            "start it, and see its log: `journalctl -u rnet`",
        ),
        Daemon::Answers(answers) => {
            let (theirs, ours) = (&answers.status.version, crate::version::full());
            if theirs == ours {
                return Finding::ok(
                    "daemon",
                    format!("answers, version {theirs}, pid {}", answers.status.pid),
                );
            }
            Finding::warning(
                "daemon",
                format!("it is version {theirs}, and this program {ours}"),
                again(facts),
            )
        }
    }
}

fn layouts(facts: &Facts) -> Finding {
    let own = layout();
    let others: Vec<&String> = facts.layouts.iter().filter(|layout| **layout != own).collect();
    if others.is_empty() {
        return Finding::ok("layout", format!("no tables but {own}'s"));
    }
    let found = format!("tables of another version are there: {}", list(&others));
    Finding::warning("layout", found, "start the daemon once with --replace-layout")
}

fn foreign(facts: &Facts) -> Finding {
    let mut others = Vec::new();
    // Only where rnet's programs are: what is elsewhere is in nobody's way.
    let is_beside = |programs: &[String]| programs.iter().any(|program| is_own(program));
    let beside = |name: &&String| {
        facts.hooks.get(*name).is_some_and(|hooks| is_beside(&hooks.ingress) || is_beside(&hooks.egress))
    };
    for name in facts.links.keys().filter(beside) {
        let Some(hooks) = facts.hooks.get(name) else { continue };
        others.extend(foreign_at(&format!("tcx ingress of {name}"), &hooks.ingress));
        others.extend(foreign_at(&format!("tcx egress of {name}"), &hooks.egress));
        if let Some(program) = facts.xdp.get(name).filter(|program| !is_own(program)) {
            others.push(format!("XDP of {name}: {program}"));
        }
        if facts.links.get(name).is_some_and(|link| link.has_clsact) {
            others.push(format!("clsact of {name}, whose filters run behind rnet's programs"));
        }
    }
    for (hook, programs) in facts.socket_hooks.iter().filter(|(_, programs)| is_beside(programs)) {
        others.extend(foreign_at(&format!("{hook} of the root cgroup"), programs));
    }
    if others.is_empty() {
        return Finding::ok("other-programs", "none at the hooks where rnet's are");
    }
    let remedy = "see that they let pass what rnet carries (`bpftool net`, `bpftool cgroup tree`, `tc filter show`), or \
                  take them off";
    Finding::warning("other-programs", others.join("; "), remedy)
}

/// Programs at a hook that are not rnet's, and on which side of its own they run.
fn foreign_at(hook: &str, programs: &[String]) -> Vec<String> {
    let first = programs.iter().position(|program| is_own(program));
    let others = programs.iter().enumerate().filter(|(_, program)| !is_own(program));
    let told = |(at, program): (usize, &String)| {
        let order = if first.is_some_and(|first| at < first) { "before" } else { "behind" };
        format!("{hook}: {program}, {order} rnet's")
    };
    others.map(told).collect()
}

fn uplinks(facts: &Facts, answers: &Answers) -> Finding {
    let uplinks = &answers.status.uplinks;
    if uplinks.is_empty() {
        let found = "there is none: nothing is reached from outside, and nothing outside is reached";
        return Finding::warning("uplinks", found, "bring an interface up, or see rnet.uplinks and --uplink");
    }
    let without: Vec<&String> = uplinks.iter().filter(|name| !runs(facts, name, FROM_UPLINK)).collect();
    if without.is_empty() {
        return Finding::ok("uplinks", list(uplinks));
    }
    let found = format!("{FROM_UPLINK} is not on {}: published ports are not answered there", list(&without));
    Finding::error("uplinks", found, again(facts))
}

fn runs(facts: &Facts, interface: &str, program: &str) -> bool {
    facts.hooks.get(interface).is_some_and(|hooks| hooks.ingress.iter().any(|p| p == program))
}

fn bridges(facts: &Facts, answers: &Answers) -> Finding {
    let is_bridge = |name: &str| facts.links.get(name).is_some_and(|link| link.is_bridge);
    let bridges: Vec<&String> =
        answers.networks.iter().filter_map(|network| network.bridge.as_ref()).collect();
    let gone: Vec<&&String> = bridges.iter().filter(|name| !is_bridge(name)).collect();
    if gone.is_empty() {
        return Finding::ok("bridges", format!("{} of {} are there", bridges.len(), bridges.len()));
    }
    Finding::error("bridges", format!("{} of a network is gone", list(&gone)), again(facts))
}

fn containers(facts: &Facts, answers: &Answers) -> Finding {
    let mut broken = Vec::new();
    let served = answers.containers.iter().filter(|c| c.state != view::ContainerState::Exited);
    for (container, endpoint) in served.flat_map(|c| c.endpoints.iter().map(move |e| (c, e))) {
        let (name, interface) = (&container.name, &endpoint.host_interface);
        if interface.is_empty() {
            continue;
        }
        if !facts.links.contains_key(interface) {
            broken.push(format!("{name}: its interface {interface} is gone"));
        } else if !runs(facts, interface, FROM_CONTAINER) {
            broken.push(format!("{name}: {FROM_CONTAINER} is not on {interface}"));
        }
    }
    if broken.is_empty() {
        let many = answers.containers.len();
        return Finding::ok("containers", format!("{many}, with interfaces and programs as they should be"));
    }
    Finding::error("containers", broken.join("; "), again(facts))
}

fn socket_programs(facts: &Facts) -> Finding {
    if facts.unpinned_sockets.is_empty() {
        return Finding::ok("socket-programs", "the root cgroup's are there");
    }
    let found = format!(
        "{} missing on the root cgroup: the host's own programs do not reach published ports, or take them",
        facts.unpinned_sockets.join(", ")
    );
    Finding::error("socket-programs", found, again(facts))
}

fn tables(answers: &Answers) -> Finding {
    let fill =
        |table: &&view::TableUsage| table.entries.unwrap_or_default() as f64 / table.capacity.max(1) as f64;
    let shown = |table: &view::TableUsage| {
        format!("{} {} of {}", table.name, table.entries.unwrap_or_default(), table.capacity)
    };
    let full: Vec<String> =
        answers.usage.tables.iter().filter(|table| fill(table) > NEARLY_FULL).map(shown).collect();
    if full.is_empty() {
        return Finding::ok("tables", "none is nearly full");
    }
    let remedy = "give them more entries: rnet.max-flows and rnet.max-ports, by `rnet down` and a new start; for flows, \
                  `rnet conntrack ls` says whose they are";
    Finding::warning("tables", format!("nearly full: {}", full.join(", ")), remedy)
}

fn quotas(answers: &Answers) -> Finding {
    let mut near = Vec::new();
    for container in &answers.usage.containers {
        for opened in container.interfaces.iter().flat_map(|interface| &interface.opened) {
            let view::OpenedFlows { family, flows, quota: Some(quota) } = opened else { continue };
            if *flows as f64 > *quota as f64 * NEARLY_FULL {
                near.push(format!("{} has {flows} of {quota} over {family}", container.name));
            }
        }
    }
    if near.is_empty() {
        return Finding::ok("flow-quotas", "no container has nearly used up its own");
    }
    let remedy = "see what it opens (`rnet conntrack ls`); for more, rnet.max-flows-per-container, or `-o rnet.max_flows` \
                  of its network";
    Finding::warning("flow-quotas", format!("flows are nearly used up: {}", near.join("; ")), remedy)
}

fn leftovers(facts: &Facts, answers: &Answers) -> Finding {
    let names: BTreeSet<&str> = answers.containers.iter().map(|c| c.name.as_str()).collect();
    let ids: BTreeSet<&str> = answers.containers.iter().map(|c| c.id.as_str()).collect();
    let indexes: BTreeSet<u32> = facts.links.values().map(|link| link.index).collect();
    let namespaces = facts.namespaces.iter().filter(|name| !names.contains(name.as_str()));
    let namespaces = namespaces.map(|name| format!("namespace {}-{name}", facts.instance));
    let records = facts.records.iter().filter(|id| !ids.contains(id.as_str()));
    let records = records.map(|id| format!("record of container {id}"));
    let pins = facts.pinned.iter().filter(|(_, index)| !indexes.contains(index));
    let pins = pins.map(|(program, index)| format!("pin {program}-{index} of an interface that is gone"));
    let left: Vec<String> = namespaces.chain(records).chain(pins).collect();
    if left.is_empty() {
        return Finding::ok("leftovers", "nothing without an owner");
    }
    let remedy =
        format!("{}, which clears up what is its own; namespaces of others: `ip netns delete`", again(facts));
    Finding::warning("leftovers", left.join("; "), remedy)
}

fn mtu(facts: &Facts, answers: &Answers) -> Finding {
    let of = |name: &String| facts.links.get(name).map(|link| link.mtu);
    let least = answers.status.uplinks.iter().filter_map(of).min();
    let larger: Vec<String> = answers
        .networks
        .iter()
        .filter(|network| !network.internal)
        .filter_map(|network| {
            let (mtu, least) = (of(network.bridge.as_ref()?)?, least?);
            (mtu > least).then(|| format!("{} {mtu}", network.name))
        })
        .collect();
    let Some(least) = least.filter(|_| !larger.is_empty()) else {
        return Finding::ok("mtu", "no network's is above the uplinks'");
    };
    let found = format!(
        "networks have a larger MTU than an uplink ({least}): {}; larger packets wait for path MTU discovery",
        larger.join(", ")
    );
    Finding::warning("mtu", found, format!("make the network with -o com.docker.network.driver.mtu={least}"))
}

fn forwarding(facts: &Facts, answers: &Answers) -> Finding {
    const OPTION: &str = "rnet.via_stack";
    let asks = |network: &&view::Network| network.options.get(OPTION).is_some_and(|value| value == "true");
    let networks: Vec<&str> = answers.networks.iter().filter(asks).map(|n| n.name.as_str()).collect();
    if networks.is_empty() {
        return Finding::ok("forwarding", "no network is delivered via the host's stack");
    }
    if facts.setting("ipv4/ip_forward") == Some("0") {
        let found = format!(
            "net.ipv4.ip_forward is 0, and networks go via the host's stack: {}",
            networks.join(", ")
        );
        let remedy = "sysctl -w net.ipv4.ip_forward=1, or forwarding on the uplinks alone (net.ipv4.conf.IF.forwarding)";
        return Finding::warning("forwarding", found, remedy);
    }
    Finding::ok("forwarding", format!("the host forwards for {}", networks.join(", ")))
}

fn held_ports(answers: &Answers) -> Finding {
    if answers.free.is_empty() {
        return Finding::ok("held-ports", format!("{} published", answers.status.ports));
    }
    let ports = answers.free.iter().map(|p| format!("{}:{}/{}", p.addr, p.port, p.protocol));
    let found =
        format!("a host's program could take published ports: {}", ports.collect::<Vec<_>>().join(", "));
    Finding::error(
        "held-ports",
        found,
        "start the daemon again, which puts sock_bind4 and sock_bind6 in force",
    )
}

fn listeners(answers: &Answers) -> Finding {
    let bindings =
        answers.containers.iter().flat_map(|c| &c.ports).filter(|b| !b.unheld && b.host.addr != b.addr);
    let taken: BTreeSet<u16> =
        bindings.map(|b| b.host.port).filter(|port| answers.listening.contains(port)).collect();
    if taken.is_empty() {
        return Finding::ok("listeners", "no program listens at a published port");
    }
    let found = format!(
        "a program of the host listens at published ports too: {}",
        list(&taken.iter().collect::<Vec<_>>())
    );
    Finding::warning(
        "listeners",
        found,
        "see which with `ss -ltnp`, and stop it: containers get what comes from outside",
    )
}

fn name_servers(answers: &Answers) -> Finding {
    if answers.mute.is_empty() {
        return Finding::ok("name-servers", "every network's gateway answers");
    }
    let found = format!("none takes connections at {}", list(&answers.mute));
    Finding::error(
        "name-servers",
        found,
        "see the daemon's log for why it cannot listen there: `journalctl -u rnet`",
    )
}

fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
