//! Whose a host port is.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    time::Duration,
};

use testbed::{
    Host, Rnet,
    traffic::{tcp, udp},
    wait_until,
};

fn bind_tcp(host: &Host, addr: &str) -> io::Result<TcpListener> {
    host.ns.run(|| TcpListener::bind(addr))
}

fn bind_udp(host: &Host, addr: &str) -> io::Result<UdpSocket> {
    host.ns.run(|| UdpSocket::bind(addr))
}

#[test]
fn a_published_port_is_taken_for_host_programs_until_the_container_is_gone() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    for addr in ["0.0.0.0:8080", "10.200.0.1:8080", "127.0.0.1:8080"] {
        assert_eq!(bind_tcp(&host, addr).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{addr}/tcp");
    }
    assert_eq!(bind_udp(&host, "0.0.0.0:5300").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(bind_tcp(&host, "0.0.0.0:5300").expect("only 5300/udp is published"));
    drop(bind_udp(&host, "0.0.0.0:8080").expect("only 8080/tcp is published"));
    drop(
        host.client
            .run(|| TcpListener::bind("0.0.0.0:8080"))
            .expect("other namespaces have ports of their own"),
    );

    rnet.ok(&["rm", "-f", "web"]);
    let bound =
        wait_until("8080/tcp is free again", Duration::from_secs(5), || bind_tcp(&host, "0.0.0.0:8080").ok());
    drop(bound);
    drop(bind_udp(&host, "0.0.0.0:5300").expect("5300/udp is free again"));
}

#[test]
fn a_port_published_on_one_address_is_free_on_the_others() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("c1", &["-p", "10.200.0.9:8080:80"]);
    assert_eq!(bind_tcp(&host, "10.200.0.9:8080").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(bind_tcp(&host, "0.0.0.0:8080").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(bind_tcp(&host, "10.200.0.1:8080").expect("another address"));
    let c2 = rnet.run("c2", &["-p", "10.200.0.1:8080:80"]);
    let _server = tcp::echo(&c2.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
}

#[test]
fn a_port_of_another_container_is_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &["-p", "8080:80"]);
    let _server = tcp::echo(&c1.ns, "0.0.0.0:80");
    for spec in ["8080:81", "0.0.0.0:8080:81", "10.200.0.9:8080:81"] {
        let line = rnet.fails(&["run", "-d", "--name", "other", "-p", spec]);
        assert!(line.contains("8080") && line.contains("already allocated"), "{spec}: {line}");
    }
    assert!(!rnet.ok(&["ps", "-a"]).contains("other"), "what was refused leaves no container");
    tcp::ask(&host.client, host.at(8080));
    rnet.run("other", &["-p", "8080:81/udp"]);
}

#[test]
fn a_port_of_a_host_program_is_refused_and_the_program_named() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let (listener, socket) =
        (bind_tcp(&host, "0.0.0.0:8080").unwrap(), bind_udp(&host, "10.200.0.9:5300").unwrap());
    let me = std::process::id().to_string();
    for (spec, port) in [("8080:80", "0.0.0.0:8080/tcp"), ("5300:53/udp", "0.0.0.0:5300/udp")] {
        let line = rnet.fails(&["run", "-d", "--name", "c1", "-p", spec]);
        assert!(line.contains(port) && line.contains("address already in use"), "{line}");
        assert!(line.contains(&me), "the holder's process id {me} is named: {line}");
    }
    drop((listener, socket));
    // A process that another test is just starting has copies of the sockets until it runs its program.
    wait_until("the ports are free", Duration::from_secs(10), || {
        let run = rnet.cmd(&["run", "-d", "--name", "c1", "-p", "8080:80", "-p", "5300:53/udp"]);
        run.status.success().then_some(())
    });
}

#[test]
fn an_address_that_is_not_the_hosts_is_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let line = rnet.fails(&["run", "-d", "--name", "c1", "-p", "10.77.0.1:8080:80"]);
    assert!(line.contains("10.77.0.1:8080") && line.contains("cannot assign requested address"), "{line}");
}

#[test]
fn one_refused_port_undoes_the_others() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let taken = bind_tcp(&host, "0.0.0.0:8082").unwrap();
    rnet.fails(&["run", "-d", "--name", "c1", "-p", "8081:80", "-p", "8082:80", "-p", "8083:80"]);
    for addr in ["0.0.0.0:8081", "0.0.0.0:8083"] {
        drop(bind_tcp(&host, addr).unwrap_or_else(|e| panic!("{addr} is free: {e}")));
    }
    drop(taken);
}

#[test]
fn an_open_host_port_is_chosen_told_and_kept() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "80", "-p", "53/udp"]);
    let _servers = (tcp::echo(&web.ns, "0.0.0.0:80"), udp::echo(&web.ns, "0.0.0.0:53"));
    let told = rnet.ok(&["port", "web"]);
    let port = |container: &str| -> u16 {
        let line = told.lines().find_map(|l| l.strip_prefix(&format!("{container} -> 0.0.0.0:")));
        line.and_then(|p| p.parse().ok()).unwrap_or_else(|| panic!("{container} in {told}"))
    };
    tcp::ask(&host.client, host.at(port("80/tcp")));
    let dns = host.at(port("53/udp"));
    assert_eq!(udp::ask_unconnected(&host.client, dns), Ok(dns));
    rnet.kill9();
    rnet.start_daemon();
    assert_eq!(rnet.ok(&["port", "web"]), told);
}

#[test]
fn ranges_are_published_port_by_port() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let c1 = rnet.run("c1", &["-p", "7000-7002:8000-8002"]);
    let servers = [8000, 8001, 8002].map(|port| tcp::echo(&c1.ns, &format!("0.0.0.0:{port}")));
    for (port, server) in (7000..).zip(&servers) {
        let client = tcp::ask(&host.client, host.at(port));
        assert_eq!(server.peers(), [client], "port {port}");
    }
    // One of a range, the first that is free.
    rnet.run("c2", &["-p", "7002-7004:80"]);
    assert_eq!(rnet.ok(&["port", "c2", "80"]), "0.0.0.0:7003\n");
}
