//! The daemon's client.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{DEFAULT_INSTANCE, calls::Values, error::Message, native};
use crate::controller::{
    backend::{FlowInfo, ReasonCount},
    model::{Binding, flow_filter::FlowFilter, timeouts::Seconds},
    packets::{PacketFilter, Told},
    request::{CreateContainer, CreateNetwork, Publish},
    view,
};

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the socket.
    #[error("no rnet daemon answers at {0}: start one with '{1}'")]
    NoDaemon(PathBuf, String),
    /// The socket is there, but not for this user.
    #[error("permission denied at {0}: run it as root, such as with sudo")]
    NotAllowed(PathBuf),
    /// The daemon refused or failed.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why.
        message: String,
    },
    /// The connection broke, or what came over it is not what a daemon says.
    #[error("talk to the daemon at {0}: {1}")]
    Broken(PathBuf, String),
}

impl Error {
    /// There is no such container, network or port.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Something else is in the way.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// It is not to be: a network that containers are on is not removed.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status: 403, .. })
    }
}

/// A call's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Calls the daemon of one instance. Every call is a connection of its own, and waits as long as the daemon does.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    instance: String,
}

impl Client {
    /// For the daemon of `instance` that listens at `socket`.
    pub fn new(socket: PathBuf, instance: &str) -> Self {
        Self { socket, instance: instance.to_owned() }
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Creates a network.
    pub async fn create_network(&self, request: &CreateNetwork) -> Result<view::Network> {
        self.post("/rnet/networks", request).await
    }

    /// Creates a container, and starts its process if it is to run on its own.
    pub async fn create_container(&self, request: &CreateContainer) -> Result<view::Container> {
        self.post("/rnet/containers", request).await
    }

    /// One container.
    pub async fn container(&self, container: &str) -> Result<view::Container> {
        self.get(&format!("/rnet/containers/{}", escape(container))).await
    }

    /// Says which process was started in a container.
    pub async fn started(&self, container: &str, pid: u32) -> Result<()> {
        self.tell(&format!("/rnet/containers/{}/started", escape(container)), &native::Started { pid }).await
    }

    /// Says how a container's process ended.
    pub async fn exited(&self, container: &str, code: Option<i32>) -> Result<()> {
        self.tell(&format!("/rnet/containers/{}/exited", escape(container)), &native::Exited { code }).await
    }

    /// Ends a container's process.
    pub async fn stop(&self, container: &str) -> Result<()> {
        self.call(Method::POST, &format!("/rnet/containers/{}/stop", escape(container)), None).await.map(drop)
    }

    /// Removes a container; with `force` one that runs, too.
    pub async fn remove_container(&self, container: &str, force: bool) -> Result<view::Container> {
        let path = format!("/rnet/containers/{}?force={force}", escape(container));
        let answer = self.call(Method::DELETE, &path, None).await?;
        self.understand(&answer)
    }

    /// Publishes ports of a container, and returns what was given.
    pub async fn publish(&self, container: &str, request: &Publish) -> Result<Vec<Binding>> {
        self.post(&format!("/rnet/containers/{}/publish", escape(container)), request).await
    }

    /// Withdraws published ports of a container, and returns what was taken.
    pub async fn unpublish(&self, container: &str, ports: Vec<String>) -> Result<Vec<Binding>> {
        let path = format!("/rnet/containers/{}/unpublish", escape(container));
        self.post(&path, &native::Unpublish { ports }).await
    }

    /// The instance's name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Every network.
    pub async fn every_network(&self) -> Result<Vec<view::Network>> {
        self.get("/rnet/networks").await
    }

    /// Published ports with their counts.
    pub async fn ports(&self) -> Result<Vec<view::PublishedPort>> {
        self.get("/rnet/ports").await
    }

    /// How much is in use, and what has passed the containers' interfaces.
    pub async fn usage(&self) -> Result<view::Usage> {
        self.get("/rnet/usage").await
    }

    /// Every counter that is not zero.
    pub async fn counters(&self) -> Result<Vec<ReasonCount>> {
        self.get("/rnet/counters").await
    }

    /// The flows that are alive and that `filter` matches, as they are found.
    pub async fn flows(&self, filter: &FlowFilter) -> Result<Values<FlowInfo>> {
        let answer = self.send(Method::GET, &format!("/rnet/flows{}", self.query(filter)?), None).await?;
        Ok(Values::of(self, answer))
    }

    /// Has the flows forgotten that `filter` matches, and returns how many they were.
    pub async fn flush(&self, filter: &FlowFilter) -> Result<usize> {
        let answer = self.call(Method::DELETE, &format!("/rnet/flows{}", self.query(filter)?), None).await?;
        let native::Flushed { flows } = self.understand(&answer)?;
        Ok(flows)
    }

    /// The packets that `filter` means, as they pass.
    pub async fn trace(&self, filter: &PacketFilter) -> Result<Values<Told>> {
        let answer = self.send(Method::GET, &format!("/rnet/trace{}", self.query(filter)?), None).await?;
        Ok(Values::of(self, answer))
    }

    /// How long flows may be idle.
    pub async fn timeouts(&self) -> Result<Seconds> {
        self.get("/rnet/timeouts").await
    }

    /// Changes some of the times that flows may be idle, and returns all of them.
    pub async fn set_timeouts(&self, changes: &Seconds) -> Result<Seconds> {
        let answer = self.call(Method::PATCH, "/rnet/timeouts", Some(self.encode(changes)?)).await?;
        self.understand(&answer)
    }

    /// The instance at a glance.
    pub async fn status(&self) -> Result<view::Status> {
        self.get("/rnet/status").await
    }

    /// Has everything removed that the instance made.
    pub async fn down(&self) -> Result<()> {
        self.call(Method::POST, "/rnet/down", None).await.map(drop)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.call(Method::GET, path, None).await?;
        self.understand(&answer)
    }

    pub(super) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let answer = self.call(Method::PUT, path, Some(self.encode(body)?)).await?;
        self.understand(&answer)
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let answer = self.call(Method::POST, path, Some(self.encode(body)?)).await?;
        self.understand(&answer)
    }

