//! Network namespaces, and code that runs inside them.

use std::{
    fs::{self, File},
    io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};

use crate::{mounts::Mounts, process};

/// How long a tool such as `ip` may take.
const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// A network namespace that iproute2 shows by name.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    file: File,
    made_here: bool,
    mounts: Option<Mounts>,
}

impl Netns {
    /// Makes a namespace with loopback up. `role` becomes part of its name. Removed on drop.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(role: &str) -> Self {
        let name = format!("rnet-t{}-{}-{role}", std::process::id(), crate::next_number());
        // iproute2 also makes /run/netns a shared mount, under a lock, when it is the first to need it.
        let mut add = Command::new("ip");
        add.args(["netns", "add", &name]);
        process::run(add, TOOL_LIMIT).assert_ok("make a network namespace");
        let mut ns = Self::open(Path::new("/run/netns").join(&name));
        ns.made_here = true;
        // Without duplicate address detection no address is ever "tentative", which would make two snapshots
        // of one state differ.
        ns.set_sysctl("net/ipv6/conf/all/accept_dad", "0");
        ns.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
        ns.ip("link set lo up");
        ns
    }

    /// A namespace that somebody else made; it is left alone on drop.
    ///
    /// # Panics
    /// When there is none at `path`.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let file = File::open(&path).unwrap_or_else(|e| panic!("open namespace {}: {e}", path.display()));
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, path, file, made_here: false, mounts: None }
    }

    /// Its name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it mounts of its own, which whatever is run inside sees from here on.
    pub(crate) fn make_mounts(&mut self, tree: Option<PathBuf>) {
        self.mounts = Some(Mounts::new(self, tree));
    }

    /// Its own mounts, where it has any.
    pub(crate) fn mounts(&self) -> Option<&Mounts> {
        self.mounts.as_ref()
    }

    fn inside(&self) -> Inside {
        let share = |file: &File| {
            file.try_clone().unwrap_or_else(|e| panic!("keep namespace {} open: {e}", self.name))
        };
        Inside { network: share(&self.file), mounts: self.mounts.as_ref().map(|mounts| share(&mounts.file)) }
    }

    /// Runs `f` inside, on a thread of its own, and passes on its result or its panic. Sockets and files opened
    /// there stay inside when they are used elsewhere.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.inside().enter().unwrap_or_else(|e| panic!("enter namespace {}: {e}", self.name));
                    f()
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs `f` inside, in the background. It must look at its [`Stop`] at least every 100 ms or so.
    pub fn spawn<T: Send + 'static>(&self, f: impl FnOnce(&Stop) -> T + Send + 'static) -> Task<T> {
        let stop = Stop(Arc::default());
        let (inner, name) = (stop.clone(), self.name.clone());
        let inside = self.inside();
        let thread = thread::spawn(move || {
            inside.enter().unwrap_or_else(|e| panic!("enter namespace {name}: {e}"));
            f(&inner)
        });
        Task { stop, thread: Some(thread) }
    }

    /// A command whose process runs inside this network namespace, and inside its mount namespace where it has one of
    /// its own, and leaves every other namespace as it is: `ip netns exec` also remounts `/sys`, which hides bpffs.
    /// The process does not outlive the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_with(program, || Ok(()))
    }

    /// The same as a user other than root, without any group or capability.
    pub fn command_as(&self, program: impl AsRef<std::ffi::OsStr>, id: u32) -> Command {
        self.command_with(program, move || {
            setgroups(&[])?;
            setgid(Gid::from_raw(id))?;
            setuid(Uid::from_raw(id))
        })
    }

    fn command_with(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        then: impl Fn() -> nix::Result<()> + Send + Sync + 'static,
    ) -> Command {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(program);
        let inside = self.inside();
        let prepare = move || {
            inside.enter()?;
            then()?;
            // Last: the kernel clears it when the process changes its user.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec `prepare` makes system calls only (setns, unshare, setgroups, setgid,
        // setuid, prctl on the child's only thread); it neither allocates nor takes a lock.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// Runs `ip` commands inside, one a line, without the leading `ip`.
    ///
    /// # Panics
    /// When one fails.
    pub fn ip(&self, commands: &str) {
        for line in commands.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let mut ip = self.command("ip");
            ip.args(line.split_whitespace());
            process::run(ip, TOOL_LIMIT).assert_ok(&format!("ip {line}, in {}", self.name));
        }
    }

    /// What a tool prints inside, or nothing when it is not installed or fails.
    pub fn output_of(&self, program: &str, args: &[&str]) -> Option<String> {
        let mut command = self.command(program);
        command.args(args);
        let finished = process::try_run(command, TOOL_LIMIT)?;
        finished.status.success().then_some(finished.stdout)
    }

    /// The Ethernet address of an interface.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let link = self.output_of("ip", &["-o", "link", "show", "dev", interface]).unwrap_or_default();
        let mac = link.split_whitespace().skip_while(|w| *w != "link/ether").nth(1).unwrap_or_default();
        let octets = mac.split(':').map(|o| u8::from_str_radix(o, 16)).collect::<Result<Vec<_>, _>>();
        let octets = octets.ok().and_then(|o| o.try_into().ok());
        octets.unwrap_or_else(|| panic!("{interface} of {} has no Ethernet address: {link:?}", self.name))
    }

    /// Reads a sysctl; `key` as below `/proc/sys`, with slashes.
    ///
    /// # Panics
    /// When there is none.
    pub fn sysctl(&self, key: &str) -> String {
        // The kernel resolves /proc/sys/net by the thread that opens it.
        self.run(|| fs::read_to_string(Path::new("/proc/sys").join(key)))
            .unwrap_or_else(|e| panic!("read sysctl {key} in {}: {e}", self.name))
            .trim_end()
            .to_owned()
    }

    /// Sets a sysctl.
    ///
    /// # Panics
    /// When it cannot be set.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(Path::new("/proc/sys").join(key), value))
            .unwrap_or_else(|e| panic!("set sysctl {key} in {} to {value}: {e}", self.name));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // What runs inside would keep the namespace.
        drop(self.mounts.take());
        if self.made_here {
            remove_named(&self.path);
        }
    }
}

