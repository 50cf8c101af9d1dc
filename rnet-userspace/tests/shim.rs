//! Processes in namespaces, through the shim that the library runs `/proc/self/exe shim SPEC` as. This program is
//! both, the test and the shim, so it has a `main` of its own.
//!
//! Needs root. Network namespaces have no names: each lives in a descriptor of this process.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports as a test harness does")]
#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    panic,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use rnet::{
    controller::view::Namespaces,
    host::process::{
        Foreground, Input, Launch, exit_code, read_status, shim_main, signal, start_time, status_file,
    },
};
use tempfile::TempDir;

const TESTS: [(&str, fn()); 10] = [
    ("the_command_has_a_network_a_host_name_and_files_of_its_own", own_surroundings),
    ("the_host_keeps_its_mounts", host_keeps_its_mounts),
    ("sys_shows_the_namespaces_interfaces_and_what_is_mounted_below", own_sys),
    ("a_root_directory_becomes_the_root", own_root),
    ("a_command_that_cannot_run_exits_as_in_a_shell", exit_codes),
    ("another_command_joins_the_first", joined),
    ("a_process_elsewhere_is_not_joined", not_joined),
    ("a_detached_command_leaves_its_output_and_exit_code", detached),
    ("a_detached_command_gets_signals_and_leaves_no_orphan", detached_signals),
    ("a_detached_command_dies_with_its_shim_or_fails_at_once", detached_failures),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, shim, spec] = arguments.as_slice()
        && shim == "shim"
    {
        process::exit(shim_main(spec).into());
    }
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("RNET_REQUIRE_ALL").is_none(), "these tests need root");
        println!("skipped: these tests need root");
        return;
    }
    let filter = arguments.iter().skip(1).find(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (name, test) in
        TESTS.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str())))
    {
        let result = panic::catch_unwind(test);
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += i32::from(result.is_err());
    }
    process::exit(i32::from(failed > 0));
}

/// A container as the controller makes one, with an interface that no other namespace has.
struct Container {
    dir: TempDir,
    _netns: File,
    launch: Launch,
}

