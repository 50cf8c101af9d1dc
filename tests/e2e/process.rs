//! What runs in containers: its surroundings, its signals, its end, and whoever watches it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::Stdio,
    time::Duration,
};

use testbed::{
    Host, Rnet, Snapshot,
    pty::{read_until, terminal},
    wait_until,
};

const SOON: Duration = Duration::from_secs(20);

fn status(rnet: &Rnet<'_>, name: &str) -> (String, i64) {
    let shown: serde_json::Value = serde_json::from_str(&rnet.ok(&["inspect", name])).unwrap();
    let state = &shown[0]["State"];
    (state["Status"].as_str().unwrap().to_owned(), state["ExitCode"].as_i64().unwrap())
}

fn wait_exited(rnet: &Rnet<'_>, name: &str) -> i64 {
    wait_until(&format!("{name} has ended"), SOON, || {
        let (status, code) = status(rnet, name);
        (status == "exited").then_some(code)
    })
}

fn sh<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["run"], options, &["--", "sh", "-c", script]].concat()
}

#[test]
fn a_container_has_processes_a_name_and_files_of_its_own() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let before = Snapshot::take(&host.ns, rnet.instance());
    let script = "echo $$; cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-10; hostname; cat /etc/hostname; ls /proc | grep -c '^[0-9]'";
    let printed = rnet.ok(&sh(&["--rm", "--name", "web"], script));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        (lines[0], lines[1].trim_end()),
        ("2", "rnet shim"),
        "init is the first, and the command the second"
    );
    assert_eq!(lines[2], lines[3]);
    assert!(lines[4].parse::<u32>().unwrap() < 10, "the host's processes are not seen: {printed}");
    before.assert_restored(&host.ns, rnet.instance(), "rnet run --rm");
}

#[test]
fn orphans_are_reaped_and_all_of_them_end_with_the_command() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&sh(
        &["-d", "--name", "web"],
        "setsid sh -c 'sleep 0.1 & exit' ; setsid sleep 700 & exec sleep 600",
    ));
    wait_until("no orphan is left dead", SOON, || {
        let listed = rnet.ok(&["exec", "web", "sh", "-c", "cat /proc/[0-9]*/stat | awk '{print $2 $3}'"]);
        (!listed.contains(")Z") && listed.matches("(sleep)").count() == 2).then_some(())
    });
    rnet.ok(&["stop", "web"]);
    assert_eq!(status(&rnet, "web"), ("exited".to_owned(), 143));
    rnet.ok(&["rm", "web"]);
    let left = std::process::Command::new("pgrep").args(["-f", "sleep 700"]).output();
    assert!(left.is_ok_and(|left| left.stdout.is_empty()), "what it left behind has ended with it");
}

#[test]
fn exit_codes_are_the_commands_and_dockers() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let code = |args: &[&str]| rnet.cmd(args).status.code();
    assert_eq!(code(&sh(&["--rm"], "exit 7")), Some(7));
    assert_eq!(code(&sh(&["--rm"], "kill -9 $$")), Some(137));
    assert_eq!(code(&["run", "--rm", "--", "rnet-no-such-program"]), Some(127));
    assert_eq!(code(&["run", "--rm", "--", "/etc/passwd"]), Some(126));
    rnet.ok(&sh(&["-d", "--name", "quick"], "exit 3"));
    assert_eq!(wait_exited(&rnet, "quick"), 3);
    let told = rnet.fails(&["run", "-d", "--", "rnet-no-such-program"]);
    assert!(told.contains("rnet-no-such-program"), "{told}");
}

#[test]
fn a_command_that_ends_while_no_daemon_runs_has_its_exit_code_noted() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!("while ! test -e {}; do sleep 0.05; done; exit 9", go.display());
    rnet.ok(&sh(&["-d", "--name", "web"], &script));
    rnet.ok(&sh(&["-d", "--name", "on"], "echo started; exec sleep 600"));
    let shown: serde_json::Value = serde_json::from_str(&rnet.ok(&["inspect", "web"])).unwrap();
    let init = format!("/proc/{}", shown[0]["State"]["Pid"]);
    rnet.kill9();
    File::create(go).unwrap();
    wait_until("the command has ended", SOON, || (!std::path::Path::new(&init).exists()).then_some(()));
    rnet.start_daemon();
    assert_eq!(wait_exited(&rnet, "web"), 9);
    assert_eq!(status(&rnet, "on").0, "running");
    assert_eq!(rnet.ok(&["exec", "on", "cat", "/proc/2/comm"]), "sleep\n");
    assert_eq!(rnet.ok(&["logs", "on"]), "started\n");
}

#[test]
fn signals_to_the_client_reach_the_command() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let script = "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = rnet.command(&sh(&["--rm", "--name", "web"], script));
    command.stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(5), "term\n"));
}

