//! Everything that can be observed of a host and of one instance, for comparing before with after.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Netns, bpf::BPFFS, patient};

/// The state of a namespace and of what an instance may leave on the machine: lines under headings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, Vec<String>>);

/// Tools whose output is taken, with what has to be left out of it because it changes by itself.
const TOOLS: &[(&str, &[&str])] = &[
    ("ip", &["-o", "link", "show"]),
    ("ip", &["-o", "addr", "show"]),
    ("ip", &["-4", "route", "show", "table", "all"]),
    ("ip", &["-6", "route", "show", "table", "all"]),
    ("ip", &["-4", "rule", "show"]),
    ("ip", &["-6", "rule", "show"]),
    ("bridge", &["vlan", "show"]),
    ("nft", &["--stateless", "list", "ruleset"]),
    ("iptables-save", &[]),
    ("ip6tables-save", &[]),
    ("iptables-legacy-save", &[]),
    ("bpftool", &["net", "show"]),
];

impl Snapshot {
    /// Takes the state of `ns`, and the files, pins and namespaces of `instance`.
    pub fn take(ns: &Netns, instance: &str) -> Self {
        let mut sections = BTreeMap::new();
        for (tool, args) in TOOLS {
            let output = ns.output_of(tool, args).unwrap_or_else(|| "(not available)".into());
            let lines = output.lines().filter_map(stable).collect();
            sections.insert(format!("{tool} {}", args.join(" ")).trim_end().to_owned(), lines);
        }
        sections.insert("sysctl net".into(), ns.run(sysctls));
        ns.run(|| {
            for dir in places(instance) {
                let files = files_below(&dir).iter().map(|f| f.display().to_string()).collect();
                sections.insert(dir.display().to_string(), files);
            }
            sections.insert("network namespaces".into(), namespaces(instance));
        });
        Self(sections)
    }

