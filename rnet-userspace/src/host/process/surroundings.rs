//! What a process finds around itself: a container's network, files and host name in place of the host's.
//!
//! Made in this order:
//!
//! ```text
//! network, UTS and IPC namespaces ─▶ mount namespace ─▶ root, /dev ─▶ /proc, /dev/pts, /sys ─▶ /etc/{resolv.conf,hosts,hostname}
//! ```
//!
//! A root directory is no prison: the process keeps the privileges that it was started with.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, symlink},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    unistd::{chdir, chroot, gethostname, pivot_root, sethostname},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::Launch;
use crate::controller::view::Namespaces;

/// The files that a container has of its own in `/etc`.
const FILES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];
/// The devices that every program may count on.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Moves this process, which must have one thread and be the first of a PID namespace, into surroundings of its own.
pub(super) fn make(launch: &Launch) -> Result<()> {
    enter(launch)?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // Nothing reaches the host from here. What the host unmounts goes here too: a private copy would keep file
    // systems and network namespaces alive for as long as the process runs.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .context("keep mounts to oneself")?;

    // Held as detached copies, which outlast a change of root and what is mounted over them.
    let files =
        FILES.iter().map(|name| Ok((*name, copy(&launch.dir.join(name))?))).collect::<Result<Vec<_>>>()?;
    let below_sys = below_sys()?;
    if let Some(rootfs) = &launch.rootfs {
        let devices = DEVICES
            .iter()
            .filter(|name| Path::new("/dev").join(name).exists())
            .map(|name| Ok((*name, copy(&Path::new("/dev").join(name))?)))
            .collect::<Result<Vec<_>>>()?;
        change_root(rootfs).with_context(|| format!("make {} the root", rootfs.display()))?;
        mount_dev(&devices)?;
    }
    // Shows the PID namespace that it was mounted in.
    mount_new("proc", "/proc", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None)?;
    // The container's own terminals. gid 5 is the group tty wherever there is one.
    let options = Some("newinstance,ptmxmode=0666,mode=620,gid=5");
    mount_new("devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options)?;
    mount_sys(&below_sys)?;
    for (name, file) in &files {
        put_file(file, &Path::new("/etc").join(name), launch.rootfs.is_some())?;
    }
    Ok(())
}

/// Moves this process, which must have one thread, into the surroundings of the container whose init is `pid`; its
/// children are in the PID namespace too.
pub(super) fn join(netns: Option<&Path>, pid: u32) -> Result<()> {
    let of = || format!("enter the namespaces of process {pid}");
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(of)?;
    let pidfd = pidfd_open(id, PidfdFlags::empty()).with_context(of)?;
    // The id may have passed to another process.
    let namespace = |name: &str| inode(Path::new(&format!("/proc/{pid}/ns/{name}"))).with_context(of);
    if namespace("pid")? == inode(Path::new("/proc/self/ns/pid")).with_context(of)? {
        bail!("{}: it is in no container", of());
    }
    if let Some(netns) = netns
        && namespace("net")? != inode(netns).with_context(of)?
    {
        bail!("{}: it is not in network namespace {}", of(), netns.display());
    }
    // Fails if the process that was opened is gone, whatever has its id.
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    setns(pidfd, namespaces).with_context(of)?;
    chdir("/").context("change to directory /")
}

/// Enters the namespaces that are there already.
fn enter(launch: &Launch) -> Result<()> {
    let open = |what: &str, path: &Path| {
        File::open(path).with_context(|| format!("open {what} namespace {}", path.display()))
    };
    let mut namespaces = Vec::new();
    if let Some(netns) = &launch.netns {
        namespaces.push(("network", CloneFlags::CLONE_NEWNET, open("network", netns)?));
    }
    if let Namespaces::Held(dir) = &launch.namespaces {
        namespaces.push(("UTS", CloneFlags::CLONE_NEWUTS, open("UTS", &dir.join("uts"))?));
        namespaces.push(("IPC", CloneFlags::CLONE_NEWIPC, open("IPC", &dir.join("ipc"))?));
    }
    for (what, kind, file) in namespaces {
        setns(file, kind).with_context(|| format!("enter the {what} namespace"))?;
    }
    // The host's own, but for its name.
    if launch.namespaces == Namespaces::Host
        && gethostname().context("ask for the host's name")? != *launch.hostname
    {
        unshare(CloneFlags::CLONE_NEWUTS).context("make a UTS namespace")?;
        sethostname(&launch.hostname).with_context(|| format!("set host name {}", launch.hostname))?;
    }
    Ok(())
}

fn inode(path: &Path) -> Result<(u64, u64)> {
    let file = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok((file.dev(), file.ino()))
}

/// A copy of what is at `path`, a file or a mounted tree, that is mounted nowhere.
fn copy(path: &Path) -> Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).with_context(|| format!("prepare {} to be mounted", path.display()))
}

