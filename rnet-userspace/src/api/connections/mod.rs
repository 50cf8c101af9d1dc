//! Connections: how many at once and whose, and how long a client may take before it has asked.
//!
//! ```text
//! accept ─▶ whose is it? ─▶ a share ─┬─▶ (TLS) ─▶ head ─▶ body ─▶ answer, for as long as it takes
//!                                    └─▶ 503, when there is none
//! ```
//!
//! Nothing ends a connection whose answer goes on, as that of `/events` does, however long it is silent. It keeps its share.

mod body;
mod door;
mod peer;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse as _, Response},
};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{self, Instant},
};

use self::{body::Timely, peer::Peer};
pub(crate) use self::{
    body::refusal,
    door::{Door, Stream},
};
use super::error::ApiError;
use crate::shares::{Share, Shares, Taker};

/// Connections at once unless the configuration says otherwise. Each takes a descriptor and, until its request is read, some
/// KB: Docker's client opens one or two, an engine's plugins one for each call.
pub(crate) const MAX_CONNECTIONS: usize = 1024;
/// The most that the configuration may say: an eighth of the descriptors that systemd lets a service have.
pub(crate) const MOST_CONNECTIONS: u32 = 65536;
/// The fewest that are of use: [`Limits::new`] divides them.
pub(crate) const FEWEST_CONNECTIONS: u32 = 16;
/// The largest head that is read, in bytes: a request's line and its header fields. Filters of Docker's client are some
/// hundred. hyper answers what is larger by status 431, without a body.
const HEAD: usize = 64 << 10;
/// Clients that are refused at once by an answer; beyond them by the connection's end.
const REFUSALS: usize = 32;
/// How long one that is refused may take to ask, and to read why.
const REFUSAL: Duration = Duration::from_secs(5);
/// How long a connection whose request is not being worked on may go on once the daemon is to end: what is written already
/// gets to a client that reads.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after a connection could not be taken, which mostly is a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the log says that clients are refused.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What clients may take.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Connections of root's by sockets in the file system.
    pub(crate) of_root: usize,
    /// Those of all others together.
    pub(crate) of_others: usize,
    /// Those of one other user or address.
    pub(crate) of_one: usize,
    /// For the handshake of TLS.
    pub(crate) handshake: Duration,
    /// For a request's head, from the connection's begin or the end of the answer before.
    pub(crate) head: Duration,
    /// For the whole of a request's body: one that comes byte by byte would keep its place for ever if only the pauses were
    /// limited.
    pub(crate) body: Duration,
}

impl Limits {
    /// With so many connections in all. Half of them are root's, whom the others cannot shut out so, and no other has more
    /// than a quarter of the others'.
    pub(crate) fn new(in_all: usize) -> Self {
        let of_root = in_all / 2;
        Self {
            of_root,
            of_others: in_all - of_root,
            of_one: in_all / 8,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body: Duration::from_secs(60),
        }
    }

    /// With `wanted` connections, or as many as a quarter of the descriptors that this process may have: the others are for
    /// published ports, namespaces and programs.
    pub(crate) fn within_descriptors(wanted: usize) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = usize::try_from(descriptors / 4).unwrap_or(usize::MAX).max(FEWEST_CONNECTIONS as usize);
        if wanted > room {
            tracing::warn!(
                "connections to the API are limited to {room} instead of {wanted}: the limit of open files is \
                 {descriptors} (LimitNOFILE=, ulimit -n)"
            );
        }
        Self::new(wanted.min(room))
    }
}

/// All connections of one program.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    root: Arc<Shares<Peer>>,
    others: Arc<Shares<Peer>>,
    refusals: Semaphore,
    refused: AtomicU64,
    /// When the log was told last that some are refused.
    told: Mutex<Option<Instant>>,
}