    /// The lines that `after` lacks or has more, under their headings; nothing when there are none.
    pub fn difference(&self, after: &Self) -> Option<String> {
        let mut text = String::new();
        let none = Vec::new();
        for heading in self.0.keys().chain(after.0.keys().filter(|k| !self.0.contains_key(*k))) {
            let (old, new) = (self.0.get(heading).unwrap_or(&none), after.0.get(heading).unwrap_or(&none));
            if old != new {
                let _ = writeln!(text, "== {heading}");
                let (gone, come) = (without(old, new), without(new, old));
                if gone.is_empty() && come.is_empty() {
                    let _ = writeln!(text, "(the same lines in another order or number)");
                }
                gone.iter().for_each(|l| _ = writeln!(text, "- {l}"));
                come.iter().for_each(|l| _ = writeln!(text, "+ {l}"));
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// Waits until the state is this one again: the kernel finishes removing links, namespaces and programs
    /// after the call that asked for it.
    ///
    /// # Panics
    /// When it is not after 10 s, with the difference.
    pub fn assert_restored(&self, ns: &Netns, instance: &str, after_what: &str) {
        let deadline = Instant::now() + patient(Duration::from_secs(10));
        loop {
            let Some(difference) = self.difference(&Self::take(ns, instance)) else { return };
            assert!(Instant::now() < deadline, "{after_what}: the host is not as before\n{difference}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn without(lines: &[String], other: &[String]) -> Vec<String> {
    lines.iter().filter(|l| !other.contains(l)).cloned().collect()
}

/// Leaves out what changes without anybody's doing: counters and dates of rulesets, and IPv6 link-local
/// addresses with their routes, which come and go with the carrier.
fn stable(line: &str) -> Option<String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') || line.contains("fe80::") || line.contains("ff00::/8") {
        return None;
    }
    // ":INPUT ACCEPT [12:840]"
    let line = if line.starts_with(':') { line.split(" [").next().unwrap_or(line) } else { line };
    Some(without_ids(line))
}

/// Hides the numbers of programs and links, which a restarted daemon replaces: "eth0(2) tcx/ingress
/// from_uplink prog_id 45 link_id 9".
fn without_ids(line: &str) -> String {
    let mut words: Vec<_> = line.split(' ').collect();
    for at in 1..words.len() {
        if ["prog_id", "link_id"].contains(&words[at - 1]) {
            words[at] = "*";
        }
    }
    words.join(" ")
}

/// Every readable setting of the namespace that the calling thread is in.
fn sysctls() -> Vec<String> {
    let root = Path::new("/proc/sys/net");
    let mut settings = Vec::new();
    for family in ["ipv4", "ipv6", "bridge", "core"] {
        for file in files_below(&root.join(family)) {
            // Some can only be written, or not without a key having been set.
            if let Ok(value) = fs::read_to_string(&file) {
                let key = file.strip_prefix(root).unwrap_or(&file).display().to_string();
                settings.push(format!("{key} = {}", value.trim_end()));
            }
        }
    }
    settings
}

/// Directories that an instance keeps things in.
pub(crate) fn places(instance: &str) -> [PathBuf; 3] {
    ["/run", "/var/lib", BPFFS].map(|dir| Path::new(dir).join(instance))
}

/// Namespaces of an instance that are visible to iproute2.
pub(crate) fn namespaces(instance: &str) -> Vec<String> {
    let prefix = format!("{instance}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|n| n.starts_with(&prefix)).collect();
    names.sort();
    names
}

/// Everything below a directory, the directory included, sorted; empty when there is none.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;

    const NOBODY: &str = "rnet-test-no-such-instance";

    #[test]
    fn an_idle_host_stays_as_it_is() {
        crate::require_root!();
        let host = Host::new();
        host.ns.output_of("iptables", &["-A", "INPUT", "-j", "ACCEPT"]);
        let before = Snapshot::take(&host.ns, NOBODY);
        crate::traffic::icmp::ping(&host.client, crate::topology::HOST).unwrap();
        assert_eq!(before.difference(&Snapshot::take(&host.ns, NOBODY)), None);
    }

    #[test]
    fn every_kind_of_leftover_is_found() {
        crate::require_root!();
        let host = Host::new();
        let instance = format!("rnet-t{}-{}-left", std::process::id(), crate::next_number());
        let changes: [(&str, &dyn Fn()); 6] = [
            ("+ sysctl", &|| host.ns.set_sysctl("net/ipv4/conf/eth0/forwarding", "1")),
            ("link show", &|| host.ns.ip("link add br9 type bridge")),
            ("addr show", &|| host.ns.ip("addr add 10.9.0.1/24 dev eth0")),
            ("route show", &|| host.ns.ip("route add 10.77.0.0/16 via 10.200.0.2")),
            ("rule show", &|| host.ns.ip("rule add from 10.9.0.1 table 100")),
            ("/run/", &|| fs::create_dir(Path::new("/run").join(&instance)).unwrap()),
        ];
        let mut before = Snapshot::take(&host.ns, &instance);
        for (heading, change) in changes {
            change();
            let after = Snapshot::take(&host.ns, &instance);
            let difference = before.difference(&after).unwrap_or_else(|| panic!("{heading} is not seen"));
            assert!(difference.contains(heading.trim_start_matches("+ ")), "{heading}:\n{difference}");
            before = after;
        }
        fs::remove_dir(Path::new("/run").join(&instance)).unwrap();
    }

    #[test]
    fn rules_are_seen_and_their_counters_are_not() {
        crate::require_root!();
        let host = Host::new();
        let Some(_) = host.ns.output_of("nft", &["add", "table", "inet", "t"]) else {
            return crate::skip("needs nft");
        };
        let before = Snapshot::take(&host.ns, NOBODY);
        let chain = "add chain inet t c { type filter hook input priority 0; }";
        host.ns.output_of("nft", &[chain]).unwrap();
        host.ns.output_of("nft", &["add", "rule", "inet", "t", "c", "counter", "accept"]).unwrap();
        let after = Snapshot::take(&host.ns, NOBODY);
        assert!(before.difference(&after).unwrap().contains("+ \t\tcounter"));
        crate::traffic::icmp::ping(&host.client, crate::topology::HOST).unwrap();
        assert_eq!(after.difference(&Snapshot::take(&host.ns, NOBODY)), None);
    }

    #[test]
    fn ids_and_counters_are_left_out_of_lines() {
        let tcx = "eth0(2) tcx/ingress from_uplink prog_id 45 link_id 9 ";
        assert_eq!(stable(tcx).unwrap(), "eth0(2) tcx/ingress from_uplink prog_id * link_id *");
        assert_eq!(stable(":INPUT ACCEPT [12:840]").unwrap(), ":INPUT ACCEPT");
        assert_eq!(stable("# Generated on Monday"), None);
    }

    #[test]
    fn differences_name_their_heading_and_lines() {
        let snapshot = |lines: &[&str]| {
            Snapshot([("links".to_owned(), lines.iter().map(|l| (*l).to_owned()).collect())].into())
        };
        assert_eq!(snapshot(&["a", "b"]).difference(&snapshot(&["a", "c"])).unwrap(), "== links\n- b\n+ c\n");
        assert_eq!(snapshot(&["a"]).difference(&snapshot(&["a"])), None);
        assert!(snapshot(&["a"]).difference(&snapshot(&["a", "a"])).unwrap().contains("number"));
    }
}
