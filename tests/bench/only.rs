//! Which parts, workloads and paths a run is limited to.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// Everything that can be asked for by name.
#[derive(Debug)]
pub(crate) struct Names {
    /// Parts of the benchmark.
    pub(crate) parts: Vec<String>,
    /// Parts that run workloads over paths; among `parts`.
    pub(crate) traffic: Vec<String>,
    /// What load clients put on a path.
    pub(crate) workloads: Vec<String>,
    /// What lies between client and server.
    pub(crate) paths: Vec<String>,
}

/// What was asked for. Names limit their own kind: without any part's name all parts run, and so on.
#[derive(Debug, Default)]
pub(crate) struct Only {
    parts: BTreeSet<String>,
    workloads: BTreeSet<String>,
    paths: BTreeSet<String>,
    traffic: BTreeSet<String>,
}

impl Only {
    /// Sorts out what kind each name is of.
    ///
    /// # Errors
    /// When a name is of none; the message lists all there are.
    pub(crate) fn parse(asked: &[String], names: &Names) -> Result<Self> {
        let mut only = Self { traffic: names.traffic.iter().cloned().collect(), ..Self::default() };
        let mut unknown = Vec::new();
        for name in asked {
            let kinds = [
                (&names.parts, &mut only.parts),
                (&names.workloads, &mut only.workloads),
                (&names.paths, &mut only.paths),
            ];
            let mut known = false;
            for (all, wanted) in kinds {
                if all.contains(name) {
                    wanted.insert(name.clone());
                    known = true;
                }
            }
            if !known {
                unknown.push(format!("`{name}`"));
            }
        }
        if !unknown.is_empty() {
            bail!(
                "--only: nothing is called {}; parts: {}; workloads: {}; paths: {}",
                unknown.join(" or "),
                listed(&names.parts),
                listed(&names.workloads),
                listed(&names.paths)
            );
        }
        Ok(only)
    }

    /// Whether a part runs: it was asked for; or no part was, and either nothing else was asked for or it has
    /// workloads and paths to choose from.
    pub(crate) fn wants_part(&self, name: &str) -> bool {
        let chosen = !self.workloads.is_empty() || !self.paths.is_empty();
        if self.parts.is_empty() { !chosen || self.traffic.contains(name) } else { self.parts.contains(name) }
    }

    /// Whether a workload is run.
    pub(crate) fn wants_workload(&self, name: &str) -> bool {
        self.workloads.is_empty() || self.workloads.contains(name)
    }

    /// Whether a path is measured. What others are compared with is measured in any case.
    pub(crate) fn wants_path(&self, name: &str) -> bool {
        self.paths.is_empty() || self.paths.contains(name)
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names {
            parts: owned(&["published", "localhost", "control"]),
            traffic: owned(&["published", "localhost"]),
            workloads: owned(&["connect", "udp"]),
            paths: owned(&["iptables", "rnet"]),
        }
    }

    fn only(asked: &str) -> Only {
        let asked: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
        Only::parse(&asked, &names()).unwrap()
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        let only = only("");
        assert!(names().parts.iter().all(|part| only.wants_part(part)));
        assert!(only.wants_workload("connect") && only.wants_workload("udp"));
        assert!(only.wants_path("iptables") && only.wants_path("rnet"));
    }

    #[test]
    fn a_part_limits_parts_only() {
        let only = only("control published");
        assert!(only.wants_part("control") && only.wants_part("published") && !only.wants_part("localhost"));
        assert!(only.wants_workload("udp") && only.wants_path("rnet"));
    }

    #[test]
    fn a_workload_or_path_alone_leaves_out_parts_that_have_none() {
        let workload = only("connect");
        assert!(workload.wants_part("published") && workload.wants_part("localhost"));
        assert!(!workload.wants_part("control"));
        assert!(workload.wants_workload("connect") && !workload.wants_workload("udp"));
        assert!(workload.wants_path("iptables"));
        let path = only("rnet");
        assert!(path.wants_part("published") && !path.wants_part("control"));
        assert!(path.wants_path("rnet") && !path.wants_path("iptables") && path.wants_workload("udp"));
    }

    #[test]
    fn kinds_are_combined() {
        let only = only("localhost udp rnet control");
        assert!(only.wants_part("localhost") && only.wants_part("control") && !only.wants_part("published"));
        assert!(!only.wants_workload("connect") && !only.wants_path("iptables"));
    }

    #[test]
    fn unknown_names_are_refused_with_those_there_are() {
        let asked = ["rnet".to_owned(), "rnte".to_owned(), "tcp".to_owned()];
        assert_eq!(
            Only::parse(&asked, &names()).unwrap_err().to_string(),
            "--only: nothing is called `rnte` or `tcp`; parts: published, localhost, control; \
             workloads: connect, udp; paths: iptables, rnet"
        );
    }
}