/// Takes away a namespace's name, as `ip netns del` does. What still runs inside keeps the namespace itself.
pub(crate) fn remove_named(path: &Path) {
    // Best effort, as it also runs while a test fails. There may be nothing mounted, or nothing at all.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// The namespaces that a thread or a process is to be in.
struct Inside {
    network: File,
    mounts: Option<File>,
}

impl Inside {
    /// Makes system calls only.
    fn enter(&self) -> io::Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        if let Some(mounts) = &self.mounts {
            // Threads share a working directory, and only who has one of its own may change mount namespaces.
            unshare(CloneFlags::CLONE_FS)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
        }
        Ok(())
    }
}

/// Tells a background task that it is to end.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether it is to end.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that runs in the background; stopped and waited for on drop.
#[derive(Debug)]
pub struct Task<T> {
    stop: Stop,
    thread: Option<thread::JoinHandle<T>>,
}

impl<T> Task<T> {
    /// Stops it and returns its result.
    ///
    /// # Panics
    /// When it panicked.
    pub fn stop(mut self) -> T {
        self.stop.0.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop and drop take the thread, and both end it");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn listed(name: &str) -> bool {
        let mut list = Command::new("ip");
        list.args(["netns", "list"]);
        let list = process::run(list, TOOL_LIMIT);
        list.stdout.lines().any(|l| l.split(' ').next() == Some(name))
    }

    #[test]
    fn a_namespace_is_listed_while_it_lives_and_gone_after_a_panic() {
        crate::require_root!();
        let (tell, told) = std::sync::mpsc::channel();
        let outcome = thread::spawn(move || {
            let ns = Netns::new("panic");
            tell.send((ns.name().to_owned(), listed(ns.name()))).unwrap();
            ns.run(|| panic!("from inside"));
        })
        .join();
        assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"from inside"));
        let (name, was_listed) = told.recv().unwrap();
        assert!(was_listed);
        assert!(!listed(&name));
    }

    #[test]
    fn code_processes_and_sysctls_are_inside() {
        crate::require_root!();
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        let _held = a.run(|| TcpListener::bind("127.0.0.1:7").unwrap());
        assert!(a.run(|| TcpListener::bind("127.0.0.1:7").is_err()), "loopback is up and the port taken");
        assert!(b.run(|| TcpListener::bind("127.0.0.1:7").is_ok()));
        a.ip("link add only-a type bridge");
        assert!(a.output_of("ip", &["link"]).unwrap().contains("only-a"));
        assert!(!b.output_of("ip", &["link"]).unwrap().contains("only-a"));
        a.set_sysctl("net/ipv4/ip_forward", "1");
        assert_eq!(
            (a.sysctl("net/ipv4/ip_forward"), b.sysctl("net/ipv4/ip_forward")),
            ("1".into(), "0".into())
        );
        assert_eq!(a.output_of("no-such-tool", &[]), None);
    }

    #[test]
    fn a_command_may_run_as_somebody_else() {
        crate::require_root!();
        let ns = Netns::new("nobody");
        let mut id = ns.command_as("id", 65534);
        id.arg("-u");
        assert_eq!(process::run(id, TOOL_LIMIT).stdout, "65534\n");
    }

    #[test]
    fn a_task_is_told_to_stop() {
        crate::require_root!();
        let ns = Netns::new("task");
        let task = ns.spawn(|stop| {
            while !stop.requested() {
                thread::sleep(Duration::from_millis(1));
            }
            42
        });
        assert_eq!(task.stop(), 42);
    }
}