    pub(super) async fn tell(&self, path: &str, body: &impl Serialize) -> Result<()> {
        self.call(Method::POST, path, Some(self.encode(body)?)).await.map(drop)
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Bytes> {
        let answer = self.send(method, path, body).await?;
        Ok(answer.into_body().collect().await.map_err(|e| self.broken(e))?.to_bytes())
    }

    /// Asks, and returns the answer as soon as it begins.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.cannot_connect(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(e))?;
        // It ends with the sender; what goes wrong on it is reported by the request.
        tokio::spawn(connection);

        let mut request = Request::builder().method(method).uri(path).header(HOST, "rnet");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request =
            request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(|e| self.broken(e))?;
        let answer = sender.send_request(request).await.map_err(|e| self.broken(e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.into_body().collect().await.map_err(|e| self.broken(e))?.to_bytes();
        Err(refused(status, &body))
    }

    /// The fields of `of` that are set, as the query of an address; nothing when none is.
    fn query(&self, of: &impl Serialize) -> Result<String> {
        let fields: BTreeMap<String, serde_json::Value> =
            serde_json::to_value(of).and_then(serde_json::from_value).map_err(|e| self.broken(e))?;
        let text =
            |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let pairs: Vec<String> =
            fields.into_iter().map(|(key, value)| format!("{key}={}", escape(&text(&value)))).collect();
        Ok(if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) })
    }

    fn encode(&self, body: &impl Serialize) -> Result<Vec<u8>> {
        serde_json::to_vec(body).map_err(|e| self.broken(e))
    }

    pub(super) fn understand<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T> {
        serde_json::from_slice(answer).map_err(|e| self.broken(format_args!("answer not understood: {e}")))
    }

    fn cannot_connect(&self, e: &io::Error) -> Error {
        if e.kind() == io::ErrorKind::PermissionDenied {
            return Error::NotAllowed(self.socket.clone());
        }
        if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            return self.broken(e);
        }
        let instance = match self.instance.as_str() {
            DEFAULT_INSTANCE => String::new(),
            other => format!(" --instance {other}"),
        };
        Error::NoDaemon(self.socket.clone(), format!("rnet{instance} daemon"))
    }

    pub(super) fn broken(&self, e: impl ToString) -> Error {
        Error::Broken(self.socket.clone(), e.to_string())
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Error {
    let message = match serde_json::from_slice::<Message>(body) {
        Ok(Message { message }) => message,
        Err(_) => format!("the daemon answers {status}"),
    };
    Error::Refused { status: status.as_u16(), message }
}

/// A name as one segment of a path.
pub(super) fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => escaped.push(char::from(byte)),
            // Dots too: a client must not take `..` for the directory above.
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_query() {
        let client = Client::new("/nowhere".into(), "fake");
        let none = FlowFilter::default();
        assert_eq!(client.query(&none).unwrap(), "");
        let all = FlowFilter {
            protocol: Some(17),
            src: "10.0.0.0/8".parse().ok(),
            dst: "fd00::/64".parse().ok(),
            addr: "192.0.2.1".parse().ok(),
            sport: Some(5000),
            dport: Some(53),
        };
        for filter in [none, FlowFilter { dport: Some(80), ..none }, all] {
            let uri = format!("/rnet/flows{}", client.query(&filter).unwrap()).parse().unwrap();
            let axum::extract::Query(read) = axum::extract::Query::<FlowFilter>::try_from_uri(&uri).unwrap();
            assert_eq!(read, filter, "{uri}");
        }
    }
}
