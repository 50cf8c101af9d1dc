//! Commands that go on for as long as somebody looks.

use std::{fs::File, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::NamedTempFile;
use testbed::{
    Host, Rnet, container::Container, process::Process, topology::CLIENT, traffic::udp, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// A command that goes on, with its output in a file.
pub(crate) struct Watch {
    output: NamedTempFile,
    process: Process,
}

impl Watch {
    pub(crate) fn start(rnet: &Rnet<'_>, args: &[&str]) -> Self {
        let output = NamedTempFile::new().unwrap();
        let mut command = rnet.command(args);
        command.stdout(output.reopen().unwrap()).stderr(File::open("/dev/null").unwrap());
        Self { output, process: Process::start(command) }
    }

    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Ends it as Ctrl-C does, and says whether it has ended well.
    pub(crate) fn interrupt(mut self) -> bool {
        let id = Pid::from_raw(self.process.id().try_into().unwrap());
        kill(id, Signal::SIGINT).unwrap();
        self.process.wait(LIMIT).expect("it ends").success()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.output.path()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn events_are_told_as_they_happen_until_the_daemon_ends() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let mut watch = Watch::start(
        &rnet,
        &[
            "events",
            "--since",
            "0",
            "-f",
            "type=network",
            "--format",
            "{{.Action}} {{.Actor.Attributes.name}}",
        ],
    );
    rnet.ok(&["network", "create", "n1"]);
    rnet.run("web", &["--network", "n1"]);
    rnet.ok(&["rm", "-f", "web"]);
    rnet.ok(&["network", "rm", "n1"]);
    wait_until("the last is told", LIMIT, || watch.lines().contains(&"destroy n1".to_owned()).then_some(()));
    let lines = watch.lines();
    let of_n1: Vec<_> = lines.iter().filter_map(|line| line.strip_suffix(" n1")).collect();
    assert_eq!(of_n1, ["create", "connect", "disconnect", "destroy"], "{lines:?}");

    let past = rnet.ok(&["events", "--since", "1h", "--until", "0s", "-f", "container=web"]);
    let first = past.lines().next().unwrap_or_default();
    assert!(first.contains(" container create ") && first.ends_with("name=web)"), "{past}");
    let json =
        rnet.ok(&["events", "--since", "1h", "--until", "0s", "--format", "json", "-f", "event=connect"]);
    let event: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&event["Type"], &event["Actor"]["Attributes"]["name"]), (&"network".into(), &"n1".into()));

    let refused = rnet.fails(&["events", "--since", "soon"]);
    assert!(refused.contains("failed to parse value as time or duration: \"soon\""), "{refused}");
    rnet.terminate();
    let ended = watch.process.wait(LIMIT).expect("the stream ends with the daemon");
    assert!(ended.success(), "{ended}");
}

/// A container `c1` on an internal network that sends outside all the same.
pub(crate) fn run_inside(rnet: &Rnet<'_>) -> Container {
    rnet.ok(&["network", "create", "--internal", "--subnet", "10.88.0.0/24", "inside"]);
    let c1 = rnet.run("c1", &["--network", "inside"]);
    c1.ns.ip("route add default via 10.88.0.1");
    c1
}

#[test]
fn drops_are_told_as_they_happen() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = run_inside(&rnet);
    let watches =
        [&["drops", "-w"][..], &["drops", "-w", "--format", "json"]].map(|args| Watch::start(&rnet, args));
    let socket = udp::connect(&c1.ns, (CLIENT, 9).into());
    wait_until("packets are told", LIMIT, || {
        // Out of an internal network there is no way: an error of an earlier packet may be told here.
        let _ = socket.send(b"x");
        watches
            .iter()
            .all(|watch| watch.lines().iter().any(|line| line.contains("internal") && line.contains("udp")))
            .then_some(())
    });
    let [table, json] = watches.map(|watch| watch.lines());
    assert!(table[0].starts_with("TIME") && table[0].ends_with("MEANING"), "{table:?}");
    let line = table.iter().find(|line| line.contains(" internal ")).unwrap();
    for part in [
        " c1 ",
        " udp 10.88.0.",
        &format!("> {CLIENT}:9 "),
        "The network has no way out. It was created with --internal.",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let dropped: Value = serde_json::from_str(&json[0]).unwrap();
    let packet = &dropped["packet"];
    assert_eq!((&packet["verdict"], &packet["container"]), (&"dropped".into(), &"c1".into()), "{dropped}");
    assert_eq!((&packet["network"], &packet["matched"]), (&"inside".into(), &"endpoint".into()), "{dropped}");
}
