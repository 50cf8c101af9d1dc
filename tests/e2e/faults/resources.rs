//! Resources that run out or go away: what asks for more is refused as a whole, and all that runs goes on.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::process::{Resource, Rlimit, prlimit};
use testbed::{
    Host, Rnet, Snapshot,
    commands::assert_refused,
    consistency::assert_consistent,
    topology::{self, CLIENT, HOST},
    traffic::{Failure, Server, tcp},
    wait_until,
};

const SOON: Duration = Duration::from_secs(30);
const WEB: &[&str] = &["-p", "8080:80"];

/// A file system of 256 KiB.
struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        mount(Some("rnet-test"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=256k,mode=700")).unwrap();
        Self { dir: dir.to_owned() }
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }

    fn fill(&self) {
        use std::io::Write;

        let mut file = fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.dir);
    }
}

/// A host whose container `web` answers at port 8080 of the host.
struct Served<'h> {
    host: &'h Host,
    rnet: Rnet<'h>,
    _server: Server,
}

impl<'h> Served<'h> {
    fn by(host: &'h Host, rnet: Rnet<'h>) -> Self {
        let web = rnet.run("web", WEB);
        let server = tcp::echo(&web.ns, "0.0.0.0:80");
        Self { host, rnet, _server: server }
    }

    fn assert_served(&self) {
        tcp::ask(&self.host.client, self.host.at(8080));
    }

    /// A command is refused with these words, and changes nothing.
    fn assert_refused(&self, command: &[&str], why: &str) {
        let before = Snapshot::take(&self.host.ns, self.rnet.instance());
        let said = self.rnet.fails(command);
        assert!(said.contains(why), "{said:?} lacks {why:?}");
        before.assert_restored(
            &self.host.ns,
            self.rnet.instance(),
            &format!("{command:?}, which is refused"),
        );
        self.assert_served();
    }
}

const NETWORK: &[&str] = &["network", "create", "--subnet", "10.88.0.0/24", "a"];
const CONNECT: &[&str] = &["network", "connect", "a", "web"];
const RUN: &[&str] = &["run", "-d", "--name", "other", "-p", "9000:80"];
const PUBLISH: &[&str] = &["publish", "web", "9100-9109:9100-9109"];

#[test]
fn a_full_disk_refuses_what_has_to_be_written_down() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let disk = SmallDisk::at(&Path::new("/var/lib").join(rnet.instance()));
    rnet.start_daemon();
    let served = Served::by(&host, rnet);
    let rnet = &served.rnet;
    rnet.ok(&["network", "create", "--subnet", "10.89.0.0/24", "b"]);
    rnet.run("db", &["-p", "8081:80"]);
    disk.fill();
    for command in [NETWORK, RUN, PUBLISH, &["network", "connect", "b", "web"]] {
        served.assert_refused(command, "No space left on device");
    }
    // Nothing keeps a daemon from taking over what is written down already.
    rnet.terminate();
    rnet.start_daemon();
    served.assert_served();
    assert_consistent(&host, rnet, "a daemon that finds a full disk");
    // What is removed needs no room.
    rnet.ok(&["rm", "-f", "db"]);
    rnet.ok(&["network", "rm", "b"]);
    assert_consistent(&host, rnet, "removals on a full disk");
    disk.fill();

    disk.make_room();
    for command in [NETWORK, RUN, PUBLISH, CONNECT] {
        rnet.ok(command);
    }
    assert_consistent(&host, rnet, "a disk with room again");
    served.assert_served();
    rnet.down();
}

#[test]
fn without_room_for_its_files_no_container_is_made() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let disk = SmallDisk::at(&Path::new("/run").join(rnet.instance()));
    rnet.start_daemon();
    let served = Served::by(&host, rnet);
    let rnet = &served.rnet;
    disk.fill();
    served.assert_refused(RUN, "No space left on device");
    served.assert_refused(&[RUN, &["sleep", "600"]].concat(), "No space left on device");
    disk.make_room();
    rnet.ok(&[RUN, &["sleep", "600"]].concat());
    assert_consistent(&host, rnet, "a disk with room again");
    rnet.down();
}

#[test]
fn a_bpffs_that_cannot_be_written_is_refused_and_traffic_goes_on() {
    testbed::require_root!();
    // In mounts of the daemon's own.
    const READ_ONLY: &str = "exec unshare --mount sh -ec '
        mount --bind /sys/fs/bpf /sys/fs/bpf
        mount -o remount,bind,ro /sys/fs/bpf
        exec \"$@\"' sh \"$@\"";
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let refused = rnet.try_start_daemon(READ_ONLY, &[], |_| {}).expect_err("it cannot pin anything");
    let line = assert_refused("rnet daemon", &refused);
    assert!(line.contains("/sys/fs/bpf") && line.contains("Read-only file system"), "{line}");
    before.assert_restored(&host.ns, rnet.instance(), "a daemon that could not pin anything");

    rnet.start_daemon();
    let served = Served::by(&host, rnet);
    let rnet = &served.rnet;
    let before = Snapshot::take(&host.ns, rnet.instance());
    rnet.terminate();
    let refused = rnet.try_start_daemon(READ_ONLY, &[], |_| {}).expect_err("it cannot exchange programs");
    let said = refused.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(said.contains("Read-only file system"), "{}", refused.stderr);
    served.assert_served();
    rnet.start_daemon();
    before.assert_restored(&host.ns, rnet.instance(), "a daemon that can pin again");
    served.assert_served();
}