impl Connections {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            root: Shares::new(limits.of_root, limits.of_root),
            others: Shares::new(limits.of_others, limits.of_one),
            refusals: Semaphore::new(REFUSALS),
            refused: AtomicU64::new(0),
            told: Mutex::default(),
            limits,
        })
    }

    /// How many are open, without those that are being refused.
    pub(super) fn open(&self) -> usize {
        self.root.in_use() + self.others.in_use()
    }

    /// How many have been refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Serves whoever comes by `door` until `end` says so, and then whose request is under way.
    pub(crate) async fn serve(self: Arc<Self>, door: Door, router: Router, mut end: watch::Receiver<bool>) {
        let mut clients = JoinSet::new();
        let mut can_accept = true;
        loop {
            let accepted = tokio::select! {
                accepted = door.accept() => accepted,
                // The sender is gone once nobody waits for the end.
                _ = end.wait_for(|ended| *ended) => break,
            };
            while clients.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    can_accept = true;
                    let share = self.share(peer);
                    clients.spawn(Arc::clone(&self).attend(stream, share, router.clone(), end.clone()));
                }
                Err(e) => {
                    if std::mem::take(&mut can_accept) {
                        tracing::warn!("connections to the API wait, as none can be taken: {e}");
                    }
                    time::sleep(PAUSE).await;
                }
            }
        }
        drop(door);
        while clients.join_next().await.is_some() {}
    }

    /// A connection's place among the others, or why it has none.
    fn share(&self, peer: Peer) -> Result<Share<Peer>, String> {
        let shares = if peer == Peer::Root { &self.root } else { &self.others };
        shares.take(peer).map_err(|taker| {
            let why = format!(
                "too many connections to the API: {}",
                match taker {
                    Taker::Itself(most) => format!("{peer} has {most}, which is the most for one"),
                    Taker::All(most) => format!("there are {most}, which is the most"),
                }
            );
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.tell(&why);
            why
        })
    }

    /// Now and then, however many are refused.
    fn tell(&self, why: &str) {
        // Nothing in here panics half way.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!("a client is refused: {why}");
        }
    }

    async fn attend(
        self: Arc<Self>,
        stream: Stream,
        share: Result<Share<Peer>, String>,
        router: Router,
        end: watch::Receiver<bool>,
    ) {
        match (stream, &share) {
            (Stream::Unix(stream), Ok(_)) => self.converse(stream, router, end).await,
            (Stream::Tcp(stream), Ok(_)) => self.converse(stream, router, end).await,
            (Stream::Tls(handshake, peer), Ok(_)) => {
                match time::timeout(self.limits.handshake, handshake).await {
                    Ok(Ok(stream)) => self.converse(stream, router, end).await,
                    Ok(Err(e)) => no_tls(peer, &e),
                    Err(_) => no_tls(peer, &"it takes too long"),
                }
            }
            (Stream::Unix(stream), Err(why)) => self.refuse(stream, why).await,
            (Stream::Tcp(stream), Err(why)) => self.refuse(stream, why).await,
            // An answer would need the handshake, which costs more than what is refused.
            (Stream::Tls(..), Err(_)) => {}
        }
        drop(share);
    }

    /// Answers what comes by one connection.
    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        router: Router,
        mut end: watch::Receiver<bool>,
    ) {
        let router = TowerToHyperService::new(router);
        let is_working = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            is_working.store(true, Ordering::Relaxed);
            let answer = router.call(request.map(|body| Timely::new(body, self.limits.body)));
            let is_working = &is_working;
            async move {
                let answer = answer.await;
                is_working.store(false, Ordering::Relaxed);
                answer
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.head)
                .max_header_size(HEAD)
                .serve_connection(TokioIo::new(stream), service)
        );
        // What goes wrong on it is the client's affair.
        tokio::select! {
            _ = &mut connection => return,
            _ = end.wait_for(|ended| *ended) => {}
        }
        connection.as_mut().graceful_shutdown();
        if is_working.load(Ordering::Relaxed) {
            let _ = connection.await;
        } else {
            let _ = time::timeout(LINGER, connection).await;
        }
    }

    /// Says why, to whoever asks in time.
    async fn refuse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, why: &str) {
        let Ok(_permit) = self.refusals.try_acquire() else { return };
        let service = service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(busy(why)) });
        let connection = http1::Builder::new()
            .keep_alive(false)
            .max_header_size(HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let _ = time::timeout(REFUSAL, connection).await;
    }
}

fn busy(why: &str) -> Response {
    let mut answer = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn no_tls(peer: std::net::SocketAddr, why: &dyn std::fmt::Display) {
    tracing::info!(%peer, "a client without TLS or without a certificate of ours is refused: {why}");
}
