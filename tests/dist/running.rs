//! The packaged binary at work: it is linked otherwise than the one that all other tests run.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use testbed::{Host, Rnet, topology::CLIENT, traffic::tcp};

use crate::system::packages;

#[test]
fn it_names_its_commit_carries_traffic_and_resolves_names() {
    let Some(_) = packages() else { return };
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let version = rnet.ok(&["--version"]);
    let version = version.trim_end().strip_prefix("rnet ").unwrap();
    assert!(rnet.ok(&["status"]).contains(version));
    let commit = version.split_once(" (").and_then(|(_, rest)| Some(rest.split_once(", ")?.0));
    let answer = ask(&rnet, "/version");
    let expected = format!("\"GitCommit\":\"{}\"", commit.unwrap_or_default());
    assert!(answer.contains(&expected), "{answer}");

    rnet.ok(&["network", "create", "front"]);
    let web = rnet.run("web", &["--network", "front", "-p", "8080:80"]);
    let server = tcp::echo(&web.ns, "0.0.0.0:80");
    let stream = tcp::connect(&host.client, host.at(8080)).unwrap();
    tcp::exchange(&stream, 1 << 20, 1);
    assert_eq!(server.peers(), [stream.local_addr().unwrap()]);
    assert_eq!(stream.local_addr().unwrap().ip(), CLIENT);

    let found = rnet.ok(&["run", "--rm", "--network", "front", "getent", "ahostsv4", "web"]);
    assert!(found.contains(&web.addr.to_string()), "{found}");
    rnet.ok(&["run", "-d", "--name", "app", "sleep", "600"]);
    assert!(rnet.ok(&["exec", "app", "ps", "-e"]).contains("sleep"), "in the container's process namespace");
    rnet.down();
}

fn ask(rnet: &Rnet<'_>, path: &str) -> String {
    let mut stream = UnixStream::connect(rnet.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
