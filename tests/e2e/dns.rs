//! Names of containers, and of everybody else, through the servers on the networks' gateways.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    str::FromStr,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType, rdata},
};
use testbed::{Host, Netns, Rnet, Task, topology::CLIENT, traffic::udp, uninterrupted, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
    query
}

/// Asks the server at `server` from inside `ns`, by UDP.
fn ask(ns: &Netns, server: &str, name: &str, kind: RecordType) -> Message {
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    let query = query(name, kind);
    let bytes = query.to_vec().unwrap();
    let reply = ns.run(move || {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.send_to(&bytes, server).unwrap();
        let mut buffer = [0; 4096];
        let (len, from) =
            uninterrupted(|| socket.recv_from(&mut buffer)).unwrap_or_else(|e| panic!("ask {server}: {e}"));
        assert_eq!(from, server);
        buffer[..len].to_vec()
    });
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, query.metadata.id);
    reply
}

fn ask_by_tcp(ns: &Netns, server: &str, name: &str, kind: RecordType) -> Message {
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    let bytes = query(name, kind).to_vec().unwrap();
    let reply = ns.run(move || {
        let mut stream = TcpStream::connect_timeout(&server, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
            .write_all(&[&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes.as_slice()].concat())
            .unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut reply = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut reply).unwrap();
        reply
    });
    Message::from_vec(&reply).unwrap()
}

/// The addresses, or names, that a name has, sorted.
fn answers(reply: &Message) -> Vec<String> {
    let mut answers: Vec<_> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    answers.sort();
    answers
}

fn looked_up(ns: &Netns, server: &str, name: &str) -> Vec<String> {
    answers(&ask(ns, server, name, RecordType::A))
}

fn code(ns: &Netns, server: &str, name: &str) -> ResponseCode {
    ask(ns, server, name, RecordType::A).metadata.response_code
}

/// A name server of the outside, which knows one address for every name.
fn upstream(ns: &Netns, addr: IpAddr) -> Task<()> {
    ns.spawn(move |stop| {
        let socket = UdpSocket::bind((addr, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut buffer = [0; 4096];
        while !stop.requested() {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
            let asked = Message::from_vec(&buffer[..len]).unwrap();
            let name = asked.queries[0].name().clone();
            let mut reply = asked.into_response();
            let data = RData::A(rdata::A::from_str("203.0.113.7").unwrap());
            reply.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
            socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
        }
    })
}

const N1: [&str; 8] =
    ["network", "create", "--ipv6", "--subnet", "10.88.0.0/24", "--subnet", "fd00:88::/64", "n1"];

#[test]
fn containers_find_one_another_by_every_name_and_address() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&N1);
    let id = rnet.ok(&["run", "-d", "--name", "web", "--network", "n1", "--network-alias", "www"]);
    let web = rnet.container("web");
    let app = rnet.run("app", &["--network", "n1"]);
    let addr = [web.addr.to_string()];
    for name in ["web.", "WEB.", "www.", "web.n1.", &format!("{}.", &id[..12])] {
        assert_eq!(looked_up(&app.ns, "10.88.0.1", name), addr, "{name}");
    }
    let six = answers(&ask(&app.ns, "fd00:88::1", "web.", RecordType::AAAA));
    assert_eq!(six.len(), 1);
    assert!(six[0].starts_with("fd00:88::"), "{six:?}");
    let [a, b, c, d] = web.addr.octets();
    let back = ask(&app.ns, "10.88.0.1", &format!("{d}.{c}.{b}.{a}.in-addr.arpa."), RecordType::PTR);
    assert_eq!(answers(&back), ["web.n1."]);
    let none = ask(&app.ns, "10.88.0.1", "web.", RecordType::MX);
    assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(answers(&ask_by_tcp(&app.ns, "10.88.0.1", "web.", RecordType::A)), addr);
    // As programs do it.
    let printed = rnet.ok(&["exec", "app", "getent", "ahostsv4", "web"]);
    assert!(printed.starts_with(&addr[0]), "{printed}");

    rnet.kill9();
    rnet.start_daemon();
    wait_until("names are answered after a restart", LIMIT, || {
        let reached =
            app.ns.run(|| TcpStream::connect_timeout(&"10.88.0.1:53".parse().unwrap(), LIMIT).is_ok());
        reached.then_some(())
    });
    assert_eq!(looked_up(&app.ns, "10.88.0.1", "www."), addr);
    rnet.ok(&["rm", "-f", "web"]);
    assert_ne!(code(&app.ns, "10.88.0.1", "web."), ResponseCode::NoError, "it is gone");
}

