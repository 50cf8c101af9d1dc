//! Docker's API, as far as it is asked: in the daemon's own version, since old ones are refused by new daemons.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use super::messages::{Container, Event, Network, Refusal, Summary, Version};
use crate::bounded;

/// How long an answer may take. dockerd answers about a container when it has started, which takes as long as its
/// mounts do.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Why something was not learned.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no socket, or nobody listens.
    #[error("nobody listens at {0}")]
    NoDaemon(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// The daemon refused.
    #[error("dockerd answers {0}: {1}")]
    Refused(StatusCode, String),
    /// The connection broke, or what came is not understood.
    #[error("{0}")]
    Broken(String),
}

type Result<T> = std::result::Result<T, Error>;

/// Asks dockerd. Every call is a connection of its own.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) async fn version(&self) -> Result<Version> {
        self.get("/version").await
    }

    /// All networks, without what is on them.
    pub(super) async fn networks(&self) -> Result<Vec<Network>> {
        self.get("/networks").await
    }

    /// A network with the containers that run on it or are being started.
    pub(super) async fn network(&self, id: &str) -> Result<Network> {
        self.get(&format!("/networks/{id}")).await
    }

    /// All containers, those that do not run included.
    pub(super) async fn containers(&self) -> Result<Vec<Summary>> {
        self.get("/containers/json?all=1").await
    }

    /// One container. While it is being started, this waits until it is.
    pub(super) async fn container(&self, id: &str) -> Result<Container> {
        self.get(&format!("/containers/{id}/json")).await
    }

    /// What happens from here on to containers and networks.
    pub(super) async fn events(&self) -> Result<Events> {
        let filters = BTreeMap::from([
            ("type", vec!["container", "network"]),
            // Not those of health checks and of `docker exec`, of which there may be many a second.
            ("event", vec!["create", "start", "die", "rename", "destroy", "connect", "disconnect", "update"]),
        ]);
        let filters = serde_json::to_string(&filters).map_err(broken)?;
        let filters: String = filters.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.send(&format!("/events?filters={filters}")).await?;
        Ok(Events { body: answer.into_body(), lines: Lines::default() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = async { whole(self.send(path).await?).await };
        let body = timeout(ANSWER_LIMIT, body).await;
        let body = body.map_err(|_| broken(format_args!("no answer to {path} in {ANSWER_LIMIT:?}")))??;
        serde_json::from_slice(&body)
            .map_err(|e| broken(format_args!("answer to {path} not understood: {e}")))
    }

    async fn send(&self, path: &str) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.cannot_connect(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer; what goes wrong on it is reported by the request.
        tokio::spawn(connection);
        let request = Request::get(path).header(HOST, "docker").body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.map_err(broken)?).await.map_err(broken)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = whole(answer).await?;
        let message = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.message);
        let message = message.unwrap_or_else(|_| path.to_owned());
        Err(match status {
            StatusCode::NOT_FOUND => Error::NotFound(message),
            status => Error::Refused(status, message),
        })
    }

    fn cannot_connect(&self, e: &io::Error) -> Error {
        let socket = self.socket.display();
        if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            return Error::NoDaemon(socket.to_string());
        }
        Error::Broken(format!("connect to {socket}: {e}"))
    }
}

/// An answer's body. Of a list of containers each is some KB.
async fn whole(answer: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(answer.into_body(), bounded::RECORD).collect().await;
    Ok(body.map_err(broken)?.to_bytes())
}

fn broken(why: impl ToString) -> Error {
    Error::Broken(why.to_string())
}

/// An event is some hundred bytes, and names each label of its container.
const LONGEST_EVENT: usize = 4 << 20;

/// Events, one on each line, as they come in pieces.
#[derive(Debug, Default)]
pub(super) struct Lines(BytesMut);

impl Lines {
    /// Adds what has come.
    ///
    /// # Errors
    /// What has come is no line, and too long for one.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<()> {
        self.0.extend_from_slice(data);
        if self.0.len() > LONGEST_EVENT && !self.0.contains(&b'\n') {
            return Err(broken(format_args!("an event is longer than {LONGEST_EVENT} bytes")));
        }
        Ok(())
    }

    /// The next event that is whole.
    pub(super) fn next(&mut self) -> Option<Result<Event>> {
        loop {
            let end = self.0.iter().position(|byte| *byte == b'\n')?;
            let line = self.0.split_to(end + 1);
            if !line.trim_ascii().is_empty() {
                let event = serde_json::from_slice(&line);
                return Some(event.map_err(|e| broken(format_args!("an event is not understood: {e}"))));
            }
        }
    }
}

/// Events as they happen.
pub(super) struct Events {
    body: Incoming,
    lines: Lines,
}

impl Events {
    /// The next one; none once the stream has ended. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(event) = self.lines.next() {
                return Some(event);
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Some(data) = frame.data_ref()
                        && let Err(e) = self.lines.push(data)
                    {
                        return Some(Err(e));
                    }
                }
                Err(e) => return Some(Err(broken(e))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b' '; LONGEST_EVENT];
        lines.push(&piece).unwrap();
        assert!(lines.next().is_none());
        assert!(lines.push(b"x").unwrap_err().to_string().contains("longer than"));
        let mut lines = Lines::default();
        lines.push(&[&piece[..], b"\n{}\n"].concat()).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), Event::default());
    }
}
