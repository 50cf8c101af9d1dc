//! UTS and IPC namespaces without a process, each held by a bind mount.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::sethostname,
};
use rustix::{
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
};

use super::{
    netns::{on_own_thread, within},
    or_undo,
};
use crate::controller::model::sysctl;

/// The files that hold them, as `/proc/PID/ns` calls them.
const FILES: [&str; 2] = ["uts", "ipc"];

/// Makes both and holds them by files of `dir`. A failure leaves nothing.
pub(super) fn hold(dir: &Path, hostname: &str) -> Result<()> {
    let made = on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC).context("make namespaces")?;
        sethostname(hostname).with_context(|| format!("set host name {hostname}"))?;
        for name in FILES {
            let file = dir.join(name);
            File::create(&file).with_context(|| format!("create {}", file.display()))?;
            // Not /proc/self, which is the process's first thread.
            let own = Path::new("/proc/thread-self/ns").join(name);
            mount_bind(own, &file).with_context(|| format!("mount a namespace on {}", file.display()))?;
        }
        Ok(())
    });
    or_undo(made, || release(dir))
}

/// Lets go of those that `dir` holds, if it holds any.
pub(super) fn release(dir: &Path) -> Result<()> {
    for name in FILES {
        let file = dir.join(name);
        match unmount(&file, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Nothing there, or a file that nothing is mounted on.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => {}
            Err(e) => return Err(e).with_context(|| format!("unmount {}", file.display())),
        }
        match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets settings of the network namespace at `netns` and of the IPC namespace that `dir` holds.
pub(super) fn set_sysctls(netns: &Path, dir: &Path, settings: &BTreeMap<String, String>) -> Result<()> {
    let ipc = dir.join("ipc");
    let ipc = File::open(&ipc).with_context(|| format!("open {}", ipc.display()))?;
    within(netns, || {
        setns(&ipc, CloneFlags::CLONE_NEWIPC).context("enter the IPC namespace")?;
        settings.iter().try_for_each(|(key, value)| {
            let file = Path::new("/proc/sys").join(sysctl::path(key));
            match fs::write(&file, value) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    bail!("sysctl '{key}': this kernel has no such setting in a namespace")
                }
                written => written.with_context(|| format!("set sysctl '{key}' to '{value}'")),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn inode(path: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn namespaces_are_held_without_a_process_and_let_go_of() {
        let dir = tempfile::tempdir().unwrap();
        hold(dir.path(), "held").unwrap();
        for name in FILES {
            let own = Path::new("/proc/self/ns").join(name);
            assert_ne!(inode(&dir.path().join(name)), inode(&own), "{name} is the test's own");
        }
        let uts = format!("--uts={}", dir.path().join("uts").display());
        let shown = Command::new("nsenter").args([&uts, "hostname"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shown.stdout), "held\n");
        release(dir.path()).unwrap();
        release(dir.path()).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(hold(dir.path(), &"x".repeat(65)).is_err());
        assert!(hold(&dir.path().join("none"), "held").is_err());
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
