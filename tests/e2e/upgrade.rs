//! One daemon takes over from another while packets flow; and tables of another layout.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use testbed::{
    Host, Netns, Rnet, Task,
    topology::CLIENT,
    traffic::{Failure, tcp, udp},
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Something that is done again and again until it is stopped, and must succeed every time.
struct Again {
    what: &'static str,
    times: Arc<AtomicU64>,
    task: Task<()>,
}

impl Again {
    /// `act` is told how often it has been done; it panics when it fails, which ends the test.
    fn start(ns: &Netns, what: &'static str, act: impl Fn(u64) + Send + 'static) -> Self {
        let times = Arc::<AtomicU64>::default();
        let count = Arc::clone(&times);
        let task = ns.spawn(move |stop| {
            while !stop.requested() {
                act(count.fetch_add(1, Ordering::Relaxed));
                // Leaves the daemon a processor to start on.
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { what, times, task }
    }

    fn goes_on(&self, more: u64) {
        let goal = self.times.load(Ordering::Relaxed) + more;
        wait_until(self.what, LIMIT, || (self.times.load(Ordering::Relaxed) > goal).then_some(()));
    }
}

/// A new connection each time, from within the caller's namespace.
fn connect_once(ns: &Netns, to: std::net::SocketAddr) -> impl Fn(u64) + Send + 'static {
    let ns = Netns::open(ns.path());
    move |_| {
        tcp::ask(&ns, to);
    }
}

#[test]
fn no_packet_is_lost_and_no_connection_refused_while_daemons_come_and_go() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    let other = rnet.run("other", &[]);
    let _servers = (
        tcp::echo(&web.ns, "0.0.0.0:80"),
        udp::echo(&web.ns, "0.0.0.0:53"),
        tcp::echo(&host.client, "0.0.0.0:9000"),
    );
    let outside = (CLIENT, 9000).into();
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    let outward = tcp::connect(&other.ns, outside).unwrap();
    let datagrams = udp::connect(&host.client, host.at(5300));
    let traffic = [
        Again::start(&host.client, "a stream inwards", move |seed| tcp::exchange(&stream, 64 << 10, seed)),
        Again::start(&other.ns, "a stream outwards", move |seed| tcp::exchange(&outward, 64 << 10, seed)),
        // Each is answered before the next is sent: one that is lost fails the test.
        Again::start(&host.client, "datagrams", move |seed| udp::exchange(&datagrams, 100, seed)),
        Again::start(&host.client, "connections from outside", connect_once(&host.client, host.at(8080))),
        Again::start(
            &host.ns,
            "connections of the host",
            connect_once(&host.ns, "127.0.0.1:8080".parse().unwrap()),
        ),
        Again::start(&other.ns, "connections to outside", connect_once(&other.ns, outside)),
        Again::start(&other.ns, "connections to a neighbour", connect_once(&other.ns, web.at(80))),
    ];
    let goes_on = || traffic.iter().for_each(|again| again.goes_on(5));
    goes_on();
    for _ in 0..3 {
        rnet.terminate();
        goes_on();
        rnet.start_daemon();
        goes_on();
        rnet.kill9();
        goes_on();
        rnet.start_daemon();
        goes_on();
    }
    for again in traffic {
        again.task.stop();
    }
}

/// Where an instance's tables are, and where those of an older layout would be.
fn layouts(rnet: &Rnet<'_>) -> (PathBuf, PathBuf) {
    let own = rnet.json(&["status"])[0]["pins"].as_str().map(PathBuf::from).unwrap();
    let older = own.with_file_name("v0");
    (own, older)
}

#[test]
fn tables_of_another_layout_are_left_alone_until_somebody_gives_them_up() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let (own, older) = layouts(&rnet);
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    rnet.kill9();
    // As if an older rnet had made them.
    fs::rename(&own, &older).unwrap();

    let line = rnet.fails(&["daemon"]);
    for part in [older.to_str().unwrap(), "--replace-layout", "`rnet down`"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!own.exists() && older.exists());
    tcp::exchange(&stream, 100_000, 1);
    tcp::ask(&host.client, host.at(8080));

    rnet.start_daemon_with(&["--replace-layout"]);
    assert!(own.exists() && !older.exists());
    assert_eq!(rnet.ok(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n");
    tcp::ask(&host.client, host.at(8080));
    rnet.terminate();
    rnet.start_daemon();
    rnet.ok(&["rm", "-f", "web"]);
    assert_eq!(tcp::connect(&host.client, host.at(8080)).unwrap_err(), Failure::Refused);
}

#[test]
fn an_empty_instance_is_not_made_beside_tables_of_another_layout() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let newer = Path::new("/sys/fs/bpf").join(rnet.instance()).join("v999");
    fs::create_dir_all(&newer).unwrap();
    assert!(rnet.fails(&["daemon"]).contains("v999 holds the tables of an rnet of another version"));
    rnet.start_daemon_with(&["--replace-layout"]);
    assert!(!newer.exists());
    rnet.down();
    assert!(!newer.parent().unwrap().exists());
}
