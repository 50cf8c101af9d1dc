//! rnet as Docker's network driver, beside dockerd with networks and iptables of its own.

mod addresses;
mod moving;
mod restarts;
mod serving;

use std::{
    cell::RefCell,
    fs::File,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use testbed::{
    Container, Rnet,
    engine::{Dockerd, IMAGE, Machine},
    process::Process,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);
/// The forward chain that dockerd makes drops what it knows nothing of.
const DROPS: &str = ":FORWARD DROP";

/// dockerd, rnet and what joins them.
struct Site<'m> {
    machine: &'m Machine,
    dockerd: Dockerd<'m>,
    rnet: Rnet<'m>,
    socket: PathBuf,
    plugin: RefCell<Option<Process>>,
    log: tempfile::NamedTempFile,
}

impl<'m> Site<'m> {
    /// With a file that tells dockerd where the plugin listens.
    fn start(machine: &'m Machine, args: &[&str]) -> Self {
        let site = Self::without_plugin(machine, args, |rnet, _| {
            Path::new("/run").join(rnet.instance()).join("docker-plugin.sock")
        });
        site.dockerd.add_plugin_spec("rnet.spec", &format!("unix://{}", site.socket.display()));
        site.start_plugin();
        site
    }

    /// With the plugin's socket where dockerd looks for it.
    fn start_beside(machine: &'m Machine) -> Self {
        let site =
            Self::without_plugin(machine, &[], |_, dockerd| dockerd.plugin_sockets().join("rnet.sock"));
        site.start_plugin();
        site
    }

    fn without_plugin(
        machine: &'m Machine,
        args: &[&str],
        socket: impl FnOnce(&Rnet<'m>, &Dockerd<'m>) -> PathBuf,
    ) -> Self {
        let rnet = Rnet::start(machine);
        let dockerd = Dockerd::start(machine, args);
        let rules = machine.ns.output_of("iptables-save", &[]).unwrap_or_default();
        assert!(rules.contains(DROPS), "dockerd has its rules: {rules}");
        let socket = socket(&rnet, &dockerd);
        let log = tempfile::NamedTempFile::new().unwrap();
        Self { machine, dockerd, rnet, socket, plugin: RefCell::new(None), log }
    }

    fn start_plugin(&self) {
        let socket = self.socket.display().to_string();
        let is_default = self.socket.ends_with("docker-plugin.sock");
        let args: &[&str] = if is_default { &[] } else { &["--socket", &socket] };
        let mut command = self.rnet.command(&[&["docker-plugin"], args].concat());
        let log = File::options().append(true).open(self.log.path()).unwrap();
        // Each call is in the log then.
        command.env("RUST_LOG", "rnet=debug");
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = Process::start(command);
        let connect = || self.machine.ns.run(|| UnixStream::connect(&socket)).ok();
        wait_until("the plugin answers", LIMIT, connect);
        *self.plugin.borrow_mut() = Some(process);
    }

    /// Ends the plugin in good order.
    fn stop_plugin(&self) {
        let mut plugin = self.plugin.borrow_mut().take().unwrap();
        plugin.terminate();
        let status = plugin.wait(LIMIT).expect("the plugin ends on SIGTERM");
        assert!(status.success(), "{status}: {}", self.said());
        let socket = &self.socket;
        assert!(!self.machine.ns.run(|| socket.exists()), "its socket goes with it");
    }

    /// Ends it as a crash would.
    fn kill_plugin(&self) {
        self.plugin.borrow_mut().take().unwrap().kill();
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Makes a network with rnet's driver.
    fn network(&self, name: &str, args: &[&str]) -> String {
        self.dockerd.line(&[&["network", "create", "--driver", "rnet"], args, &[name]].concat())
    }

    /// Runs a container with a MAC address. Docker's newer clients ask for it in a way that this dockerd is too old for.
    fn run_with_mac(&self, name: &str, network: &str, ip: &str, mac: &str) -> Container {
        let body = json!({
            "Image": IMAGE, "MacAddress": mac, "HostConfig": { "NetworkMode": network },
            "NetworkingConfig": { "EndpointsConfig": { network: { "IPAMConfig": { "IPv4Address": ip } } } },
        });
        let body = body.to_string();
        let socket = self.dockerd.socket();
        let mut stream = self.machine.ns.run(|| UnixStream::connect(socket)).unwrap();
        let head = format!(
            "POST /v1.41/containers/create?name={name} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 201 "), "{answer}");
        self.dockerd.ok(&["start", name]);
        self.dockerd.container(name)
    }

    /// The id of a container's endpoint on a network, by which rnet knows it.
    fn endpoint(&self, container: &str, network: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").EndpointID}}}}");
        self.dockerd.line(&["inspect", "--format", &format, container])
    }

    /// Where on the host a port of a container is published.
    fn port(&self, container: &str, network: &str, port: &str) -> Vec<SocketAddr> {
        let shown = self.rnet.ok(&["port", &self.endpoint(container, network), port]);
        shown.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// What rnet has of Docker's.
    fn endpoints(&self) -> Vec<Value> {
        self.rnet.json(&["ps", "-a"])
    }

    /// What could be left of it when it is removed. Rules are dockerd's, which orders them anew when it starts.
    fn made(&self) -> Vec<String> {
        let networks = self.rnet.json(&["network", "ls", "--no-trunc"]);
        let state = Path::new("/var/lib").join(self.rnet.instance()).join("docker-plugin.json");
        let kept = self.machine.ns.run(|| state.exists());
        let links = self.machine.ns.output_of("ip", &["-o", "-br", "link", "show"]).unwrap();
        let links = links.lines().map(|line| line.split(' ').next().unwrap().to_owned());
        let all = [self.endpoints(), networks].concat().into_iter().map(|value| value["ID"].to_string());
        links.chain(all).chain([format!("state: {kept}")]).collect()
    }

    fn veths(&self) -> Vec<String> {
        let links = self.machine.ns.output_of("ip", &["-o", "link", "show", "type", "veth"]).unwrap();
        let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
        names.filter(|name| *name != testbed::topology::UPLINK).map(str::to_owned).collect()
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what the plugin had to say")]
            {
                eprintln!("--- log of the plugin\n{}---", self.said());
            }
        }
    }
}
