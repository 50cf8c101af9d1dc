//! What Prometheus reads, on the API and at an address of its own.

use std::{collections::BTreeMap, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::api::exporter;

/// The series of an OpenMetrics text by name and labels. What is not one is a failure: a family has its type before
/// its first series, once, and a name of it with the suffix of that type; the text ends with `# EOF`.
fn series(text: &str) -> BTreeMap<String, f64> {
    let (mut types, mut series) = (BTreeMap::new(), BTreeMap::new());
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end:\n{text}"));
    for line in body.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (family, kind) = declared.split_once(' ').unwrap();
            assert!(types.insert(family.to_owned(), kind.to_owned()).is_none(), "{family} twice");
            continue;
        }
        if line.starts_with("# HELP ") || line.starts_with("# UNIT ") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no series: {line}"));
        let bare = name.split('{').next().unwrap();
        assert!(bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        let is_declared = match bare.strip_suffix("_total") {
            Some(family) => types.get(family).is_some_and(|kind| kind == "counter"),
            None => types.get(bare).is_some_and(|kind| kind == "gauge"),
        };
        assert!(is_declared, "{line}");
        assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
    }
    series
}

async fn scrape(daemon: &Daemon) -> BTreeMap<String, f64> {
    let (status, text) = daemon.http("GET", "/metrics", None).await;
    assert_eq!(status, 200);
    series(text.as_str().unwrap())
}

#[tokio::test]
async fn a_scrape_tells_what_the_controller_and_the_daemon_know() {
    let daemon = Daemon::start().await;
    let request = CreateContainer { name: Some("web".into()), detach: true, ..CreateContainer::default() };
    daemon.client.create_container(&request).await.unwrap();
    assert_eq!(daemon.http("GET", "/rnet/containers/nobody", None).await.0, 404);
    assert_eq!(daemon.http("GET", "/no/such/page", None).await.0, 404);
    let told = scrape(&daemon).await;
    let expected = [
        (r#"rnet_packets_total{program="from_uplink",verdict="carried",reason="published"}"#, 3.0),
        (r#"rnet_bytes_total{program="from_uplink",verdict="carried",reason="published"}"#, 300.0),
        ("rnet_flows", 3.0),
        (r#"rnet_table_entries{table="flows",family="ipv4"}"#, 6.0),
        (r#"rnet_table_capacity_entries{table="ports",family="ipv4"}"#, 10.0),
        (r#"rnet_containers{state="exited"}"#, 0.0),
        (r#"rnet_container_flows{container="web"}"#, 2.0),
        (
            r#"rnet_endpoint_opened_flows{container="web",network="bridge",interface="eth0",family="ipv4"}"#,
            1.0,
        ),
        (
            r#"rnet_endpoint_flow_quota{container="web",network="bridge",interface="eth0",family="ipv4"}"#,
            100.0,
        ),
        (r#"rnet_endpoint_receive_bytes_total{container="web",network="bridge",interface="eth0"}"#, 1000.0),
        (r#"rnet_endpoint_transmit_packets_total{container="web",network="bridge",interface="eth0"}"#, 20.0),
        (r#"rnet_daemon_api_requests_total{route="/rnet/containers/{id}",code="404"}"#, 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(told.get(name), Some(&value), "{name} in {told:#?}");
    }
    assert!(
        !told.contains_key(r#"rnet_table_entries{table="ports",family="ipv4"}"#),
        "nobody has counted them"
    );
    assert!(told.keys().all(|name| !name.contains("no/such")), "routes alone become labels");
    assert!(told["rnet_daemon_start_time_seconds"] > 1.6e9);
}

#[tokio::test]
async fn rounds_of_the_collector_are_counted() {
    let daemon = Daemon::start().await;
    eventually("a round is counted", async || scrape(&daemon).await["rnet_daemon_sweeps_total"] >= 1.0).await;
    let told = scrape(&daemon).await;
    assert_eq!(told["rnet_daemon_sweeps_errors_total"], 0.0);
    assert!(told["rnet_daemon_sweeps_duration_seconds_total"] > 0.0);
}

async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // It may be refused before all of it is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn its_own_address_serves_metrics_and_nothing_else() {
    let control = FakeControl::new();
    let events = control.events.clone();
    let daemon = super::super::supervisor::Supervisor::new(
        control,
        Arc::<FakeProcesses>::default(),
        events,
        Arc::<FakePackets>::default(),
        LONG,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let served = tokio::spawn(exporter::serve(listener, daemon));
    // Says nothing, and keeps nobody waiting.
    let _silent = TcpStream::connect(addr).await.unwrap();
    let got = ask(addr, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text"), "{head}");
    assert_eq!(series(body)["rnet_flows"], 3.0);
    let post = ask(addr, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    for path in ["/rnet/status", "/rnet/down", "/", "/networks"] {
        let other = ask(addr, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(other.starts_with("HTTP/1.1 404"), "{path}: {other}");
    }
    let large = ask(addr, &format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20))).await;
    assert!(!large.starts_with("HTTP/1.1 200"), "{large}");
    served.abort();
}
