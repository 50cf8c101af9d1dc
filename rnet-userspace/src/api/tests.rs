//! Requests over a real socket to a daemon with a controller in memory.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
    time,
};

use self::packets::FakePackets;
use super::{
    Signal,
    client::{Client, Error},
    daemon::{Options, Parts, serve},
    fake::{FakeControl, FakeProcesses},
    supervisor::Graces,
};
use crate::controller::{model::flow_filter::FlowFilter, request::CreateContainer, view::ContainerState};

/// Longer than a test takes.
const LONG: Graces = Graces { stop: HOUR, kill: HOUR, report: HOUR };
const SHORT: Graces = Graces { stop: INSTANT, kill: HOUR, report: INSTANT };
const HOUR: Duration = Duration::from_secs(3600);
const INSTANT: Duration = Duration::from_millis(1);

mod docker;
mod metrics;
mod packets;

struct Daemon {
    dir: TempDir,
    control: Arc<FakeControl>,
    processes: Arc<FakeProcesses>,
    packets: Arc<FakePackets>,
    client: Client,
    on_change: oneshot::Receiver<super::daemon::OnChange>,
    end: oneshot::Sender<()>,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    async fn start() -> Self {
        Self::start_with(FakeControl::new(), Arc::default(), LONG).await
    }

    async fn start_with(control: Arc<FakeControl>, processes: Arc<FakeProcesses>, graces: Graces) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("rnet.sock");
        let (end, ended) = oneshot::channel::<()>();
        let (tell_on_change, on_change) = oneshot::channel();
        let run_dir = dir.path().to_owned();
        let (c, p, events) = (Arc::clone(&control), Arc::clone(&processes), control.events.clone());
        let packets = Arc::<FakePackets>::default();
        let fake = Arc::clone(&packets);
        let parts = move || {
            Ok(Parts {
                control: c,
                processes: p,
                events,
                packets: fake,
                watch: Box::new(|on_change| {
                    assert!(tell_on_change.send(on_change).is_ok());
                    Ok(Box::new(()))
                }),
                beside: Box::pin(std::future::ready(())),
                is_first: true,
                // Fails as long as something is in there.
                clean_up: Box::new(move || Ok(std::fs::remove_dir(run_dir)?)),
            })
        };
        let options = Options::new("fake", socket.clone());
        let served = tokio::spawn(serve(options, parts, graces, async {
            // Dropping the sender ends the daemon as well.
            let _ = ended.await;
        }));
        let client = Client::new(socket, "fake");
        eventually("the daemon answers", async || client.status().await.is_ok()).await;
        Self { dir, control, processes, packets, client, on_change, end, served }
    }

    fn socket(&self) -> &Path {
        self.client.socket()
    }

    /// Status and content of an answer.
    async fn http(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let json = body.map(|_| "application/json");
        self.http_as(method, path, body.unwrap_or_default().to_owned(), json).await
    }

    async fn http_as(&self, method: &str, path: &str, body: String, kind: Option<&str>) -> (u16, Value) {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "x");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
    }

    async fn refusal(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let (status, body) = self.http(method, path, body).await;
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        (status, body["message"].as_str().unwrap().to_owned())
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = time::Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(time::Instant::now() < until, "in vain: {what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ends<T>(what: &str, task: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(10), task).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

fn named(name: &str, command: &[&str]) -> CreateContainer {
    let command = command.iter().map(|&word| word.into()).collect();
    CreateContainer { name: Some(name.into()), command, ..CreateContainer::default() }
}

fn detached(name: &str, command: &[&str]) -> CreateContainer {
    CreateContainer { detach: true, ..named(name, command) }
}

#[tokio::test]
async fn every_error_has_its_status_and_dockers_body() {
    let daemon = Daemon::start().await;
    let create = "/networks/create";
    let cases = [
        ("GET", "/networks/nope", None, 404, "network nope not found"),
        ("GET", "/containers/nope/json", None, 404, "No such container: nope"),
        ("DELETE", "/networks/bridge", None, 403, "pre-defined"),
        ("POST", create, Some(r#"{"Name":"bridge"}"#), 409, "already exists"),
        ("POST", create, Some(r#"{"Name":"broken"}"#), 500, "create bridge: no space left"),
        ("POST", create, Some(r#"{"Name":"x","Driver":"overlay"}"#), 404, "no driver overlay"),
        ("POST", create, Some(r#"{"Name":"#), 400, "invalid JSON: EOF"),
        ("POST", create, Some(r#"{"Name":7}"#), 400, "invalid type: integer `7`, expected a string"),
        ("POST", create, None, 400, "must be 'application/json'"),
        ("POST", "/rnet/containers", Some(r#"{"colour":"red"}"#), 400, "unknown field `colour`"),
        ("GET", "/networks?filters=%7B%22colour%22%3A%5B%22x%22%5D%7D", None, 400, "invalid filter 'colour'"),
        ("GET", "/containers/json?filters=x", None, 400, "invalid filters x"),
        ("GET", "/containers/json?limit=x", None, 400, "invalid digit"),
        ("GET", "/networks/bridge?scope=swarm", None, 404, "network bridge not found"),
        ("GET", "/events?since=soon", None, 400, "failed to parse value as time or duration"),
        (
            "POST",
            "/networks/prune?filters=%7B%22name%22%3A%5B%22x%22%5D%7D",
            None,
            400,
            "invalid filter 'name'",
        ),
        ("POST", "/networks/nope/connect", Some(r#"{"Container":"web"}"#), 404, "network nope not found"),
        (
            "POST",
            "/networks/bridge/connect",
            Some(r#"{"Container":"ghost"}"#),
            404,
            "No such container: ghost",
        ),
        ("POST", "/networks/bridge/connect", Some("{}"), 400, "invalid container name or ID: value is empty"),
        ("POST", "/networks/bridge/disconnect", Some(r#"{"Container":"ghost"}"#), 404, "No such container"),
        ("GET", "/images/json", None, 404, "page not found"),
        ("PUT", "/networks", None, 405, "not allowed"),
        ("GET", "/v1.99/networks", None, 400, "too new"),
        ("DELETE", "/rnet/containers/nope?force=1&x=2", None, 400, "unknown field `x`"),
    ];
    for (method, path, body, status, message) in cases {
        let refusal = daemon.refusal(method, path, body).await;
        assert_eq!(refusal.0, status, "{method} {path}: {}", refusal.1);
        assert!(refusal.1.contains(message), "{method} {path}: {}", refusal.1);
    }
    assert_eq!(daemon.control.networks.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let daemon = Daemon::start().await;
    let body = |pad: usize| format!(r#"{{"Name":"n","Labels":{{"x":"{}"}}}}"#, "y".repeat(pad));
    let json = Some("application/json");
    let (status, answer) = daemon.http_as("POST", "/networks/create", body(1 << 20), json).await;
    assert_eq!((status, &answer["message"]), (413, &json!("request body is larger than 1048576 bytes")));
    // Who does not say how large it is learns it as well.
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let head = "POST /networks/create HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let request = format!("{head}{:x}\r\n{}\r\n0\r\n\r\n", body(1 << 20).len(), body(1 << 20));
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    // The daemon need not take all of it, and what it leaves resets the connection.
    let _ = tokio::join!(writing.write_all(request.as_bytes()), reading.read_to_end(&mut answer));
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(daemon.control.networks.lock().unwrap().len(), 1, "nothing is made");
    let (status, _) = daemon.http_as("POST", "/networks/create", body((1 << 20) - 100), json).await;
    assert_eq!(status, 201);
}

#[tokio::test]
async fn a_process_that_ends_is_noted_with_its_status() {
    let daemon = Daemon::start().await;
    let web = daemon.client.create_container(&detached("web", &["serve"])).await.unwrap();
    assert_eq!(web.state, ContainerState::Running);
    daemon.processes.end(web.pid.unwrap(), Some(7));
    eventually("the end is noted", async || {
        let web = daemon.client.container("web").await.unwrap();
        (web.state, web.exit_code) == (ContainerState::Exited, Some(7))
    })
    .await;
}

#[tokio::test]
async fn a_container_to_be_removed_goes_with_its_process() {
    let daemon = Daemon::start().await;
    let wanted = CreateContainer { remove: true, ..detached("once", &["true"]) };
    daemon.client.create_container(&wanted).await.unwrap();
    eventually("it is gone", async || daemon.client.container("once").await.is_err_and(|e| e.is_not_found()))
        .await;
}

#[tokio::test]
async fn a_process_that_cannot_be_started_leaves_no_container() {
    let daemon = Daemon::start().await;
    let failed = daemon.client.create_container(&detached("web", &["missing"])).await.unwrap_err();
    assert_eq!(failed.to_string(), "start container web: run missing: no such program in the container");
    assert!(daemon.control.containers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_parent_of_a_process_says_how_it_ended_before_the_daemon_gives_up() {
    for (graces, report) in [(LONG, Some(3)), (SHORT, None)] {
        let daemon = Daemon::start_with(FakeControl::new(), Arc::default(), graces).await;
        daemon.client.create_container(&named("web", &["work"])).await.unwrap();
        let pid = daemon.processes.spawn_foreign();
        daemon.client.started("web", pid).await.unwrap();
        daemon.processes.end(pid, None);
        if report.is_some() {
            daemon.client.exited("web", report).await.unwrap();
        }
        eventually("the end is noted", async || {
            daemon.client.container("web").await.unwrap().state == ContainerState::Exited
        })
        .await;
        assert_eq!(daemon.client.container("web").await.unwrap().exit_code, report);
    }
}

#[tokio::test]
async fn stop_asks_before_it_uses_force() {
    for (graces, command, signals, code) in [
        (LONG, "polite", vec![Signal::Terminate], 143),
        (SHORT, "stubborn", vec![Signal::Terminate, Signal::Kill], 137),
    ] {
        let daemon = Daemon::start_with(FakeControl::new(), Arc::default(), graces).await;
        let web = daemon.client.create_container(&detached("web", &[command])).await.unwrap();
        daemon.client.stop("web").await.unwrap();
        let stopped = daemon.client.container("web").await.unwrap();
        assert_eq!((stopped.state, stopped.exit_code), (ContainerState::Exited, Some(code)));
        assert_eq!(daemon.processes.signals(web.pid.unwrap()), signals);
        daemon.client.stop("web").await.expect("stopping what has ended succeeds");
    }
}

#[tokio::test]
async fn a_namespace_without_a_process_can_be_stopped() {
    let daemon = Daemon::start().await;
    daemon.client.create_container(&detached("web", &[])).await.unwrap();
    daemon.client.stop("web").await.unwrap();
    assert_eq!(daemon.client.container("web").await.unwrap().state, ContainerState::Exited);
}

#[tokio::test]
async fn a_running_container_is_removed_only_with_force() {
    let daemon = Daemon::start().await;
    let web = daemon.client.create_container(&detached("web", &["serve"])).await.unwrap();
    let refused = daemon.client.remove_container("web", false).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { status: 409, .. }), "{refused}");
    assert_eq!(daemon.client.remove_container("web", true).await.unwrap().id, web.id);
    assert_eq!(daemon.processes.signals(web.pid.unwrap()), [Signal::Kill]);

    let wanted = CreateContainer { remove: true, ..detached("once", &["serve"]) };
    daemon.client.create_container(&wanted).await.unwrap();
    daemon.client.remove_container("once", true).await.unwrap();
    assert!(daemon.client.remove_container("once", true).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_daemon_takes_hold_of_what_runs_already() {
    let first = Daemon::start().await;
    let web = first.client.create_container(&detached("web", &["serve"])).await.unwrap();
    let (control, processes) = (Arc::clone(&first.control), Arc::clone(&first.processes));
    drop(first.end);
    ends("the daemon ends", first.served).await.unwrap().unwrap();
    assert!(processes.signals(web.pid.unwrap()).is_empty(), "its end leaves containers alone");
    assert!(first.dir.path().exists(), "nothing was taken down");

    let second = Daemon::start_with(control, processes, LONG).await;
    second.client.stop("web").await.unwrap();
    assert_eq!(second.processes.signals(web.pid.unwrap()), [Signal::Terminate]);
    assert_eq!(second.client.container("web").await.unwrap().exit_code, Some(143));
}

#[tokio::test]
async fn taking_down_ends_processes_then_the_daemon() {
    let daemon = Daemon::start().await;
    let web = daemon.client.create_container(&detached("web", &["serve"])).await.unwrap();
    daemon.client.down().await.unwrap();
    ends("the daemon ends", daemon.served).await.unwrap().unwrap();
    assert_eq!(daemon.control.downs.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(daemon.processes.signals(web.pid.unwrap()), [Signal::Kill]);
    assert!(!daemon.dir.path().exists(), "no socket is left, and what is cleaned up last is");
    drop(daemon.end);
}

#[tokio::test]
async fn flows_are_told_page_by_page() {
    let daemon = Daemon::start().await;
    let told = async |filter| {
        let mut flows = daemon.client.flows(&filter).await.unwrap();
        let mut count = 0;
        while let Some(flow) = flows.next().await.unwrap() {
            assert_eq!(flow.kind, "published");
            count += 1;
        }
        count
    };
    let all = FlowFilter::default();
    assert_eq!(told(all).await, 1, "it is on the second page");
    assert_eq!(told(FlowFilter { dport: Some(1), ..all }).await, 0);
    assert_eq!(daemon.client.flush(&all).await.unwrap(), 1);
    assert_eq!(daemon.client.flush(&FlowFilter { dport: Some(1), ..all }).await.unwrap(), 0);
}

#[tokio::test]
async fn a_change_of_the_host_is_followed() {
    let mut daemon = Daemon::start().await;
    let on_change = (&mut daemon.on_change).await.unwrap();
    on_change();
    eventually("the controller looks again", async || {
        daemon.control.refreshes.load(std::sync::atomic::Ordering::SeqCst) > 0
    })
    .await;
    eventually("the flow table is swept", async || {
        daemon.control.sweeps.load(std::sync::atomic::Ordering::SeqCst) > 0
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_daemon_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("rnet.sock");
    let message = Client::new(socket.clone(), "rnet").status().await.unwrap_err().to_string();
    assert_eq!(
        message,
        format!("no rnet daemon answers at {}: start one with 'rnet daemon'", socket.display())
    );
    let message = Client::new(socket, "lab").status().await.unwrap_err().to_string();
    assert!(message.ends_with("'rnet --instance lab daemon'"), "{message}");
}

#[tokio::test]
async fn a_second_daemon_of_an_instance_is_refused() {
    let daemon = Daemon::start().await;
    let options = Options::new("fake", daemon.socket().to_owned());
    let refused =
        serve(options, || panic!("not reached"), LONG, std::future::pending()).await.unwrap_err().to_string();
    assert!(refused.starts_with("another daemon of instance fake is running, pid "), "{refused}");
    assert!(daemon.client.status().await.is_ok());
}

#[tokio::test]
async fn a_name_cannot_leave_its_place_in_the_path() {
    let daemon = Daemon::start().await;
    for name in ["../bridge", "a/b", "a?force=1", "..", "é"] {
        let refused = daemon.client.container(name).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("No such container: {name}"));
    }
}
