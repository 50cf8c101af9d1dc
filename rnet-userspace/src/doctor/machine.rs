//! Checks of the host: what rnet needs of it, and what about it is in rnet's way.

use super::{Finding, facts::Facts};
use crate::{
    controller::SNAT_PORTS,
    host::{parse_ports, preflight, privileges},
};

/// All of them.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![
        kernel(facts),
        capabilities(facts),
        jit(facts),
        unprivileged_bpf(facts),
        btf(facts),
        bpffs(facts),
        cgroup(facts),
        configuration(facts),
        port_range(facts),
        bridge_netfilter(facts),
        route_localnet(facts),
        conntrack(facts),
        docker(facts),
    ]
}

fn kernel(facts: &Facts) -> Finding {
    match preflight::check_release(&facts.release) {
        Ok(()) => Finding::ok("kernel", format!("Linux {}", facts.release)),
        Err(e) => Finding::error("kernel", format!("{e:#}"), "boot a newer kernel"),
    }
}

fn capabilities(facts: &Facts) -> Finding {
    let lacks = |needed: &privileges::Needed| facts.capabilities & needed.set.bits() == 0;
    let missing: Vec<&str> =
        privileges::DAEMON.iter().filter(|needed| lacks(needed)).map(|needed| needed.name).collect();
    if missing.is_empty() {
        return Finding::ok("capabilities", "what the daemon needs is there");
    }
    let found = format!("{} missing: not everything can be seen", missing.join(", "));
    Finding::warning("capabilities", found, "run it as root, such as with sudo")
}

fn jit(facts: &Facts) -> Finding {
    const CHECK: &str = "bpf-jit";
    // A kernel that always compiles has no switch, and other namespaces do not show it.
    if facts.setting("core/bpf_jit_enable") == Some("0") {
        let found =
            "net.core.bpf_jit_enable is 0: programs are interpreted, which costs several times the time";
        return Finding::warning(CHECK, found, "sysctl -w net.core.bpf_jit_enable=1");
    }
    if facts.setting("core/bpf_jit_harden") == Some("2") {
        let found = "net.core.bpf_jit_harden is 2: constants are blinded for root's programs as well, which \
                     makes each packet dearer";
        return Finding::warning(
            CHECK,
            found,
            "sysctl -w net.core.bpf_jit_harden=1, and start the daemon again",
        );
    }
    Finding::ok(CHECK, "programs are compiled")
}

fn unprivileged_bpf(facts: &Facts) -> Finding {
    const CHECK: &str = "unprivileged-bpf";
    if facts.unprivileged_bpf.as_deref() == Some("0") {
        let found = "kernel.unprivileged_bpf_disabled is 0: every user may load eBPF programs";
        return Finding::warning(CHECK, found, "sysctl -w kernel.unprivileged_bpf_disabled=2");
    }
    Finding::ok(CHECK, "only privileged users load eBPF programs")
}

fn btf(facts: &Facts) -> Finding {
    if facts.has_btf {
        return Finding::ok("btf", "the kernel describes its types");
    }
    let found = "/sys/kernel/btf/vmlinux is missing: tools such as bpftool show less";
    Finding::warning("btf", found, "use a kernel with CONFIG_DEBUG_INFO_BTF")
}

fn bpffs(facts: &Facts) -> Finding {
    if facts.has_bpffs {
        return Finding::ok("bpffs", "mounted on /sys/fs/bpf");
    }
    let found = "nothing of it is mounted on /sys/fs/bpf, where programs and tables are kept";
    Finding::warning("bpffs", found, "mount -t bpf bpf /sys/fs/bpf, which the daemon does when it starts")
}

fn cgroup(facts: &Facts) -> Finding {
    if facts.has_cgroup2 {
        return Finding::ok("cgroup", "the cgroup2 hierarchy can be reached");
    }
    let found = "there is no cgroup2 hierarchy: the host's own programs cannot be led to published ports";
    Finding::error("cgroup", found, "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with cgroup2")
}

