//! Clients that take more of the daemon than their part: many at once, slow ones, endless input.

use std::{
    fs::{self, Permissions},
    io::{self, Read as _, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::{Command, Stdio},
    thread,
};

use rustix::{fs::Uid, thread::set_thread_uid};
use testbed::{Host, Rnet, commands::COMMAND_LIMIT, process, wait_until};

const NOBODY: u32 = 65534;
/// Half of a request's head.
const HALF: &[u8] = b"GET /networks HT";
const ASK: &[u8] = b"GET /_ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A daemon that also listens without TLS on this host's loopback address, and its configuration's directory.
fn start(rnet: &Rnet<'_>, max_connections: Option<u32>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.json");
    let mut config = serde_json::json!({"hosts": ["tcp://127.0.0.1:2375"]});
    if let Some(most) = max_connections {
        config["rnet"] = serde_json::json!({"max-connections": most});
    }
    fs::write(&path, config.to_string()).unwrap();
    rnet.start_daemon_with(&["--config", path.to_str().unwrap()]);
    dir
}

fn connect(host: &Host) -> TcpStream {
    let stream = host.ns.run(|| TcpStream::connect("127.0.0.1:2375")).unwrap();
    stream.set_read_timeout(Some(COMMAND_LIMIT)).unwrap();
    stream
}

/// What a request is answered with, all of it.
fn ask(mut stream: impl io::Read + Write) -> String {
    // Who is refused may be so before all is written.
    let _ = stream.write_all(ASK);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Connections of a user without rights to the daemon's socket, as that of a group would have them.
fn connections_of_nobody(rnet: &Rnet<'_>, many: usize) -> Vec<UnixStream> {
    let path = rnet.socket();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let connect = move || {
        // Of this thread alone, which ends with it.
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        let connect = |_| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(COMMAND_LIMIT)).unwrap();
            let _ = stream.write_all(HALF);
            stream
        };
        (0..many).map(connect).collect()
    };
    thread::spawn(connect).join().unwrap()
}

/// Whether the daemon has hung up, or said why it will.
fn is_refused(stream: &mut UnixStream) -> bool {
    let _ = stream.write_all(b"TP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    !answer.starts_with(b"HTTP/1.1 200 ")
}

#[test]
fn many_who_never_finish_asking_keep_root_from_nothing() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let _dir = start(&rnet, None);
    // An eighth of 1024 is one client's.
    let slow: Vec<TcpStream> = (0..160)
        .map(|_| {
            let mut stream = connect(&host);
            let _ = stream.write_all(HALF);
            stream
        })
        .collect();
    let full = wait_until("the client has its part", COMMAND_LIMIT, || {
        rnet.ok(&["ps"]);
        let answer = ask(connect(&host));
        answer.starts_with("HTTP/1.1 503 ").then_some(answer)
    });
    assert!(full.contains("\r\nretry-after: 1\r\n"), "{full}");
    assert!(
        full.ends_with(
            r#"{"message":"too many connections to the API: 127.0.0.1 has 128, which is the most for one"}"#
        ),
        "{full}"
    );
    rnet.run("web", &[]);
    assert!(rnet.log().contains("a client is refused: too many connections"), "{}", rnet.log());
    drop(slow);
    wait_until("they have left", COMMAND_LIMIT, || ask(connect(&host)).ends_with("OK").then_some(()));
}

#[test]
fn a_user_who_may_use_the_socket_has_a_part_of_it() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let _dir = start(&rnet, Some(32));
    let mut held = connections_of_nobody(&rnet, 4);
    let mut beyond = connections_of_nobody(&rnet, 3);
    assert!(beyond.iter_mut().all(is_refused));
    // The others' half is not root's.
    for _ in 0..3 {
        rnet.ok(&["ps"]);
    }
    assert!(ask(connect(&host)).ends_with("OK"), "nor is it all nobody's");
    assert!(held.drain(..1).all(|mut stream| !is_refused(&mut stream)), "what is held is served");
    wait_until("there is room again", COMMAND_LIMIT, || {
        let mut again = connections_of_nobody(&rnet, 1);
        (!is_refused(&mut again[0])).then_some(())
    });
}

#[test]
fn a_daemon_out_of_descriptors_goes_on_when_there_are_some() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let limits = fs::read_to_string(format!("/proc/{}/limits", rnet.daemon_id())).unwrap();
    let before = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let before = before.split_whitespace().next().unwrap();
    // The soft limit alone.
    let limit = |files: &str| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={}", rnet.daemon_id())).arg(format!("--nofile={files}:"));
        process::run(command, COMMAND_LIMIT).assert_ok("prlimit");
    };
    limit("1");
    let mut waiting = UnixStream::connect(rnet.socket()).unwrap();
    waiting.set_read_timeout(Some(COMMAND_LIMIT)).unwrap();
    waiting.write_all(ASK).unwrap();
    wait_until("the daemon says that it cannot take connections", COMMAND_LIMIT, || {
        rnet.log().contains("connections to the API wait, as none can be taken: ").then_some(())
    });
    limit(before);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("OK"), "{answer}");
    assert_eq!(rnet.log().matches("connections to the API wait").count(), 1, "{}", rnet.log());
    rnet.ok(&["ps"]);
}

/// Runs a command whose input does not end, and returns what it says.
fn fed_without_end(mut command: Command) -> (Option<i32>, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeding = thread::spawn(move || {
        let piece = vec![b' '; 1 << 20];
        (0..1024).take_while(|_| input.write_all(&piece).is_ok()).count()
    });
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(feeding.join().unwrap() < 64, "it has read on and on");
    (status.code(), said)
}

#[test]
fn plugins_do_not_read_without_end() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let mut cni = rnet.command(&["cni"]);
    cni.envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "x"), ("CNI_NETNS", "/x"), ("CNI_IFNAME", "eth0")]);
    cni.env("CNI_PATH", "/x");
    let (code, said) = fed_without_end(cni);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["code"]), (Some(1), &serde_json::json!(5)), "{said}");
    let expected = "read the configuration: it is larger than 16777216 bytes, which is the most";
    assert_eq!(said["msg"], expected);

    let (code, said) = fed_without_end(rnet.command(&["create"]));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(said["error"], "read standard input: it is larger than 16777216 bytes, which is the most");
}
