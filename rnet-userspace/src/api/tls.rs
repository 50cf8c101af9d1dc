//! TLS on both sides: whoever connects shows a certificate of the one authority that is trusted, as with Docker's
//! `--tlsverify`.
//!
//! TLS 1.3 alone: every Docker client since 19.03 speaks it, and it shows clients' certificates to nobody on the way.

use std::{
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpStream;
use tokio_rustls::{
    Accept, TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier, version::TLS13},
};
use webpki::{EndEntityCert, KeyUsage};

use crate::bounded;

/// How long before a certificate ends that is said.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What clients are taken by: exchanged while the daemon runs, for those that come afterwards.
#[derive(Debug)]
pub struct Tls(RwLock<Arc<ServerConfig>>);

impl Tls {
    /// Beginning with this.
    pub fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(config)))
    }

    /// From here on by this.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// A handshake.
    pub(super) fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        let config = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(stream)
    }
}

/// The certificates of a PEM file, one at least.
///
/// # Errors
/// The file cannot be read, or has none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || format!("read certificates from {}", path.display());
    let text = bounded::file(path, bounded::SETTINGS).with_context(read)?;
    let certificates = CertificateDer::pem_slice_iter(&text);
    let certificates = certificates.collect::<std::result::Result<Vec<_>, _>>().with_context(read)?;
    if certificates.is_empty() {
        bail!("{} has no certificate in it: it should be a PEM file", path.display());
    }
    Ok(certificates)
}

/// The private key of a PEM file.
///
/// # Errors
/// The file cannot be read, has none, or others than its owner may read it.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let read = || format!("read a private key from {}", path.display());
    let file = File::open(path).with_context(read)?;
    let mode = file.metadata().with_context(read)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.display();
        bail!(
            "others than its owner may read or write {path}, a private key (mode {mode:04o}): chmod 600 {path}"
        );
    }
    let text = bounded::read(file, bounded::SETTINGS).with_context(read)?;
    PrivateKeyDer::from_pem_slice(&text).with_context(read)
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
        .with_protocol_versions(&[&TLS13])
        .context("choose versions of TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .context("use the certificate with its key")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What is wrong at `now` with the time of a certificate, as the end of a sentence about it: it has ended, has not begun, or
/// ends soon.
pub(crate) fn out_of_time(certificate: &CertificateDer<'_>, now: OffsetDateTime) -> Option<String> {
    let now = Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap_or_default());
    match times(certificate, now) {
        Some(Times::Ended(at)) => Some(format!("has expired, on {}", date(at))),
        Some(Times::Begins(at)) => Some(format!("is not valid before {}: is the clock right?", date(at))),
        None => match times(certificate, now + SOON) {
            Some(Times::Ended(at)) => Some(format!("expires on {}", date(at))),
            Some(Times::Begins(_)) | None => None,
        },
    }
}

enum Times {
    Ended(UnixTime),
    Begins(UnixTime),
}

/// webpki looks at a certificate's time before it looks for whoever has issued it, whom it is not told here.
fn times(certificate: &CertificateDer<'_>, at: Duration) -> Option<Times> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let at = UnixTime::since_unix_epoch(at);
    let verified = certificate.verify_for_usage(&[], &[], &[], at, KeyUsage::server_auth(), None, None);
    let error = verified.err()?;
    if let webpki::Error::CertExpired { not_after, .. } = error {
        return Some(Times::Ended(not_after));
    }
    if let webpki::Error::CertNotValidYet { not_before, .. } = error {
        return Some(Times::Begins(not_before));
    }
    None
}

fn date(at: UnixTime) -> String {
    let at = i64::try_from(at.as_secs()).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