fn configuration(facts: &Facts) -> Finding {
    let path = facts.config.path.display();
    match &facts.config.wrong {
        Some(wrong) => Finding::error(
            "configuration",
            wrong,
            format!("correct it, and check with `rnet daemon --validate --config {path}`"),
        ),
        None if !facts.config.warnings.is_empty() => Finding::warning(
            "configuration",
            facts.config.warnings.join("; "),
            "put another certificate there, and have the daemon read it: systemctl reload rnet",
        ),
        None if facts.config.is_there => Finding::ok("configuration", format!("{path} is right")),
        None => Finding::ok("configuration", format!("{path} is not there: the defaults hold")),
    }
}

fn port_range(facts: &Facts) -> Finding {
    const CHECK: &str = "port-range";
    let text = facts.setting("ipv4/ip_local_port_range").unwrap_or_default();
    let Some((low, high)) = parse_ports(text) else {
        return Finding::warning(
            CHECK,
            "net.ipv4.ip_local_port_range cannot be read",
            "look whether /proc is mounted",
        );
    };
    let ours = facts.answers().map(|answers| answers.status.snat_ports);
    let (first, last) = ours.unwrap_or(SNAT_PORTS);
    if first <= high && low <= last {
        let found = format!(
            "source ports {first}-{last} of masqueraded flows overlap net.ipv4.ip_local_port_range {low}-{high}: the \
             host's own connections may be taken for containers'"
        );
        let remedy = "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\", or set rnet.snat-port-range";
        return Finding::error(CHECK, found, remedy);
    }
    Finding::ok(CHECK, format!("masqueraded flows have {first}-{last}, the host's own {low}-{high}"))
}

fn bridge_netfilter(facts: &Facts) -> Finding {
    const CHECK: &str = "bridge-netfilter";
    if facts.setting("bridge/bridge-nf-call-iptables") == Some("1") {
        let found =
            "net.bridge.bridge-nf-call-iptables is 1: what bridges carry passes the host's firewall rules";
        let remedy = "sysctl -w net.bridge.bridge-nf-call-iptables=0, unless something else needs it";
        return Finding::warning(CHECK, found, remedy);
    }
    Finding::ok(CHECK, "bridges pass no firewall rules")
}

fn route_localnet(facts: &Facts) -> Finding {
    const CHECK: &str = "route-localnet";
    if facts.setting("ipv4/conf/all/route_localnet") == Some("1") {
        let found = "net.ipv4.conf.all.route_localnet is 1: neighbours may reach what listens on 127.0.0.1";
        return Finding::warning(
            CHECK,
            found,
            "sysctl -w net.ipv4.conf.all.route_localnet=0; rnet does not need it",
        );
    }
    Finding::ok(CHECK, "127.0.0.1 is the host's alone")
}

fn conntrack(facts: &Facts) -> Finding {
    const CHECK: &str = "conntrack";
    let number = |path| facts.setting(path).and_then(|text| text.parse::<u64>().ok());
    match (number("netfilter/nf_conntrack_count"), number("netfilter/nf_conntrack_max")) {
        (Some(count), Some(max)) if max > 0 && count * 10 > max * 8 => Finding::warning(
            CHECK,
            format!(
                "the kernel's own connection tracking has {count} of {max} entries: it drops what is new when full"
            ),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", max * 2),
        ),
        (Some(count), Some(max)) => Finding::ok(
            CHECK,
            format!("the kernel's own has {count} of {max} entries; rnet's flows are not in it"),
        ),
        _ => Finding::ok(CHECK, "the kernel's own is not in use"),
    }
}

fn docker(facts: &Facts) -> Finding {
    const CHECK: &str = "docker";
    let follows = facts.config.follows_docker
        || facts.answers().is_some_and(|answers| !answers.status.engines.is_empty());
    if follows && facts.docker_has_rules {
        let found = "Docker's networks are served, and Docker's own rules are in the firewall: each may undo the other";
        let remedy = "set \"iptables\": false and \"userland-proxy\": false in Docker's daemon.json, and start it again";
        return Finding::error(CHECK, found, remedy);
    }
    let problem =
        facts.answers().into_iter().flat_map(|a| &a.status.engines).find_map(|e| e.problems.first());
    if let Some(problem) = problem {
        return Finding::warning(CHECK, problem, "see what of it is not served with `rnet status`");
    }
    Finding::ok(CHECK, if follows { "its networks are served" } else { "not followed" })
}
