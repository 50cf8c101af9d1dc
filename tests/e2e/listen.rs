//! The daemon's interface beside its own socket: Docker's client over TCP, with and without TLS.

use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use testbed::{Docker, Host, Rnet, commands::assert_refused, topology::HOST};

const LIMIT: Duration = Duration::from_secs(60);

/// Who signs certificates, and where they are.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, dir: tempfile::tempdir().unwrap() };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A certificate for these names and addresses, and its key: paths of both.
    fn issue(&self, name: &str, subjects: &[&str]) -> [String; 2] {
        let subjects: Vec<_> = subjects.iter().map(|s| (*s).to_owned()).collect();
        let mut params = CertificateParams::new(subjects).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let files = [format!("{name}.pem"), format!("{name}-key.pem")].map(|file| self.path(&file));
        fs::write(&files[0], params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        fs::set_permissions(&files[1], Permissions::from_mode(0o600)).unwrap();
        files
    }
}

fn start(rnet: &Rnet<'_>, content: &serde_json::Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.json");
    fs::write(&path, content.to_string()).unwrap();
    rnet.start_daemon_with(&["--config", path.to_str().unwrap()]);
    dir
}

#[test]
fn dockers_client_drives_the_daemon_over_mutual_tls() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let Some(docker) = Docker::of(&rnet) else { return };
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let [cert, key] = ours.issue("server", &["127.0.0.1", &HOST.to_string()]);
    let tls = serde_json::json!({
        "hosts": [format!("tcp://{HOST}"), "tcp://127.0.0.1:12376"],
        "tlsverify": true, "tlscacert": ours.path("ca.pem"), "tlscert": cert, "tlskey": key,
    });
    let _file = start(&rnet, &tls);
    let ca = ours.path("ca.pem");
    let ask = |ns, to: &str, [cert, key]: &[String; 2], args: &[&str]| {
        let flags = ["--tlsverify", "--tlscacert", &ca, "--tlscert", cert, "--tlskey", key, "-H", to];
        docker.elsewhere(ns, &[&flags, args].concat())
    };
    let (client, stranger) = (ours.issue("client", &["client"]), others.issue("client", &["client"]));
    let outside = format!("tcp://{HOST}:2376");
    ask(&host.client, &outside, &client, &["network", "create", "--subnet", "10.1.0.0/24", "n1"])
        .assert_ok("create a network from outside");
    assert!(rnet.ok(&["network", "ls"]).contains("n1"));
    for (ns, to) in [(&host.client, outside.as_str()), (&host.ns, "tcp://127.0.0.1:12376")] {
        let listed = ask(ns, to, &client, &["network", "ls", "--format", "{{.Name}}"]).assert_ok("list");
        assert!(listed.stdout.contains("n1\n"), "{}", listed.stdout);
        let refused = ask(ns, to, &stranger, &["network", "rm", "n1"]);
        assert!(
            !refused.status.success() && refused.stderr.contains("remote error: tls"),
            "{}",
            refused.stderr
        );
    }
    // Trusts the daemon, and shows nothing of itself.
    let anonymous = docker
        .elsewhere(&host.client, &["--tlsverify", "--tlscacert", &ca, "-H", &outside, "network", "rm", "n1"]);
    assert!(!anonymous.status.success(), "{}", anonymous.stdout);
    // Without TLS at all.
    assert!(!docker.elsewhere(&host.client, &["-H", &outside, "network", "rm", "n1"]).status.success());
    let answer = host.client.run(|| {
        let mut stream = TcpStream::connect((HOST, 2376)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET /_ping HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // Reset or closed after an alert.
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    assert!(!String::from_utf8_lossy(&answer).contains("OK"), "{answer:?}");
    assert!(rnet.ok(&["network", "ls"]).contains("n1"), "nobody else has removed it");
    assert!(rnet.log().contains("is refused"), "{}", rnet.log());

    // From another authority, in the places of the old ones.
    let [new_cert, new_key] = others.issue("renewed", &["127.0.0.1", &HOST.to_string()]);
    for (new, old) in [(&others.path("ca.pem"), &ca), (&new_cert, &cert), (&new_key, &key)] {
        fs::copy(new, old).unwrap();
    }
    let said = rnet.reload();
    assert!(said.contains("configuration reloaded") && !said.contains("started again"), "{said}");
    ask(&host.client, &outside, &stranger, &["network", "rm", "n1"])
        .assert_ok("remove a network from outside");
    assert!(!ask(&host.client, &outside, &client, &["network", "ls"]).status.success());
    fs::write(&key, "").unwrap();
    assert!(rnet.reload().contains("reload the configuration, which stays as it was"), "{}", rnet.log());
    ask(&host.client, &outside, &stranger, &["network", "ls"]).assert_ok("list as before");
}

#[test]
fn without_tls_only_this_host_is_served() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let Some(docker) = Docker::of(&rnet) else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("other.sock");
    let unix = format!("unix://{}", socket.display());
    let _file = start(&rnet, &serde_json::json!({"hosts": ["tcp://127.0.0.1", unix]}));
    for to in ["tcp://127.0.0.1:2375", unix.as_str()] {
        let listed = docker.elsewhere(&host.ns, &["-H", to, "network", "ls"]).assert_ok("list");
        assert!(listed.stdout.contains("bridge"), "{to}: {}", listed.stdout);
    }
    assert!(rnet.log().contains("tlsverify keeps them out"), "{}", rnet.log());
    rnet.terminate();
    assert!(!socket.exists());

    let path = dir.path().join("daemon.json");
    fs::write(&path, format!("{{\"hosts\": [\"tcp://{HOST}:2375\"]}}")).unwrap();
    let refused = rnet.cmd(&["daemon", "--config", path.to_str().unwrap()]);
    let line = assert_refused("a port for everybody", &refused);
    assert!(line.contains(":1:12: `hosts`: tcp://10.200.0.1:2375 can be reached from outside"), "{line}");
}

#[test]
fn a_socket_that_was_there_before_outlives_the_daemon_but_not_its_instance() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    fs::create_dir(rnet.socket().parent().unwrap()).unwrap();
    let socket = UnixListener::bind(rnet.socket()).unwrap();
    let ask = || {
        let mut stream = UnixStream::connect(rnet.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let request = "GET /containers/json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let answer = |mut stream: UnixStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let early = ask();
    rnet.start_daemon_on(&socket);
    assert!(answer(early).ends_with("\r\n\r\n[]"));
    rnet.run("web", &[]);
    rnet.terminate();
    let meanwhile = ask();
    rnet.start_daemon_on(&socket);
    assert!(answer(meanwhile).contains("/web"));
    rnet.down();
    assert!(!rnet.socket().parent().unwrap().exists(), "who asks next would start everything anew");

    rnet.start_daemon_on(&socket);
    assert!(!rnet.ok(&["ps"]).contains("web"));
    rnet.down();
    assert!(!rnet.socket().exists());
}

#[test]
fn a_port_that_is_taken_is_named_and_the_instance_goes_on() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let _taken = host.ns.run(|| std::net::TcpListener::bind("127.0.0.1:2375").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.json");
    fs::write(&path, r#"{"hosts": ["tcp://127.0.0.1:2375"]}"#).unwrap();
    let refused = rnet.cmd(&["daemon", "--config", path.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("listen at tcp://127.0.0.1:2375: Address already in use"),
        "{}",
        refused.stderr
    );
    rnet.start_daemon();
}