impl Container {
    fn new() -> Self {
        let netns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            // Forked from this thread, it works in the thread's namespace.
            let link = Command::new("ip").args(["link", "add", "eth0", "type", "bridge"]).status().unwrap();
            assert!(link.success());
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in
            [("resolv.conf", "nameserver 192.0.2.53\n"), ("hosts", "10.9.8.7\tweb\n"), ("hostname", "web\n")]
        {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let launch = Launch {
            netns: Some(format!("/proc/{}/fd/{}", process::id(), netns.as_raw_fd()).into()),
            namespaces: Namespaces::Host,
            hostname: "web".into(),
            dir: dir.path().to_owned(),
            rootfs: None,
            command: Vec::new(),
            terminal: false,
        };
        Self { dir, _netns: netns, launch }
    }

    fn running(&self, command: &[&str]) -> Launch {
        Launch { command: command.iter().map(|&word| word.to_owned()).collect(), ..self.launch.clone() }
    }

    fn sh(&self, script: &str) -> Launch {
        self.running(&["sh", "-c", script])
    }

    /// What a command says that runs to its end.
    fn said(&self, script: &str) -> String {
        let said = self.dir.path().join("said");
        let code = run(&self.sh(&format!("exec >{} 2>&1; {script}", said.display())));
        let text = fs::read_to_string(said).unwrap();
        assert_eq!(code, 0, "{script}: {text}");
        text
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a detached command and waits until it has written `ready` to its log.
    fn started(&self, script: &str) -> u32 {
        let shim = self.sh(script).spawn_detached(&self.file("log"), &self.file("status")).unwrap();
        until("the command is ready", || fs::read_to_string(self.file("log")).unwrap().contains("ready"));
        shim
    }
}

fn run(launch: &Launch) -> i32 {
    code(launch.spawn(Input::default(), None).unwrap())
}

fn code(mut started: Foreground) -> i32 {
    exit_code(&started.shim.wait().unwrap())
}

/// What a process has started, and what that has.
fn descendants(pid: u32) -> Vec<(u32, u64)> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = list.split_ascii_whitespace().filter_map(|id| id.parse().ok());
    let children: Vec<(u32, u64)> = children.filter_map(|id| Some((id, started(id)?))).collect();
    let others: Vec<_> = children.iter().flat_map(|(child, _)| descendants(*child)).collect();
    [children, others].concat()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Gone, or dead and not yet waited for by who took it in.
fn started(pid: u32) -> Option<u64> {
    start_time(pid).unwrap()
}

fn gone(pid: u32, start: u64) -> bool {
    started(pid) != Some(start)
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn kill(pid: u32) {
    if let Some(start) = started(pid) {
        signal(pid, start, nix::sys::signal::SIGKILL).unwrap();
        until("it is dead", || gone(pid, start));
    }
}

fn own_surroundings() {
    let container = Container::new();
    let said = container.said("uname -n; cat /etc/hosts /etc/resolv.conf; readlink /proc/self/ns/net");
    let netns = fs::read_link(container.launch.netns.as_ref().unwrap()).unwrap();
    assert_eq!(said, format!("web\n10.9.8.7\tweb\nnameserver 192.0.2.53\n{}\n", netns.display()));
}

fn host_keeps_its_mounts() {
    let seen = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // Others may mount elsewhere meanwhile.
        let of_interest = |line: &&str| {
            let point = line.split(' ').nth(4).unwrap_or_default();
            ["/", "/sys", "/mnt"].contains(&point) || point.starts_with("/etc")
        };
        let mounts: Vec<String> = mounts.lines().filter(of_interest).map(str::to_owned).collect();
        let files =
            ["/etc/hosts", "/etc/resolv.conf"].map(|path| fs::read_to_string(path).unwrap_or_default());
        (mounts, files, nix::unistd::gethostname().unwrap())
    };
    let before = seen();
    let container = Container::new();
    container.said("mount -t tmpfs rnet-test /mnt");
    assert_eq!(seen(), before);
}

fn own_sys() {
    let container = Container::new();
    assert_eq!(container.said("ls /sys/class/net"), "eth0\nlo\n");
    let below = |text: &str| {
        let mut points: Vec<String> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| point.starts_with("/sys/"))
            .map(str::to_owned)
            .collect();
        points.sort();
        points.dedup();
        points
    };
    let host = below(&fs::read_to_string("/proc/self/mountinfo").unwrap());
    let seen = below(&container.said("cat /proc/self/mountinfo"));
    assert_eq!(seen, host);
    for point in host {
        let inode = container.said(&format!("stat -c %d:%i {point}"));
        let host = fs::metadata(&point).unwrap();
        assert_eq!(inode.trim(), format!("{}:{}", host.dev(), host.ino()), "{point}");
    }
}

/// A root with the host's programs, none of its files, and a `resolv.conf` that leads nowhere.
fn root(at: &Path) -> PathBuf {
    let root = at.join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("out")).unwrap();
    std::os::unix::fs::symlink("../run/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
    root
}

fn own_root() {
    let container = Container::new();
    let root = root(container.dir.path());
    // The root's programs are the host's, seen through mounts that only this test's own namespace has.
    let code = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
                mount_host(&root);
                let script = "exec >/out/said 2>&1; pwd; ls /; cat /etc/hosts /etc/resolv.conf; uname -n; \
                    ls /sys/class/net; echo x >/dev/null; \
                    test -c /dev/urandom && test -d /proc/1 && test -c /dev/ptmx && tr -d '\\n' </etc/hostname";
                let launch = Launch { rootfs: Some(root.clone()), ..container.sh(script) };
                run(&launch)
            })
            .join()
            .unwrap()
    });
    let said = fs::read_to_string(root.join("out/said")).unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("/\n"), "{said}");
    assert!(!said.contains("\nhome\n"), "{said}");
    assert!(said.contains("10.9.8.7\tweb\nnameserver 192.0.2.53\nweb\neth0\nlo\n"), "{said}");
    assert!(said.ends_with("web"), "{said}");
    assert_eq!(fs::read(root.join("etc/hosts")).unwrap(), b"", "the mount stays in the namespace");
}

