//! All that the daemon listens at: its own socket, which its commands use, and what the configuration names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};

use super::{
    activation::Inherited,
    address::Address,
    connections::{Connections, Door},
    socket::{self, SocketFile},
    tls::Tls,
};

/// Bound sockets. Those in the file system are removed on drop, but for those that the service manager has made.
pub(super) struct Listeners {
    doors: Vec<Door>,
    files: Vec<SocketFile>,
    inherited: Vec<PathBuf>,
}

impl Listeners {
    /// Listens at `own`, and at every one of `others`, by what is inherited for it if anything is. TCP ones speak TLS if
    /// `tls` is there.
    ///
    /// # Errors
    /// When one cannot be bound, or nobody listens at what is inherited; it is named.
    pub(super) async fn bind(
        own: &Path,
        others: &[Address],
        tls: Option<Arc<Tls>>,
        mut inherited: Inherited,
    ) -> Result<Self> {
        let mut listeners = Self { doors: Vec::new(), files: Vec::new(), inherited: Vec::new() };
        listeners.bind_file(own, &mut inherited)?;
        for address in others {
            match address {
                Address::Unix(path) if path == own => {}
                Address::Unix(path) => {
                    if !inherited.has(path) {
                        socket::refuse_if_taken(path).await?;
                    }
                    listeners.bind_file(path, &mut inherited)?;
                }
                Address::Tcp(ip, port) => {
                    let bound = TcpListener::bind(Address::socket_addr(*ip, *port, tls.is_some())).await;
                    let bound = bound.with_context(|| format!("listen at {address}"))?;
                    listeners.doors.push(match &tls {
                        Some(tls) => Door::Tls(bound, Arc::clone(tls)),
                        None => {
                            tracing::warn!(
                                %address,
                                "every user and program of this host may come by it, and is root's equal then: \
                                 tlsverify keeps them out"
                            );
                            Door::Tcp(bound)
                        }
                    });
                }
            }
            tracing::info!(%address, "listening");
        }
        inherited.refuse_rest()?;
        Ok(listeners)
    }

    fn bind_file(&mut self, path: &Path, inherited: &mut Inherited) -> Result<()> {
        if let Some(listener) = inherited.remove(path) {
            let listening = || format!("listen at {}", path.display());
            listener.set_nonblocking(true).with_context(listening)?;
            self.doors.push(Door::Unix(UnixListener::from_std(listener).with_context(listening)?));
            self.inherited.push(path.to_owned());
        } else {
            let (listener, file) = socket::bind(path)?;
            self.doors.push(Door::Unix(listener));
            self.files.push(file);
        }
        Ok(())
    }

    /// Files of the sockets that the service manager has made: they outlive the daemon.
    pub(super) fn inherited(&self) -> &[PathBuf] {
        &self.inherited
    }