fn put(mounted: &OwnedFd, at: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mounted.as_fd(), "", CWD, at, flags).with_context(|| format!("mount over {}", at.display()))
}

/// Puts a file over `at`. Where there is none, one is made first if `create`: a container's own root is to have
/// it, and the host's `/etc` is not to change.
fn put_file(file: &OwnedFd, at: &Path, create: bool) -> Result<()> {
    if !at.try_exists().with_context(|| format!("look for {}", at.display()))? {
        if !create {
            return Ok(());
        }
        // A link that leads nowhere, such as one to what systemd-resolved makes when it runs.
        let at = match fs::read_link(at) {
            Ok(target) => at.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => at.to_owned(),
        };
        empty_file(&at)?;
    }
    put(file, at)
}

fn empty_file(at: &Path) -> Result<()> {
    let creating = || format!("create {}", at.display());
    fs::create_dir_all(at.parent().unwrap_or(Path::new("/"))).with_context(creating)?;
    File::create(at).map(drop).with_context(creating)
}

fn change_root(rootfs: &Path) -> Result<()> {
    // A root has to be a mount.
    mount(Some(rootfs), rootfs, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .context("mount it")?;
    chdir(rootfs).context("change to it")?;
    match pivot_root(".", ".") {
        // The old root lies on top of the new one.
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).context("leave the old root")?,
        // An initial ramdisk cannot be left, only covered.
        Err(nix::Error::EINVAL) => {
            mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                .context("cover the old root")?;
            chroot(".").context("change the root")?;
        }
        Err(error) => return Err(error).context("change the root"),
    }
    chdir("/").context("change to directory /")
}

fn mount_dev(devices: &[(&str, OwnedFd)]) -> Result<()> {
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new("tmpfs", "/dev", MsFlags::MS_NOSUID, Some("mode=755,size=64k"))?;
    for (name, device) in devices {
        let at = Path::new("/dev").join(name);
        empty_file(&at)?;
        put(device, &at)?;
    }
    mount_new("tmpfs", "/dev/shm", options | MsFlags::MS_NODEV, Some("mode=1777"))?;
    for (target, link) in [
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(target, link).with_context(|| format!("create {link}"))?;
    }
    Ok(())
}

/// Mounts `/sys` anew, because `/sys/class/net` shows the network namespace that it was mounted in, and what
/// was mounted below it, such as cgroups and bpffs, again.
fn mount_sys(below: &[(PathBuf, OwnedFd)]) -> Result<()> {
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("sysfs", "/sys", options, None)?;
    for (path, mounted) in below.iter().filter(|(path, _)| path.is_dir()) {
        put(mounted, path)?;
    }
    Ok(())
}

/// What is mounted below `/sys`, each with all that is mounted below itself.
fn below_sys() -> Result<Vec<(PathBuf, OwnedFd)>> {
    let mounts = "/proc/self/mountinfo";
    let text = fs::read_to_string(mounts).with_context(|| format!("read {mounts}"))?;
    tops_below_sys(&text).into_iter().map(|path| Ok((path.clone(), copy(&path)?))).collect()
}

pub(in crate::host) fn tops_below_sys(mountinfo: &str) -> Vec<PathBuf> {
    // Field 5 is the mount point. Those that the kernel escapes, with spaces and the like, do not occur there.
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut below: Vec<&Path> = points.filter(|p| p.starts_with("/sys") && *p != Path::new("/sys")).collect();
    below.sort_unstable();
    below.dedup();
    let mut tops: Vec<PathBuf> = Vec::new();
    for path in below {
        if !tops.last().is_some_and(|top| path.starts_with(top)) {
            tops.push(path.to_owned());
        }
    }
    tops
}

/// Mounts a new file system, on a directory that is made if need be.
fn mount_new(kind: &str, at: &str, flags: MsFlags, options: Option<&str>) -> Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("create directory {at}"));
        }
        Ok(()) | Err(_) => {}
    }
    mount(Some(kind), at, Some(kind), flags, options).with_context(|| format!("mount {kind} on {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_sys_are_found_without_those_below_them() {
        let mountinfo = "22 1 0:20 / / rw - ext4 /dev/vda rw\n\
            23 22 0:21 / /sys rw - sysfs sysfs rw\n\
            31 30 0:29 / /sys/kernel/debug/tracing rw - tracefs tracefs rw\n\
            30 23 0:28 / /sys/kernel/debug rw - debugfs debugfs rw\n\
            32 23 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
            33 23 0:31 / /sys/fs/bpf rw - bpf bpf rw\n\
            34 23 0:32 / /sys/fs/bpf rw - bpf bpf rw\n\
            35 22 0:33 / /system rw - tmpfs tmpfs rw\n";
        let tops = ["/sys/fs/bpf", "/sys/fs/cgroup", "/sys/kernel/debug"].map(PathBuf::from);
        assert_eq!(tops_below_sys(mountinfo), tops);
    }
}
