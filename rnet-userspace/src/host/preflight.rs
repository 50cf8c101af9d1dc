//! What rnet needs of the machine before it starts.

use std::{
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{getsockopt, sockopt::GetStruct};
use rustix::{
    fs::{CWD, FsWord, Mode, OFlags, fstatfs, openat, statfs},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsmount, fsopen, mount},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

/// The oldest kernel whose tcx hooks and `BPF_FIB_LOOKUP_SRC` the datapath is built on.
const OLDEST: (u32, u32) = (6, 7);
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of linux/magic.h.
pub(super) const BPF_FS_MAGIC: FsWord = 0xcafe_4a11;
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// Refuses a machine or a user that rnet cannot work for.
///
/// # Errors
/// The user is not root, or the kernel is too old.
pub fn preflight() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("rnet needs root, to make network namespaces and load eBPF programs; run it with sudo");
    }
    check_release(&release()?)
}

/// The kernel's release.
///
/// # Errors
/// The kernel does not tell.
pub fn release() -> Result<String> {
    let file = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    Ok(release.trim_end().to_owned())
}

/// The directory of pinned maps and programs, mounted if it was not.
///
/// # Errors
/// It is not there, or cannot be mounted.
pub fn ensure_bpffs() -> Result<PathBuf> {
    ensure_bpffs_on(Path::new(BPFFS))?;
    Ok(BPFFS.into())
}

/// The root of the cgroup2 hierarchy, as this process sees it, wherever it is mounted, and if it is mounted
/// nowhere.
///
/// # Errors
/// The kernel has none.
pub fn cgroup2() -> Result<OwnedFd> {
    let mounts = fs::read("/proc/thread-self/mountinfo").context("read /proc/thread-self/mountinfo")?;
    let open = |mount: PathBuf| {
        let root =
            openat(CWD, mount, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // Something else may be mounted over it.
        (fstatfs(&root).ok()?.f_type == CGROUP2_SUPER_MAGIC).then_some(root)
    };
    match cgroup2_roots(&mounts).find_map(open) {
        Some(root) => Ok(root),
        None => detached_cgroup2().context("mount the cgroup2 hierarchy, which is mounted nowhere"),
    }
}

/// The number by which eBPF programs know the calling thread's network namespace. No other has it until the
/// machine is restarted.
///
/// # Errors
/// The kernel does not know of it.
pub fn netns_cookie() -> Result<u64> {
    // Any socket is of its thread's namespace.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context("open a socket")?;
    getsockopt(&socket, NetnsCookie).context("ask for the network namespace's cookie")
}

/// The socket option of that name.
#[derive(Clone, Copy, Debug)]
struct NetnsCookie;

nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64, GetStruct<u64>);

/// Refuses a release that is too old.
///
/// # Errors
/// It is too old, or none.
pub fn check_release(release: &str) -> Result<()> {
    let (major, minor) = OLDEST;
    match version(release) {
        Some(version) if version >= OLDEST => Ok(()),
        Some(_) => bail!(
            "kernel {release} is too old: rnet needs Linux {major}.{minor} or later (tcx, BPF_FIB_LOOKUP_SRC)"
        ),
        None => bail!("kernel {release:?} has no version number: rnet needs Linux {major}.{minor} or later"),
    }
}

/// The first two numbers of a release: `6.1.0-18-amd64`, `6.8-rc1`, `6.18.44+`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn ensure_bpffs_on(directory: &Path) -> Result<()> {
    let is_bpffs = || statfs(directory).map(|fs| fs.f_type == BPF_FS_MAGIC);
    let what =
        || format!("{} is not there: is sysfs mounted, and the kernel built with eBPF?", directory.display());
    if is_bpffs().with_context(what)? {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", directory, "bpf", flags, c"mode=0700").with_context(|| {
        let directory = directory.display();
        format!("mount bpffs on {directory}; try `mount -t bpf bpf {directory}`")
    })
}

/// Where a cgroup2 hierarchy is mounted whole, by the text of a mountinfo (proc_pid_mountinfo(5)).
pub(super) fn cgroup2_roots(mounts: &[u8]) -> impl Iterator<Item = PathBuf> {
    mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        // Mount id, parent, device; then the part of the file system that is mounted, and where.
        let (root, place) = (fields.nth(3)?, fields.next()?);
        // Options and optional fields up to a hyphen, then the file system.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (root == b"/" && kind == b"cgroup2")
            .then(|| PathBuf::from(std::ffi::OsString::from_vec(unescape(place))))
    })
}