    /// Serves requests until `end` says so, and then those that are under way.
    pub(super) async fn serve(
        self,
        router: Router,
        connections: Arc<Connections>,
        end: &watch::Sender<bool>,
    ) {
        let Self { doors, files, inherited: _ } = self;
        let mut servers = JoinSet::new();
        for door in doors {
            servers.spawn(Arc::clone(&connections).serve(door, router.clone(), end.subscribe()));
        }
        servers.join_all().await;
        drop(files);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use axum::routing::get;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use tokio::{
        io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
        net::TcpStream,
        time,
    };
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring},
    };

    use super::*;
    use crate::api::{connections::Limits, tls};

    const LIMIT: Duration = Duration::from_secs(20);

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn issue(&self) -> (rustls_pki_types::CertificateDer<'static>, PrivateKeyDer<'static>) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
            (certificate, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        }

        fn server(&self) -> Arc<ServerConfig> {
            let (certificate, key) = self.issue();
            tls::server_config(vec![self.0.der().clone()], vec![certificate], key).unwrap()
        }

        /// A client that trusts this authority, with a certificate of `issuer`, or without.
        fn client(&self, issuer: Option<&Self>) -> TlsConnector {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let config = match issuer.map(Self::issue) {
                Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
                None => config.with_no_client_auth(),
            };
            TlsConnector::from(Arc::new(config))
        }
    }

    fn connections() -> Arc<Connections> {
        Connections::new(Limits::new(100))
    }

    /// A port that nobody listens at.
    async fn free_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<String> {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn ask_by(connector: &TlsConnector, addr: SocketAddr) -> std::io::Result<String> {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, TcpStream::connect(addr).await?).await?;
        // A server may refuse a certificate after the client has found its own part of the handshake done.
        ask(stream).await
    }

    #[tokio::test]
    async fn everywhere_the_same_is_served_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own.sock"), dir.path().join("other.sock"));
        let tcp = free_port().await;
        let hosts = [
            Address::Unix(other.clone()),
            Address::Unix(own.clone()),
            Address::Tcp(tcp.ip(), Some(tcp.port())),
        ];
        let listeners = Listeners::bind(&own, &hosts, None, Inherited::default()).await.unwrap();
        let taken = Listeners::bind(&dir.path().join("third.sock"), &hosts, None, Inherited::default())
            .await
            .err()
            .unwrap();
        assert!(taken.to_string().contains("another program does, pid "), "{taken}");
        let end = watch::Sender::new(false);
        let router = Router::new().route("/", get(async || "hello"));
        let clients = async {
            for path in [&own, &other] {
                let stream = tokio::net::UnixStream::connect(path).await.unwrap();
                assert!(ask(stream).await.unwrap().ends_with("hello"));
            }
            assert!(ask(TcpStream::connect(tcp).await.unwrap()).await.unwrap().ends_with("hello"));
            end.send_replace(true);
        };
        time::timeout(LIMIT, async { tokio::join!(listeners.serve(router, connections(), &end), clients) })
            .await
            .unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no socket is left");
    }

    #[tokio::test]
    async fn what_is_inherited_is_served_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let [own, other, stray] = ["own", "other", "stray"].map(|name| dir.path().join(name));
        let inherit = |paths: &[&PathBuf]| {
            let bind = |path: &&PathBuf| std::os::unix::net::UnixListener::bind(path).unwrap();
            Inherited::from(paths.iter().map(|path| ((*path).clone(), bind(path))).collect::<Vec<_>>())
        };
        let hosts = [Address::Unix(other.clone())];
        let refused = Listeners::bind(&own, &hosts, None, inherit(&[&stray])).await.err().unwrap();
        assert!(refused.to_string().contains("stray, where the daemon is not told to listen"), "{refused}");

        let inherited = inherit(&[&own, &other]);
        // Comes before anybody serves.
        let early = tokio::net::UnixStream::connect(&own).await.unwrap();
        let listeners = Listeners::bind(&own, &hosts, None, inherited).await.unwrap();
        assert_eq!(listeners.inherited(), [own.clone(), other.clone()]);
        let end = watch::Sender::new(false);
        let router = Router::new().route("/", get(async || "hello"));
        let clients = async {
            assert!(ask(early).await.unwrap().ends_with("hello"));
            let late = tokio::net::UnixStream::connect(&other).await.unwrap();
            assert!(ask(late).await.unwrap().ends_with("hello"));
            end.send_replace(true);
        };
        time::timeout(LIMIT, async { tokio::join!(listeners.serve(router, connections(), &end), clients) })
            .await
            .unwrap();
        assert!(own.exists() && other.exists());
    }

    #[tokio::test]
    async fn only_clients_of_the_authority_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, others) = (Authority::new(), Authority::new());
        let tcp = free_port().await;
        let hosts = [Address::Tcp(tcp.ip(), Some(tcp.port()))];
        let listeners = Listeners::bind(
            &dir.path().join("own.sock"),
            &hosts,
            Some(Tls::new(ours.server())),
            Inherited::default(),
        )
        .await
        .unwrap();
        let end = watch::Sender::new(false);
        let router = Router::new().route("/", get(async || "hello"));
        let clients = async {
            // Says nothing, and keeps nobody waiting.
            let _silent = TcpStream::connect(tcp).await.unwrap();
            assert!(ask_by(&ours.client(Some(&ours)), tcp).await.unwrap().ends_with("hello"));
            for refused in [ours.client(None), ours.client(Some(&others))] {
                assert!(ask_by(&refused, tcp).await.is_err());
            }
            assert!(ask_by(&others.client(Some(&ours)), tcp).await.is_err(), "the client's own check");
            let plain = ask(TcpStream::connect(tcp).await.unwrap()).await;
            assert!(!plain.is_ok_and(|answer| answer.contains("hello")));
            assert!(ask_by(&ours.client(Some(&ours)), tcp).await.unwrap().ends_with("hello"));
            end.send_replace(true);
        };
        time::timeout(LIMIT, async { tokio::join!(listeners.serve(router, connections(), &end), clients) })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn certificates_are_exchanged_while_clients_come() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Authority::new(), Authority::new());
        let tcp = free_port().await;
        let hosts = [Address::Tcp(tcp.ip(), Some(tcp.port()))];
        let tls = Tls::new(old.server());
        let own = dir.path().join("own.sock");
        let listeners =
            Listeners::bind(&own, &hosts, Some(Arc::clone(&tls)), Inherited::default()).await.unwrap();
        let end = watch::Sender::new(false);
        let router = Router::new().route("/", get(async || "hello"));
        let clients = async {
            let name = ServerName::try_from("localhost").unwrap();
            let stream = TcpStream::connect(tcp).await.unwrap();
            let early = old.client(Some(&old)).connect(name, stream).await.unwrap();
            tls.replace(new.server());
            assert!(ask_by(&new.client(Some(&new)), tcp).await.unwrap().ends_with("hello"));
            assert!(ask_by(&old.client(Some(&old)), tcp).await.is_err());
            assert!(ask(early).await.unwrap().ends_with("hello"), "who is in stays in");
            end.send_replace(true);
        };
        let served = listeners.serve(router, connections(), &end);
        time::timeout(LIMIT, async { tokio::join!(served, clients) }).await.unwrap();
    }

    #[tokio::test]
    async fn an_older_tls_is_refused_in_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = free_port().await;
        let hosts = [Address::Tcp(tcp.ip(), Some(tcp.port()))];
        let tls = Some(Tls::new(Authority::new().server()));
        let own = dir.path().join("own.sock");
        let listeners = Listeners::bind(&own, &hosts, tls, Inherited::default()).await.unwrap();
        let end = watch::Sender::new(false);
        // RFC 5246 7.4.1.2: TLS 1.2, random, no session, two cipher suites, no compression, and of extensions the groups
        // and the signatures that it can, without a word of newer versions.
        let random = [7; 32];
        let suites = [0, 4, 0xc0, 0x2b, 0xc0, 0x2f];
        let extensions = [0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
        let hello = [&[3, 3][..], &random, &[0], &suites, &[1, 0], &extensions].concat();
        let length = u8::try_from(hello.len()).unwrap();
        let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
        let client = async {
            let mut stream = TcpStream::connect(tcp).await.unwrap();
            stream.write_all(&record).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            // An alert that ends the connection: protocol_version (RFC 8446 6).
            assert_eq!((answer.first(), &answer[answer.len() - 2..]), (Some(&21), &[2, 70][..]));
            end.send_replace(true);
        };
        let served = listeners.serve(Router::new(), connections(), &end);
        time::timeout(LIMIT, async { tokio::join!(served, client) }).await.unwrap();
    }
}
