//! TLS on both sides: whoever connects shows a certificate of the one authority that is trusted, as with Docker's
//! `--tlsverify`.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use axum::serve::Listener;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier},
    server::TlsStream,
};

/// How long a client may take to show who it is.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Clients that may be at it at the same time; the others wait in the kernel's queue.
const HANDSHAKES: usize = 64;

/// The certificates of a PEM file, one at least.
///
/// # Errors
/// The file cannot be read, or has none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || format!("read certificates from {}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).with_context(read)?;
    let certificates = certificates.collect::<std::result::Result<Vec<_>, _>>().with_context(read)?;
    if certificates.is_empty() {
        bail!("{} has no certificate in it: it should be a PEM file", path.display());
    }
    Ok(certificates)
}

/// The private key of a PEM file.
///
/// # Errors
/// The file cannot be read, or has none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("read a private key from {}", path.display()))
}

/// What a server needs that shows `chain` and takes only clients with a certificate of one of `authorities`.
///
/// # Errors
/// A certificate is none of an authority's, or the key is not that of the certificate.
pub fn server_config(
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).context("trust the authority's certificate")?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .context("verify clients by the authority's certificate")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choose versions of TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .context("use the certificate with its key")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes connections whose handshake is done. One that is slow keeps no other waiting.
pub(super) struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self { listener, acceptor: config.into(), handshakes: JoinSet::new() }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                // axum's own, which waits where descriptors have run out.
                (stream, peer) = Listener::accept(&mut self.listener), if self.handshakes.len() < HANDSHAKES => {
                    let handshake = time::timeout(HANDSHAKE_LIMIT, self.acceptor.accept(stream));
                    self.handshakes.spawn(async move {
                        match handshake.await {
                            Ok(Ok(stream)) => Some((stream, peer)),
                            Ok(Err(e)) => refused(peer, &e),
                            Err(_) => refused(peer, &"it takes too long"),
                        }
                    });
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = done {
                        return accepted;
                    }
                }
                else => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn refused<T>(peer: SocketAddr, why: &dyn std::fmt::Display) -> Option<T> {
    tracing::info!(%peer, "a client without TLS or without a certificate of ours is refused: {why}");
    None
}