/// Spaces, tabs, line ends and backslashes are written in octal: `\040`.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    plain
}

/// The hierarchy without a place in the file system.
fn detached_cgroup2() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    // That descriptor is only a path, which cannot be attached to; this one keeps the hierarchy in use.
    openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use nix::sched::CloneFlags;
    use rustix::mount::{MountPropagationFlags, mount_change};

    use super::*;
    use crate::host::testing::{in_new_namespaces, in_new_netns, unless_skipped};

    #[test]
    fn a_release_is_new_enough_or_refused() {
        for good in ["6.7.0", "6.18.44-fc-v669", "6.8-rc1", "6.10.3+", "7.0.0", "10.1"] {
            check_release(good).unwrap();
        }
        for old in ["5.10.0", "6.1.0-18-amd64", "6.6.99", "4.19"] {
            let error = check_release(old).unwrap_err().to_string();
            let wanted =
                format!("kernel {old} is too old: rnet needs Linux 6.7 or later (tcx, BPF_FIB_LOOKUP_SRC)");
            assert_eq!(error, wanted);
        }
        for bad in ["", "6", "six.seven", "6.", "6.x"] {
            assert!(check_release(bad).unwrap_err().to_string().contains("no version number"), "{bad}");
        }
    }

    #[test]
    fn preflight_asks_for_root_only() {
        let outcome = preflight();
        if rustix::process::geteuid().is_root() {
            outcome.unwrap();
        } else {
            assert!(outcome.unwrap_err().to_string().contains("root"));
        }
    }

    #[test]
    fn bpffs_is_mounted_once() {
        in_new_namespaces(CloneFlags::CLONE_NEWNS, || {
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let mounts = || {
                let all = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                all.lines().filter(|line| line.contains(directory.path().to_str().unwrap())).count()
            };
            ensure_bpffs_on(directory.path()).unwrap();
            assert_eq!(statfs(directory.path()).unwrap().f_type, BPF_FS_MAGIC);
            assert_eq!(mounts(), 1);
            ensure_bpffs_on(directory.path()).unwrap();
            assert_eq!(mounts(), 1);
            rustix::mount::unmount(directory.path(), rustix::mount::UnmountFlags::DETACH).unwrap();

            let missing = directory.path().join("missing");
            let error = ensure_bpffs_on(&missing).unwrap_err().to_string();
            assert!(error.contains("is not there"), "{error}");
        });
    }

    #[test]
    fn whole_cgroup2_hierarchies_are_found() {
        let mounts = b"\
22 28 0:21 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
23 28 0:22 /system.slice /run/part rw - cgroup2 cgroup2 rw
24 28 0:22 / /sys/fs/cgroup/a\\040b\\134 rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate
25 28 8:1 / / rw - ext4 /dev/cgroup2 rw
";
        assert_eq!(cgroup2_roots(mounts).collect::<Vec<_>>(), [PathBuf::from("/sys/fs/cgroup/a b\\")]);
        assert_eq!(cgroup2_roots(b"garbage\n\n").count(), 0);
        assert_eq!(unescape(br"\9x\04"), br"\9x\04");
    }

    #[test]
    fn the_root_cgroup_is_the_same_mounted_or_not() {
        unless_skipped(|| {
            let (mounted, detached) = (cgroup2().unwrap(), detached_cgroup2().unwrap());
            for root in [&mounted, &detached] {
                assert_eq!(fstatfs(root).unwrap().f_type, CGROUP2_SUPER_MAGIC);
                openat(root, "cgroup.procs", OFlags::RDONLY, Mode::empty()).unwrap();
            }
            let inode = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
            assert_eq!(inode(&mounted), inode(&detached));
        });
    }

    #[test]
    fn a_namespace_has_a_cookie_of_its_own() {
        in_new_netns(|| {
            let own = netns_cookie().unwrap();
            assert_eq!(netns_cookie().unwrap(), own);
            let elsewhere = std::thread::spawn(|| {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
                netns_cookie().unwrap()
            });
            assert_ne!(elsewhere.join().unwrap(), own);
        });
    }
}