#[test]
fn names_are_the_networks_own_and_the_rest_is_asked_outside() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let _upstream = upstream(&host.client, CLIENT.into());
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    rnet.ok(&["network", "create", "--subnet", "10.89.0.0/24", "--internal", "n2"]);
    let dns = CLIENT.to_string();
    let web = rnet.run("web", &["--network", "n1", "--dns", &dns]);
    let inside = rnet.run("inside", &["--network", "n2", "--dns", &dns]);
    let both = rnet.run("both", &["--network", "n1", "--network", "n2", "--dns", &dns]);
    assert_eq!(looked_up(&web.ns, "10.88.0.1", "example.org."), ["203.0.113.7"]);
    assert_eq!(looked_up(&web.ns, "10.88.0.1", "inside."), ["203.0.113.7"], "no name of its own networks'");
    assert_eq!(code(&inside.ns, "10.89.0.1", "example.org."), ResponseCode::ServFail);
    assert_eq!(looked_up(&both.ns, "10.88.0.1", "inside."), [inside.addr.to_string()]);
    assert_eq!(looked_up(&both.ns, "10.89.0.1", "web."), [web.addr.to_string()]);
    // Whoever is no container of a network with names is told nothing.
    let default = rnet.run("default", &[]);
    assert_eq!(code(&default.ns, "10.88.0.1", "web."), ResponseCode::Refused);
}

#[test]
fn names_are_answered_where_containers_may_not_talk_to_one_another() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let closed = "com.docker.network.bridge.enable_icc=false";
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "-o", closed, "n1"]);
    let web = rnet.run("web", &["--network", "n1"]);
    let app = rnet.run("app", &["--network", "n1"]);
    assert_eq!(looked_up(&app.ns, "10.88.0.1", "web."), [web.addr.to_string()]);
}

#[test]
fn a_name_server_can_be_published_beside_the_networks_own() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    let web = rnet.run("web", &["--network", "n1"]);
    wait_until("names are answered", LIMIT, || {
        let reached =
            web.ns.run(|| TcpStream::connect_timeout(&"10.88.0.1:53".parse().unwrap(), LIMIT).is_ok());
        reached.then_some(())
    });
    let theirs = rnet.run("theirs", &["-p", "53:53/udp", "-p", "53:53"]);
    let _server = udp::echo(&theirs.ns, "0.0.0.0:53");
    udp::exchange(&udp::connect(&host.client, host.at(53)), 100, 1);
    assert_eq!(looked_up(&web.ns, "10.88.0.1", "web."), [web.addr.to_string()]);
    // The other way round.
    rnet.ok(&["network", "create", "--subnet", "10.89.0.0/24", "n2"]);
    let app = rnet.run("app", &["--network", "n2"]);
    wait_until("names are answered on the new network", LIMIT, || {
        let reached =
            app.ns.run(|| TcpStream::connect_timeout(&"10.89.0.1:53".parse().unwrap(), LIMIT).is_ok());
        reached.then_some(())
    });
    assert_eq!(looked_up(&app.ns, "10.89.0.1", "app."), [app.addr.to_string()]);
    udp::exchange(&udp::connect(&host.client, host.at(53)), 100, 2);
}
