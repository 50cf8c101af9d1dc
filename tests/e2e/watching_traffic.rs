//! What those who watch see: metrics, `rnet stats` of containers and `rnet top`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::AsFd as _,
    process::Stdio,
    time::Duration,
};

use nix::sys::termios::{LocalFlags, tcgetattr};
use testbed::{
    Host, Rnet,
    pty::{read_until, terminal},
    traffic::tcp,
    wait_until,
};

const SOON: Duration = Duration::from_secs(20);

fn scrape(host: &Host, port: u16) -> String {
    host.ns.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn metrics_tell_what_the_datapath_has_done() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    rnet.start_daemon_with(&["--metrics-addr", "127.0.0.1:9323"]);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let connection = tcp::connect(&host.client, host.at(8080)).unwrap();
    let text = wait_until("a round of the collector has seen the flow", SOON, || {
        let text = scrape(&host, 9323);
        (value(&text, "rnet_container_flows{container=\"web\"}") == Some(1.0)).then_some(text)
    });
    drop(connection);
    let published = "rnet_packets_total{program=\"from_uplink\",verdict=\"carried\",reason=\"published\"}";
    assert!(value(&text, published).unwrap() >= 2.0, "{text}");
    assert_eq!(value(&text, "rnet_published_port_connections_total{container=\"web\"}"), Some(1.0));
    let received =
        "rnet_endpoint_receive_bytes_total{container=\"web\",network=\"bridge\",interface=\"eth0\"}";
    assert!(value(&text, received).unwrap() > 0.0, "what was redirected into it is counted: {text}");
    assert_eq!(value(&text, "rnet_table_entries{table=\"flows\",family=\"ipv4\"}"), Some(2.0));
    assert_eq!(value(&text, "rnet_table_entries{table=\"ports\",family=\"ipv4\"}"), Some(1.0));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn containers_traffic_is_shown_once_or_as_json() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    rnet.run("other", &[]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    tcp::ask(&host.client, host.at(8080));
    let rows = rnet.json(&["stats", "--no-stream", "web"]);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0]["name"].as_str(), rows[0]["opened"].as_u64()), (Some("web"), Some(1)));
    assert!(rows[0]["rx_bytes"].as_u64().unwrap() > 0 && rows[0]["tx_bytes"].as_u64().unwrap() > 0);
    assert_eq!(rnet.json(&["stats", "--all", "--no-stream"]).len(), 2);
    let told = rnet.fails(&["stats", "--no-stream", "nobody"]);
    assert!(told.contains("no such container: nobody"), "{told}");
    // As ever: the datapath's counters.
    assert!(rnet.json(&["stats"]).iter().any(|counter| counter["reason"] == "published"));
}

#[test]
fn top_prints_every_view_without_a_terminal() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let _open = tcp::connect(&host.client, host.at(8080)).unwrap();
    let shown = rnet.ok(&["top", "-b", "-n", "1"]);
    for part in [
        "containers, by bytes",
        "published ports, by",
        "0.0.0.0:8080",
        "flows, by",
        "drops, by",
        "established",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains('\x1b'), "nothing for a terminal: {shown}");
    let told = rnet.fails(&["top"]);
    assert!(told.contains("--batch"), "{told}");
}

/// `end` is typed; nothing is a SIGTERM.
fn top_at_a_terminal(rnet: &Rnet<'_>, end: Option<&[u8]>) {
    let (mut outside, inside) = terminal(30, 120);
    let side = || Stdio::from(inside.try_clone().unwrap());
    let mut command = rnet.command(&["top"]);
    command.stdin(side()).stdout(side()).stderr(side());
    let mut top = command.spawn().unwrap();
    read_until(&mut outside, "containers, by bytes", SOON);
    for (key, shown) in [
        (&b"\t"[..], "published ports, by bytes"),
        (b"k", "by packets"),
        (b"p", "(paused)"),
        (b"p", "by packets"),
        (b"\t", "flows, by packets"),
        (b"\t", "drops, by packets"),
    ] {
        outside.write_all(key).unwrap();
        read_until(&mut outside, shown, SOON);
    }
    match end {
        Some(keys) => outside.write_all(keys).unwrap(),
        None => {
            let pid = nix::unistd::Pid::from_raw(top.id().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
        }
    }
    read_until(&mut outside, "\x1b[?1049l", SOON);
    let status = wait_until("rnet top ends", SOON, || top.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{end:?}");
    let settings = tcgetattr(inside.as_fd()).unwrap().local_flags;
    assert!(settings.contains(LocalFlags::ICANON | LocalFlags::ECHO), "the terminal is as it was");
}

#[test]
fn top_is_driven_by_keys_and_leaves_the_terminal_as_it_was() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("web", &["-p", "8080:80"]);
    for end in [Some(&b"q"[..]), Some(b"\x03"), None] {
        top_at_a_terminal(&rnet, end);
    }
}