#[test]
fn a_command_with_a_terminal_is_typed_at() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("web", &[]);
    for args in [&["run", "--rm", "-it", "--", "sh"][..], &["exec", "-it", "web", "sh"]] {
        let (mut outside, inside) = terminal(33, 101);
        let end = || Stdio::from(inside.try_clone().unwrap());
        let mut command = rnet.command(args);
        command.env("PS1", "$ ").stdin(end()).stdout(end()).stderr(end());
        let mut shell = command.spawn().unwrap();
        outside.write_all(b"stty size; tty; echo al''so\r").unwrap();
        let shown = read_until(&mut outside, "also", SOON);
        assert!(shown.contains("33 101") && shown.contains("/dev/pts/"), "{args:?}: {shown}");
        outside.write_all(b"sleep 600\r").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        outside.write_all(b"\x03").unwrap();
        outside.write_all(b"exit 6\r").unwrap();
        let status = wait_until(&format!("{args:?} ends"), SOON, || shell.try_wait().unwrap());
        assert_eq!(status.code(), Some(6), "{args:?}");
        let settings = settings_of(&inside);
        assert!(settings.contains(nix::sys::termios::LocalFlags::ICANON), "the terminal is as it was");
    }
    let told = rnet.cmd(&["run", "-it", "--rm", "--", "sh"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(told.stderr.contains("the input device is not a TTY"), "{}", told.stderr);
}

fn settings_of(terminal: &OwnedFd) -> nix::sys::termios::LocalFlags {
    nix::sys::termios::tcgetattr(terminal.as_fd()).unwrap().local_flags
}

#[test]
fn logs_are_followed_to_the_end() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&sh(&["-d", "--name", "web"], "for n in 1 2 3 4 5; do echo $n; sleep 0.2; done; echo end >&2"));
    let followed = rnet.ok(&["logs", "-f", "web"]);
    assert_eq!(followed, "1\n2\n3\n4\n5\nend\n");
    assert_eq!(rnet.ok(&["logs", "--tail", "2", "web"]), "5\nend\n");
}

#[test]
fn settings_are_the_containers_own() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let read =
        "cat /proc/sys/net/ipv4/conf/eth0/rp_filter /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax";
    let options = [
        "--rm",
        "--sysctl",
        "net.ipv4.conf.eth0.rp_filter=2",
        "--sysctl",
        "net.core.somaxconn=77",
        "--sysctl",
        "kernel.msgmax=4096",
    ];
    let before = host.ns.sysctl("net/core/somaxconn");
    assert_eq!(rnet.ok(&sh(&options, read)), "2\n77\n4096\n");
    assert_eq!(host.ns.sysctl("net/core/somaxconn"), before);
    let told = rnet.fails(&sh(&["-d", "--sysctl", "kernel.panic=1"], "true"));
    assert!(told.contains("sysctl 'kernel.panic' is not allowed"), "{told}");
    let told = rnet.fails(&sh(&["-d", "--sysctl", "net.ipv4.no_such=1"], "true"));
    assert!(told.contains("sysctl 'net.ipv4.no_such': this kernel has no such setting"), "{told}");
    assert_eq!(rnet.ok(&["ps", "-aq"]), "");
}

#[test]
fn the_modes_share_what_they_should_and_no_more() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&sh(&["-d", "--name", "web", "-h", "webhost"], "exec sleep 600"));
    let namespaces = "for ns in net uts ipc pid mnt; do readlink /proc/self/ns/$ns; done";
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let own = lines(rnet.ok(&["exec", "web", "sh", "-c", namespaces]));
    let shared = lines(rnet.ok(&sh(&["--rm", "--network", "container:web"], namespaces)));
    assert_eq!(shared[..3], own[..3], "network, UTS and IPC");
    assert!(shared[3] != own[3] && shared[4] != own[4], "PID and mount");
    let seen = rnet.ok(&sh(
        &["--rm", "--network", "container:web"],
        "hostname; grep -c webhost /etc/hosts; ls /sys/class/net",
    ));
    assert_eq!(seen, "webhost\n1\neth0\nlo\n");

    let seen = rnet.ok(&sh(&["--rm", "--network", "host"], "ls /sys/class/net; readlink /proc/self/ns/net"));
    let interfaces = host.ns.output_of("ls", &["/sys/class/net"]);
    let netns = host.ns.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert!(seen.ends_with(&format!("{}\n", netns.display())), "{seen}");
    assert!(seen.contains("rnet0\n"), "{seen} {interfaces:?}");

    let seen = rnet.ok(&sh(&["--rm", "--network", "none"], "ls /sys/class/net"));
    assert_eq!(seen, "lo\n");
}
