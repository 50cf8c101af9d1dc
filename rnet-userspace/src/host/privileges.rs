//! Which capabilities the daemon keeps.
//!
//! They are given up by the program's only thread, before it starts others, as each thread has sets of its own. The bounding
//! set stays: what the daemon executes, as root, has the whole of it again, so that containers' commands have what those of
//! `rnet run` in the foreground have. For the same reason it does not set `no_new_privs`.

use anyhow::{Context, Result};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// A capability that the daemon cannot do without.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// Its name in capabilities(7).
    pub name: &'static str,
    /// The set with this one alone.
    pub set: CapabilitySet,
    /// What fails without it.
    pub for_what: &'static str,
}

/// All of them: docs/privileges.md says of each what shows that it is needed.
pub const DAEMON: [Needed; 5] = [
    needed("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH, "files in other users' directories"),
    needed(
        "CAP_NET_ADMIN",
        CapabilitySet::NET_ADMIN,
        "interfaces, addresses, routes, programs on interfaces",
    ),
    needed("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE, "published ports below 1024, and names"),
    needed("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN, "namespaces, mounts, eBPF programs and maps"),
    needed("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE, "namespaces of processes that have more privileges"),
];

const fn needed(name: &'static str, set: CapabilitySet, for_what: &'static str) -> Needed {
    Needed { name, set, for_what }
}

/// Keeps of this thread's capabilities those of [`DAEMON`] alone, and returns those that it never had.
///
/// # Errors
/// The kernel refuses.
pub fn restrict_daemon() -> Result<Vec<Needed>> {
    let held = capabilities(None).context("ask for the daemon's capabilities")?.permitted;
    let wanted = DAEMON.iter().fold(CapabilitySet::empty(), |all, one| all | one.set);
    keep(held & wanted)?;
    Ok(DAEMON.into_iter().filter(|one| !held.contains(one.set)).collect())
}

/// Gives up all capabilities of this thread: for what only calls the daemon.
///
/// # Errors
/// The kernel refuses.
pub fn drop_all() -> Result<()> {
    keep(CapabilitySet::empty())
}

/// The ambient set goes with the inheritable one: it can't hold what that does not.
fn keep(kept: CapabilitySet) -> Result<()> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("give up capabilities that are not needed")
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// Bits of the line of this name in this thread's status.
    fn bits(name: &str) -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
        u64::from_str_radix(line, 16).unwrap()
    }

    #[test]
    fn a_thread_keeps_what_is_listed_and_the_bounding_set_stays() {
        let outside = (bits("CapPrm"), bits("CapBnd"));
        let listed = DAEMON.iter().fold(0, |all, one| all | one.set.bits());
        // Another thread's, so that the other tests keep theirs.
        let (missing, kept, nothing) = thread::spawn(move || {
            let missing = restrict_daemon().unwrap();
            let kept = ["CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"].map(bits);
            // What has been given up does not come back.
            keep(CapabilitySet::SYS_MODULE).unwrap_err();
            drop_all().unwrap();
            (missing, kept, bits("CapPrm"))
        })
        .join()
        .unwrap();
        let held = outside.0 & listed;
        assert_eq!(kept, [held, held, 0, 0, outside.1]);
        assert_eq!(missing.len(), usize::try_from((listed & !outside.0).count_ones()).unwrap());
        assert_eq!(nothing, 0);
        assert_eq!((bits("CapPrm"), bits("CapBnd")), outside, "other threads keep theirs");
    }

    #[test]
    fn names_are_the_kernels() {
        for needed in DAEMON {
            let (constant, _) = needed.set.iter_names().next().unwrap();
            assert_eq!(needed.name, format!("CAP_{constant}"));
        }
    }
}