#[test]
fn a_full_table_of_ports_takes_no_part_of_a_range() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&["--max-ports", "8"]);
    let served = Served::by(&host, rnet);
    let rnet = &served.rnet;
    served.assert_refused(PUBLISH, "max-ports");
    served.assert_refused(&["run", "-d", "--name", "other", "-p", "9100-9109:9100-9109"], "max-ports");
    host.ns.run(|| TcpListener::bind("0.0.0.0:9100")).expect("nothing is held");
    rnet.ok(&["publish", "web", "9100-9101:9100-9101"]);
    assert_consistent(&host, rnet, "a table with room again");
}

#[test]
fn without_descriptors_no_port_of_a_range_is_published() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.try_start_daemon("ulimit -n 128", &[], |_| {}).expect("it starts with few descriptors");
    let served = Served::by(&host, rnet);
    let rnet = &served.rnet;
    served.assert_refused(&["publish", "web", "9000-9199:9000-9199"], "Too many open files");
    host.ns.run(|| TcpListener::bind("0.0.0.0:9000")).expect("nothing is held");
    rnet.ok(PUBLISH);
    rnet.ok(RUN);
    assert_consistent(&host, rnet, "descriptors that are free again");
}

/// What the address space of a process may grow by (RLIMIT_AS); as it likes without a number.
fn limit_memory(process: u32, room: Option<u64>) {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let has = pages * rustix::param::page_size() as u64;
    let id = rustix::process::Pid::from_raw(process.try_into().unwrap());
    let limit = Rlimit { current: room.map(|room| has + room), maximum: None };
    prlimit(id, Resource::As, limit).unwrap();
}

/// A Rust program that gets no memory aborts, unless it is the kernel that says so.
#[test]
fn without_memory_a_daemon_refuses_or_ends_and_the_next_goes_on() {
    testbed::require_root!();
    const PORTS: &[&str] = &["publish", "web", "10000-13999:10000-13999"];
    let host = Host::new();
    let served = Served::by(&host, Rnet::start(&host));
    let rnet = &served.rnet;
    for (room, command) in [0, 1 << 20, 8 << 20].into_iter().flat_map(|room| [(room, RUN), (room, PORTS)]) {
        limit_memory(rnet.daemon_id(), Some(room));
        let what = format!("{command:?} with {room} bytes of room");
        let finished = rnet.cmd(command);
        if !finished.status.success() {
            assert_refused(&what, &finished);
        }
        served.assert_served();
        if rnet.cmd(&["status"]).status.success() {
            limit_memory(rnet.daemon_id(), None);
        } else {
            rnet.kill9();
            rnet.start_daemon();
        }
        assert_consistent(&host, rnet, &what);
        let undo: &[&str] = match command {
            RUN => &["rm", "-f", "other"],
            _ => &["unpublish", "web", "10000-13999:10000-13999"],
        };
        rnet.cmd(undo);
        rnet.ok(command);
        assert_consistent(&host, rnet, &format!("{what}, and with more"));
        rnet.ok(undo);
        served.assert_served();
    }
}

#[test]
fn an_uplink_that_goes_and_comes_back_is_served_again() {
    testbed::require_root!();
    let host = Host::new();
    let served = Served::by(&host, Rnet::start(&host));
    served.assert_served();
    for _ in 0..2 {
        host.ns.ip("link del eth0");
        // What needs no uplink goes on.
        tcp::ask(&host.ns, ([127, 0, 0, 1], 8080).into());
        served.rnet.ok(NETWORK);
        served.rnet.ok(&["network", "rm", "a"]);
        topology::join(&host.client, &host.ns, "eth0");
        host.client.ip(&format!("addr add {CLIENT}/24 dev eth0"));
        host.ns.ip(&format!("addr add {HOST}/24 dev eth0"));
        wait_until("the published port answers at the new uplink", SOON, || {
            tcp::connect(&host.client, host.at(8080)).ok()
        });
        served.assert_served();
        assert_consistent(&host, &served.rnet, "an uplink that came back");
    }
}

#[test]
fn a_container_goes_with_its_namespace_or_its_process() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let vanish = |command: &[&str], end: &dyn Fn()| {
        rnet.ok(command);
        end();
        wait_until("the container is seen to have ended", SOON, || {
            let state = rnet.ok(&["ps", "-a", "--format", "{{.State}}"]);
            (state == "exited\n").then_some(())
        });
        assert_eq!(tcp::connect(&host.client, host.at(9000)).unwrap_err(), Failure::Refused);
        host.ns.run(|| TcpListener::bind("0.0.0.0:9000")).expect("the port is free");
        rnet.ok(&["rm", "other"]);
        before.assert_restored(&host.ns, rnet.instance(), "a container whose end was not rnet's");
    };
    vanish(RUN, &|| {
        let mut delete = Command::new("ip");
        delete.args(["netns", "del", &format!("{}-other", rnet.instance())]);
        testbed::process::run(delete, SOON).assert_ok("ip netns del");
    });
    vanish(&[RUN, &["sleep", "600"]].concat(), &|| {
        let pid = rnet.ok(&["inspect", "-f", "{{.State.Pid}}", "other"]);
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
}
