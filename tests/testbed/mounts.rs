//! A mount namespace: what a machine has of its own below `/run`, `/etc`, `/var/lib`, `/opt` and `/sys`, so that
//! programs that insist on such paths can be run side by side, and leave nothing on the machine below.
//!
//! `/run` is empty. `/etc`, `/var/lib` and `/opt` show what the machine has, and keep changes to themselves. `/sys`
//! shows the network namespace's interfaces; the security modules' files are left out of it, with which container
//! engines would load profiles into the kernel. Everything that is written is in memory, and gone with the last
//! process inside. `/tmp` and all else are the machine's.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Netns, bpf};

/// Directories whose changes are kept apart.
const OVERLAID: [&str; 3] = ["/etc", "/var/lib", "/opt"];
/// What is mounted below `/sys` and still wanted there.
const KEPT_IN_SYS: [&str; 2] = ["fs/cgroup", "fs/bpf"];
/// How long killed processes may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// A mount namespace, and the end of everything inside it.
#[derive(Debug)]
pub(crate) struct Mounts {
    pub(crate) file: File,
    tag: String,
    tree: Option<PathBuf>,
}

impl Mounts {
    /// Makes one for a network namespace. `tree` is another system's, whose `/usr` takes the place of the machine's.
    pub(crate) fn new(ns: &Netns, tree: Option<PathBuf>) -> Self {
        bpf::ensure_bpffs();
        let tag = format!("rnet-t{}-{}-machine", std::process::id(), crate::next_number());
        let file = ns.run(|| {
            // A thread that has ended takes its mounts with it, where nobody holds them.
            make(&tag, tree.as_deref()).and_then(|()| File::open("/proc/thread-self/ns/mnt"))
        });
        let file = file.unwrap_or_else(|e| panic!("make mounts for {}: {e}", ns.name()));
        Self { file, tag, tree }
    }

    /// A directory inside that is nobody else's, in memory.
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new("/run").join(&self.tag)
    }

    /// The other system's tree, where `/usr` is one's.
    pub(crate) fn tree(&self) -> Option<&Path> {
        self.tree.as_deref()
    }

    /// The name of the control group below which everything that the engines make is to be.
    pub(crate) fn cgroup(&self) -> &str {
        &self.tag
    }

    /// Ends everything inside, containers too, and waits until it is gone.
    pub(crate) fn end_processes(&self) {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            let inside = processes_with(&self.tag);
            if inside.is_empty() || Instant::now() > deadline {
                break;
            }
            for pid in inside {
                let _ = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.end_processes();
        remove_cgroups(&self.tag);
    }
}

fn make(tag: &str, tree: Option<&Path>) -> io::Result<()> {
    let none = None::<&str>;
    let at =
        |what: &str, outcome: nix::Result<()>| outcome.map_err(|e| io::Error::other(format!("{what}: {e}")));
    at("a mount namespace", unshare(CloneFlags::CLONE_NEWNS))?;
    at("keep mounts apart", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))?;
    // The source's name tells whose a mount is, in a container too.
    at("tmpfs on /run", mount(Some(tag), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")))?;
    let own = Path::new("/run").join(tag);
    fs::create_dir_all("/run/lock")?;
    fs::create_dir_all("/run/netns")?;
    for dir in OVERLAID {
        let changes = own.join("changes").join(dir.trim_start_matches('/'));
        let (upper, work) = (changes.join("upper"), changes.join("work"));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let options = format!("lowerdir={dir},upperdir={},workdir={}", upper.display(), work.display());
        at(dir, mount(Some(tag), dir, Some("overlay"), MsFlags::empty(), Some(options.as_str())))?;
    }
    let old = own.join("sys");
    fs::create_dir(&old)?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    at("bind /sys", mount(Some("/sys"), &old, none, bind, none))?;
    at("sysfs", mount(Some(tag), "/sys", Some("sysfs"), MsFlags::empty(), none))?;
    for below in KEPT_IN_SYS {
        at(below, mount(Some(&old.join(below)), &Path::new("/sys").join(below), none, bind, none))?;
    }
    at("unmount the old /sys", umount2(&old, MntFlags::MNT_DETACH))?;
    if let Some(tree) = tree {
        at("bind /usr", mount(Some(&tree.join("usr")), "/usr", none, bind, none))?;
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        at("make /usr read-only", mount(none, "/usr", none, read_only, none))?;
    }
    Ok(())
}

/// Processes that see a mount of this name: those inside, and those in containers that were made from there.
pub(crate) fn processes_with(tag: &str) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let sees = |pid: i32| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
        mounts.contains(tag).then_some(Pid::from_raw(pid))
    };
    processes.filter_map(|entry| sees(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Removes the control groups of this name, in each hierarchy.
fn remove_cgroups(tag: &str) {
    for group in cgroups(tag) {
        // A group is busy until the kernel has done with its last process.
        wait_until_removed(&group);
    }
}

/// The control groups of this name.
pub(crate) fn cgroups(tag: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    hierarchies.chain([root.to_owned()]).map(|dir| dir.join(tag)).filter(|dir| dir.is_dir()).collect()
}

fn wait_until_removed(group: &Path) {
    let deadline = Instant::now() + END_LIMIT;
    while remove_tree(group).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Control groups have files that can't be removed, and go with their directory.
fn remove_tree(group: &Path) -> io::Result<()> {
    let below = fs::read_dir(group)?.filter_map(Result::ok);
    for dir in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&dir.path())?;
    }
    fs::remove_dir(group)
}