fn mount_host(root: &Path) {
    use nix::mount::{MsFlags, mount};
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
    for name in ["usr", "bin", "lib", "lib64"] {
        let host = Path::new("/").join(name);
        match fs::read_link(&host) {
            Ok(target) => std::os::unix::fs::symlink(target, root.join(name)).unwrap(),
            Err(_) if host.is_dir() => {
                fs::create_dir(root.join(name)).unwrap();
                mount(Some(&host), &root.join(name), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            }
            Err(_) => {}
        }
    }
}

fn exit_codes() {
    let container = Container::new();
    let plain = container.file("plain");
    fs::write(&plain, "not a program").unwrap();
    assert_eq!(run(&container.sh("exit 7")), 7);
    assert_eq!(run(&container.sh("kill -9 $$")), 137);
    assert_eq!(run(&container.running(&["rnet-no-such-program"])), 127);
    assert_eq!(run(&container.running(&[plain.to_str().unwrap()])), 126);
    assert_eq!(run(&Launch { netns: Some("/nonexistent".into()), ..container.sh("exit 0") }), 125);
}

fn joined() {
    let container = Container::new();
    let script = "mount -t tmpfs rnet-test /mnt && touch /mnt/here; sleep 600";
    let mut first = container.sh(script).spawn(Input::default(), None).unwrap();
    let pid = first.running.unwrap().pid;
    // Init is pid 1 there, and this one is seen by it.
    let script = "test $(uname -n) = web && test $(ls /sys/class/net | head -1) = eth0 && pwd | grep -qx / && \
        tr '\\0' ' ' </proc/1/cmdline | grep -q '^rnet shim ' && test -d /proc/$$";
    let joined = code(container.sh(script).spawn_beside(pid, Input::default()).unwrap());
    let exists = format!("/proc/{pid}/root/mnt/here");
    until("the first has mounted", || Path::new(&exists).exists());
    let seen = code(container.sh("test -e /mnt/here").spawn_beside(pid, Input::default()).unwrap());
    // With it the kernel ends whatever is in its namespace.
    kill(pid);
    assert_eq!((joined, seen), (0, 0));
    assert_eq!(exit_code(&first.shim.wait().unwrap()), 128 + 9);
    assert_eq!(code(container.sh("true").spawn_beside(pid, Input::default()).unwrap()), 125);
}

fn not_joined() {
    let container = Container::new();
    let mut elsewhere = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
    let code = code(container.sh("true").spawn_beside(elsewhere.id(), Input::default()).unwrap());
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
    assert_eq!(code, 125);
}

fn detached() {
    let container = Container::new();
    fs::write(container.file("status"), "99\n").unwrap();
    fs::write(container.file("log"), "before\n").unwrap();
    let go = container.file("go");
    let script = format!(
        "echo ready; pwd; uname -n; wc -c; while ! test -e {}; do sleep 0.01; done; echo end >&2; exit 3",
        go.display()
    );
    let shim = container.started(&script);
    assert_eq!(read_status(&container.file("status")).unwrap(), None);
    assert_eq!(status_file(shim), Some(container.file("status")));
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(shim.cast_signed()))).unwrap();
    assert_ne!(session, nix::unistd::getsid(None).unwrap());
    assert_eq!(code(container.sh("test $(uname -n) = web").spawn_beside(shim, Input::default()).unwrap()), 0);

    fs::write(go, "").unwrap();
    until("the exit code is there", || read_status(&container.file("status")).unwrap().is_some());
    assert_eq!(read_status(&container.file("status")).unwrap(), Some(3));
    assert_eq!(fs::read_to_string(container.file("log")).unwrap(), "before\nready\n/\nweb\n0\nend\n");
    until("the shim is gone", || started(shim).is_none_or(|start| gone(shim, start)));
    assert!(!container.file("status.tmp").exists());
}

fn detached_signals() {
    let container = Container::new();
    // The orphan is in a session of its own and would outlive the command.
    let shim = container.started(
        "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; setsid sleep 600 & echo ready; while :; do sleep 0.01; done",
    );
    let start = started(shim).unwrap();
    let sleeps = || {
        descendants(shim).into_iter().find(|(pid, _)| {
            fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default() == b"sleep\x00600\x00"
        })
    };
    until("the orphan runs", || sleeps().is_some());
    let (orphan, orphan_start) = sleeps().unwrap();
    signal(shim, start, nix::sys::signal::SIGUSR1).unwrap();
    until("the signal came", || fs::read_to_string(container.file("log")).unwrap().contains("usr1"));
    signal(shim, start, nix::sys::signal::SIGTERM).unwrap();
    until("the exit code is there", || read_status(&container.file("status")).unwrap().is_some());
    assert_eq!(read_status(&container.file("status")).unwrap(), Some(5));
    // It dies with init, which ends after it has written the code.
    until("the orphan is gone", || gone(orphan, orphan_start));
}

fn detached_failures() {
    let container = Container::new();
    let shim = container.started("echo ready; exec sleep 600");
    let (command, start) = descendants(shim)[0];
    kill(shim);
    until("the command is dead", || gone(command, start));
    assert_eq!(read_status(&container.file("status")).unwrap(), None);

    let shim = container.started("echo ready; exec sleep 600");
    kill(descendants(shim)[0].0);
    until("the exit code is there", || read_status(&container.file("status")).unwrap().is_some());
    assert_eq!(read_status(&container.file("status")).unwrap(), Some(128 + 9));

    let fails = |launch: &Launch| {
        launch.spawn_detached(&container.file("log"), &container.file("status")).unwrap_err().to_string()
    };
    assert_eq!(
        fails(&container.running(&["rnet-no-such-program"])),
        "run rnet-no-such-program: No such file or directory (os error 2)"
    );
    assert_eq!(
        fails(&Launch { netns: Some("/nonexistent".into()), ..container.sh("exit 0") }),
        "open network namespace /nonexistent: No such file or directory (os error 2)"
    );
    assert_eq!(read_status(&container.file("status")).unwrap(), None);
}
