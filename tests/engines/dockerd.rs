//! Docker, with iptables and its proxy.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::Duration,
};

use testbed::{
    Stop,
    engine::{Dockerd, Machine},
    traffic::tcp,
};

#[test]
fn a_published_port_is_reached_from_outside_and_nothing_is_left() {
    testbed::require_engines!();
    let machine = Machine::new();
    let name = machine.cgroup().to_owned();
    let dockerd = Dockerd::start(&machine, &[]);
    let web = dockerd.run("web", &["-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&machine.ns, web.at(80));
    tcp::ask(&machine.client, machine.at(8080));
    assert_eq!(server.peers()[1].ip(), testbed::topology::CLIENT, "iptables keeps the source");
    assert_eq!(dockerd.line(&["port", "web", "80/tcp"]).lines().next(), Some("0.0.0.0:8080"));
    let (processes, groups) = Machine::remains(&name);
    assert!(processes >= 4 && groups >= 1, "{processes} processes and {groups} control groups");
    drop(server);
    drop(dockerd);
    drop(machine);
    assert_eq!(Machine::remains(&name), (0, 0));
}

#[test]
fn a_panic_leaves_nothing_either() {
    testbed::require_engines!();
    let (tell, told) = std::sync::mpsc::channel();
    let failing = thread::spawn(move || {
        let machine = Machine::new();
        let dockerd = Dockerd::start(&machine, &["--iptables=false", "--ip6tables=false"]);
        dockerd.run("left", &[]);
        dockerd.kill9();
        tell.send((machine.cgroup().to_owned(), Machine::remains(machine.cgroup()))).unwrap();
        panic!("on purpose");
    });
    assert!(failing.join().is_err());
    let (name, (processes, _)) = told.recv().unwrap();
    assert!(processes >= 2, "the container goes on without the daemon: {processes}");
    assert_eq!(Machine::remains(&name), (0, 0));
}

#[test]
fn containers_survive_a_crash_with_live_restore_and_not_a_restart_without() {
    testbed::require_engines!();
    let machine = Machine::new();
    let dockerd = Dockerd::start(&machine, &["--live-restore"]);
    let web = dockerd.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    dockerd.kill9();
    tcp::ask(&machine.ns, web.at(80));
    dockerd.start_daemon();
    assert_eq!(dockerd.container("web").addr, web.addr);
    tcp::ask(&machine.client, machine.at(8080));

    let plain = Machine::new();
    let dockerd = Dockerd::start(&plain, &["--userland-proxy=false"]);
    dockerd.run("web", &[]);
    dockerd.run("always", &["--restart", "always"]);
    dockerd.restart();
    assert_eq!(
        dockerd.line(&["ps", "--all", "--format", "{{.Names}} {{.State}}"]),
        "always running\nweb exited"
    );
}

#[test]
fn plugins_are_found_where_the_machine_alone_sees_them() {
    testbed::require_engines!();
    let machine = Machine::new();
    let dockerd =
        Dockerd::start(&machine, &["--iptables=false", "--ip6tables=false", "--userland-proxy=false"]);
    let socket = dockerd.plugin_sockets().join("t.sock");
    let listener = machine.ns.run(|| UnixListener::bind(&socket)).unwrap();
    dockerd.add_plugin_spec("other.spec", &format!("unix://{}", socket.display()));
    let plugin = machine.ns.spawn(move |stop| serve(&listener, stop));
    for driver in ["t", "other"] {
        let refused = dockerd.fails(&["network", "create", "--driver", driver, driver]);
        assert!(refused.contains("no networks here"), "{refused}");
    }
    let calls = plugin.stop();
    assert_eq!(calls.iter().filter(|path| *path == "/Plugin.Activate").count(), 2, "{calls:?}");
    assert!(!Path::new("/run/docker/plugins/t.sock").exists(), "the machine below has none of it");
}

/// A network driver that refuses every network. Returns what it was called for.
fn serve(listener: &UnixListener, stop: &Stop) -> Vec<String> {
    listener.set_nonblocking(true).unwrap();
    let mut calls = Vec::new();
    while !stop.requested() {
        match listener.accept() {
            Ok((stream, _)) => calls.push(answer(stream)),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    calls
}

fn answer(stream: UnixStream) -> String {
    stream.set_nonblocking(false).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap().to_owned();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let body = match path.as_str() {
        "/Plugin.Activate" => r#"{"Implements":["NetworkDriver"]}"#,
        "/NetworkDriver.GetCapabilities" => r#"{"Scope":"local","ConnectivityScope":"local"}"#,
        _ => r#"{"Err":"no networks here"}"#,
    };
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    reader.get_mut().write_all((head + body).as_bytes()).unwrap();
    path
}
