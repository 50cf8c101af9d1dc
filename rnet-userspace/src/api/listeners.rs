//! All that the daemon listens at: its own socket, which its commands use, and what the configuration names.

use std::{future::Future, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{Router, serve::Listener};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::rustls::ServerConfig;

use super::{
    address::Address,
    socket::{self, SocketFile},
    tls::TlsListener,
};

/// Bound sockets. Those in the file system are removed on drop.
pub(super) struct Listeners {
    unix: Vec<(UnixListener, SocketFile)>,
    tcp: Vec<TcpListener>,
    tls: Option<Arc<ServerConfig>>,
}

impl Listeners {
    /// Listens at `own`, and at every one of `others`. TCP ones speak TLS if `tls` is there.
    ///
    /// # Errors
    /// When one cannot be bound, which is named.
    pub(super) async fn bind(own: &Path, others: &[Address], tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let mut listeners = Self { unix: vec![socket::bind(own)?], tcp: Vec::new(), tls };
        for address in others {
            match address {
                Address::Unix(path) if path == own => {}
                Address::Unix(path) => {
                    socket::refuse_if_taken(path).await?;
                    listeners.unix.push(socket::bind(path)?);
                }
                Address::Tcp(ip, port) => {
                    let bound =
                        TcpListener::bind(Address::socket_addr(*ip, *port, listeners.tls.is_some())).await;
                    listeners.tcp.push(bound.with_context(|| format!("listen at {address}"))?);
                    if listeners.tls.is_none() {
                        tracing::warn!(
                            %address,
                            "every user and program of this host may come by it, and is root's equal then: \
                             tlsverify keeps them out"
                        );
                    }
                }
            }
            tracing::info!(%address, "listening");
        }
        Ok(listeners)
    }

    /// Serves requests until `end` says so, and then those that are under way.
    pub(super) async fn serve(self, router: Router, end: &watch::Sender<bool>) {
        let Self { unix, tcp, tls } = self;
        let (sockets, files): (Vec<_>, Vec<_>) = unix.into_iter().unzip();
        let mut servers = JoinSet::new();
        for socket in sockets {
            servers.spawn(serve(socket, router.clone(), end.subscribe()));
        }
        for listener in tcp {
            match &tls {
                Some(tls) => {
                    let listener = TlsListener::new(listener, Arc::clone(tls));
                    servers.spawn(serve(listener, router.clone(), end.subscribe()));
                }
                None => _ = servers.spawn(serve(listener, router.clone(), end.subscribe())),
            }
        }
        servers.join_all().await;
        drop(files);
    }
}

fn serve<L: Listener>(
    listener: L,
    router: Router,
    mut end: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send
where
    L::Addr: std::fmt::Debug,
{
    async move {
        // The sender is gone once nobody waits for the end.
        let ended = async move { _ = end.wait_for(|ended| *ended).await };
        // It never fails.
        let _ = axum::serve(listener, router).with_graceful_shutdown(ended).await;
    }
}
