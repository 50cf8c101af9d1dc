//! What of Docker's cannot be served, and why: each is told once in the log, and shown by `rnet status` as long as it
//! lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::translate::Followed;
use crate::host;

/// The options of dockerd that leave the work to rnet.
const FLAGS: &str = "\"iptables\": false, \"ip6tables\": false, \"userland-proxy\": false";

/// Problems by what they are about.
#[derive(Debug, Default)]
pub(super) struct Problems {
    by_scope: BTreeMap<String, Vec<String>>,
    told: BTreeSet<String>,
}

impl Problems {
    /// What there is about `scope`, in place of what there was. Says whether that is something else.
    pub(super) fn set(&mut self, scope: &str, problems: Vec<String>) -> bool {
        for problem in &problems {
            if self.told.insert(problem.clone()) {
                tracing::warn!("docker: {problem}");
            }
        }
        let before = match problems.is_empty() {
            true => self.by_scope.remove(scope),
            false => self.by_scope.insert(scope.to_owned(), problems.clone()),
        };
        let before = before.unwrap_or_default();
        // What comes back after it was gone is told again.
        for gone in before.iter().filter(|gone| !problems.contains(gone)) {
            self.told.remove(gone);
        }
        before != problems
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<String> {
        self.by_scope.values().flatten().cloned().collect()
    }
}

/// What stands in the way on this host. It blocks.
pub(super) fn of_host(networks: &BTreeMap<String, Followed>) -> Vec<String> {
    let mut problems = Vec::new();
    let rules = host::netfilter::has_nat_chain("DOCKER").unwrap_or_else(|e| {
        tracing::debug!("look for Docker's rules in the firewall: {e:#}");
        false
    });
    if rules {
        problems.push(format!(
            "Docker's rules are in the firewall: dockerd runs with iptables on, or did and left them; put {FLAGS} into \
             its daemon.json, restart it and remove the rules, or reboot"
        ));
    }
    if has_proxy() {
        problems.push(format!(
            "docker-proxy runs on this host, which takes connections in the place of containers: put {FLAGS} into \
             dockerd's daemon.json and restart it"
        ));
    }
    let mut off = BTreeSet::new();
    for Followed { network, .. } in networks.values() {
        for ipv6 in [false, true] {
            if network.subnets.iter().any(|s| s.subnet.is_ipv6() == ipv6) && is_there(&network.bridge) {
                off.extend(host::forwarding_off(&network.bridge, ipv6).unwrap_or_default());
            }
        }
    }
    if !off.is_empty() {
        let settings: Vec<_> = off.iter().map(|name| format!("{name}=1")).collect();
        problems.push(format!(
            "the host does not forward, and without that containers reach nothing outside: set {}",
            settings.join(", ")
        ));
    }
    problems
}

fn is_there(bridge: &str) -> bool {
    Path::new("/proc/sys/net/ipv4/conf").join(bridge).exists()
}

/// Whether a docker-proxy runs in this network namespace.
fn has_proxy() -> bool {
    let netns = |process: &Path| fs::metadata(process.join("ns/net")).ok().map(|m| (m.dev(), m.ino()));
    let own = netns(Path::new("/proc/thread-self"));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.into_iter().any(|process| {
        let name = fs::read_to_string(process.join("comm"));
        name.is_ok_and(|name| name.trim_end() == "docker-proxy") && netns(&process) == own
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_last_until_they_are_gone() {
        let mut problems = Problems::default();
        assert!(problems.set("a", vec!["one".into(), "two".into()]));
        assert!(!problems.set("a", vec!["one".into(), "two".into()]));
        assert!(problems.set("b", vec!["three".into()]));
        assert_eq!(problems.all(), ["one", "two", "three"]);
        assert!(problems.set("a", Vec::new()));
        assert!(!problems.set("a", Vec::new()));
        assert_eq!(problems.all(), ["three"]);
    }
}
