//! Network namespaces with names, kept as iproute2 keeps them: each a bind mount below `/run/netns`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    fs::{FlockOperation, FsWord, flock, fstatfs},
    io::{Errno, retry_on_intr},
    mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount},
};

use super::{netlink::Netlink, or_undo};

pub(super) const DIRECTORY: &str = "/run/netns";

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

// NS_GET_NSTYPE of linux/nsfs.h.
nix::ioctl_none!(namespace_type, 0xb7, 3);

/// Where a namespace of this name is, or would be.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Makes a namespace with its loopback up. A failure leaves nothing.
pub(super) fn create(name: &str) -> Result<PathBuf> {
    check_name(name)?;
    let path = path(name);
    prepare_directory().with_context(|| format!("prepare {DIRECTORY}"))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o000).open(&path) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; remove it with `ip netns delete {name}`", path.display())
        }
        Err(e) => return Err(e).with_context(|| format!("create {}", path.display())),
    }
    let made = on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("make a namespace")?;
        // Not /proc/self, which is the process's first thread.
        mount_bind("/proc/thread-self/ns/net", &path)
            .with_context(|| format!("mount it on {}", path.display()))?;
        let netlink = Netlink::open()?;
        let loopback = netlink.existing_link("lo")?.header.index;
        netlink.set_up(loopback).context("bring up lo")
    });
    or_undo(made, || delete(name))?;
    Ok(path)
}

/// Takes a namespace's name away, if there is one of that name.
pub(super) fn delete(name: &str) -> Result<()> {
    check_name(name)?;
    let path = path(name);
    match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Nothing there, or a file that nothing is mounted on.
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(e) => return Err(e).with_context(|| format!("unmount {}", path.display())),
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether `path` is a live network namespace. That this can't be told, for want of descriptors or memory, is an error.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    use ErrorKind::{NotADirectory, NotFound, PermissionDenied};

    // A fifo would keep an ordinary open waiting.
    match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => is_netns(&file),
        // The last of a file that a namespace was to be mounted on.
        Err(e) if [NotFound, NotADirectory, PermissionDenied].contains(&e.kind()) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The number of the namespace at `path`, which no other has as long as it lives.
pub(super) fn id(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;

    let of = || format!("look at network namespace {}", path.display());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).with_context(of)?;
    if !is_netns(&file).with_context(of)? {
        bail!("{} is not a network namespace", path.display());
    }
    Ok(file.metadata().with_context(of)?.ino())
}

/// Runs `f` on a thread that is in the namespace at `path`. Sockets and files opened there stay of it.
pub(super) fn within<T: Send>(path: &Path, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_own_thread(|| {
        enter(path)?;
        f()
    })
}

/// Moves the calling thread, which has to be its caller's own ([`on_own_thread`]), into the namespace at `path`.
pub(super) fn enter(path: &Path) -> Result<()> {
    let namespace = File::open(path).with_context(|| format!("open namespace {}", path.display()))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("enter network namespace {}", path.display()))
}

/// Runs `f` on a thread that ends with it, so that the namespaces it moves to concern nobody else.
pub(super) fn on_own_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, f);
        thread.context("start a thread")?.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn check_name(name: &str) -> Result<()> {
    let is_one_component = Path::new(name).file_name().is_some_and(|file| file == name);
    if !is_one_component || name.contains('/') {
        bail!("{name:?} cannot be the name of a namespace: it has to be a file name");
    }
    Ok(())
}

/// Makes the directory a mount that passes on what is mounted in it: a namespace that is deleted in one mount
/// namespace would otherwise be kept by every other that has a copy of its mount. As iproute2 does it, and under
/// its lock.
fn prepare_directory() -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY)?;
    let lock = File::open(DIRECTORY)?;
    retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive)).context("lock it")?;
    let share = || mount_change(DIRECTORY, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        // It is no mount of its own.
        Err(Errno::INVAL) => {
            mount_bind_recursive(DIRECTORY, DIRECTORY).context("make it a mount")?;
            share().context("share its mounts")
        }
        shared => shared.context("share its mounts"),
    }
}

fn is_netns(file: &File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;

    if fstatfs(file)?.f_type != NSFS_MAGIC {
        return Ok(false);
    }
    // SAFETY: the request takes no argument and only returns a number; the descriptor is open as long as `file`
    // is borrowed, and of a file system that knows the request.
    let kind = unsafe { namespace_type(file.as_raw_fd()) }?;
    Ok(kind == CloneFlags::CLONE_NEWNET.bits())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::host::testing::{Name, in_new_netns, unless_skipped};

    fn listed(name: &str) -> bool {
        let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
        String::from_utf8(list.stdout).unwrap().lines().any(|l| l.split(' ').next() == Some(name))
    }

    #[test]
    fn a_namespace_is_listed_until_it_is_deleted() {
        unless_skipped(|| {
            let name = Name::new("life");
            assert!(!exists(&path(&name)).unwrap());
            let made = create(&name).unwrap();
            assert_eq!(made, path(&name));
            assert!(exists(&made).unwrap() && listed(&name));
            let loopback = Netlink::in_netns(&made).unwrap().existing_link("lo").unwrap();
            assert!(loopback.header.flags.contains(netlink_packet_route::link::LinkFlags::Up));

            let again = create(&name).unwrap_err();
            assert!(again.to_string().contains("is there already"), "{again:#}");
            assert!(exists(&made).unwrap(), "the failure left it alone");

            delete(&name).unwrap();
            assert!(!exists(&made).unwrap() && !made.exists() && !listed(&name));
            delete(&name).unwrap();
        });
    }

    #[test]
    fn the_caller_stays_where_it_is() {
        in_new_netns(|| {
            let here = || fs::read_link("/proc/thread-self/ns/net").unwrap();
            let (before, name) = (here(), Name::new("stay"));
            let made = create(&name).unwrap();
            let inside = within(&made, || Ok(here())).unwrap();
            assert_eq!(here(), before);
            assert_ne!(inside, before);
        });
    }

    #[test]
    fn a_name_without_a_namespace_can_be_deleted() {
        unless_skipped(|| {
            let name = Name::new("stale");
            prepare_directory().unwrap();
            File::create(path(&name)).unwrap();
            assert!(!exists(&path(&name)).unwrap());
            delete(&name).unwrap();
            assert!(!path(&name).exists());
        });
    }

    #[test]
    fn other_files_are_not_network_namespaces() {
        for other in ["/proc/self/ns/uts", "/proc/self/stat", "/", "/nonexistent"] {
            assert!(!exists(Path::new(other)).unwrap(), "{other}");
        }
        assert!(exists(Path::new("/proc/self/ns/net")).unwrap());
    }

    #[test]
    fn a_name_is_a_file_name() {
        for bad in ["", ".", "..", "a/b", "/a", "a/"] {
            let error = delete(bad).unwrap_err();
            assert!(error.to_string().contains("cannot be the name of a namespace"), "{bad}: {error}");
        }
    }
}
