//! A way that packets can take, with a load server at its end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::{Netns, Rnet, process};

use crate::load::{COUNT, Measured, Workload};

/// The port of every load server, and under which it is published.
pub(crate) const PORT: u16 = 8080;
/// The processor of the clients.
const CLIENT_CPU: &str = "0";
/// The processor of the servers.
const SERVER_CPU: &str = "1";
/// How long a tool that makes ten thousand rules may take.
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// One way from a client to a server, up and waiting. Everything that belongs to it goes when it is dropped.
pub(crate) struct Path<'h> {
    /// Its name in the report.
    pub(crate) name: &'static str,
    client: Netns,
    server: Netns,
    target: SocketAddr,
    /// The interface of each end whose offloads can be switched.
    interfaces: [&'static str; 2],
    // In the order in which they have to go.
    process: Server,
    others: Vec<Server>,
    _proxy: Option<Owner>,
    rnet: Option<Rnet<'h>>,
    _namespaces: Vec<Netns>,
}

/// What a path is made of, besides its server.
#[derive(Default)]
pub(super) struct Owned<'h> {
    pub(super) rnet: Option<Rnet<'h>>,
    pub(super) namespaces: Vec<Netns>,
}

impl<'h> Path<'h> {
    /// A path whose client and server run in these namespaces, and reach one another through `interfaces`.
    ///
    /// # Errors
    /// When the server does not start.
    pub(super) fn new(
        name: &'static str,
        (client, server): (&Netns, &Netns),
        target: IpAddr,
        interfaces: [&'static str; 2],
        owned: Owned<'h>,
    ) -> Result<Self> {
        let any: IpAddr = match target {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let process = Server::start(server, SocketAddr::new(any, PORT)).with_context(|| name.to_owned())?;
        Ok(Self {
            name,
            client: Netns::open(client.path()),
            server: Netns::open(server.path()),
            target: SocketAddr::new(target, PORT),
            interfaces,
            process,
            others: Vec::new(),
            _proxy: None,
            rnet: owned.rnet,
            _namespaces: owned.namespaces,
        })
    }

    /// The instance of rnet that the path leads through.
    pub(crate) fn rnet(&self) -> Option<&Rnet<'h>> {
        self.rnet.as_ref()
    }

    /// Where the clients run.
    pub(crate) fn client(&self) -> &Netns {
        &self.client
    }

    /// What they address.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    /// Starts one more server beside the other, at another port.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn also_serve(&mut self, port: u16) -> Result<()> {
        let any = std::net::Ipv4Addr::UNSPECIFIED.into();
        self.others.push(Server::start(&self.server, SocketAddr::new(any, port))?);
        Ok(())
    }

    /// Puts a proxy in the client's namespace, which the client then addresses instead.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn through_proxy(mut self, at: IpAddr) -> Result<Self> {
        let bind = SocketAddr::new(at, PORT);
        let mut command = self.client.command(this_program()?);
        command.args(["load", "proxy", "--bind", &bind.to_string(), "--target", &self.target.to_string()]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the proxy")?;
        let stdout = child.stdout.take();
        self._proxy = Some(Owner(child));
        let mut line = String::new();
        stdout
            .map(|out| BufReader::new(out).read_line(&mut line))
            .transpose()
            .context("wait for the proxy")?;
        ensure!(line == "ready\n", "the proxy of {} does not start", self.name);
        self.target = bind;
        Ok(self)
    }

    /// Runs a workload through the path.
    ///
    /// # Errors
    /// When nothing passes.
    pub(crate) fn run(&mut self, workload: Workload, duration: Duration) -> Result<Measured> {
        let switched = workload == Workload::StreamNoTso;
        if switched {
            self.set_segmentation(false)?;
        }
        let outcome = self.drive(workload, duration);
        if switched {
            self.set_segmentation(true)?;
        }
        outcome.with_context(|| format!("{} through {}", workload.name(), self.name))
    }

    fn drive(&mut self, workload: Workload, duration: Duration) -> Result<Measured> {
        self.process.count()?;
        let mut command = self.client.command(this_program()?);
        command.args(["load", "drive", "--cpu", CLIENT_CPU, "--workload", &workload.name()]);
        command.args(["--target", &self.target.to_string(), "--millis", &duration.as_millis().to_string()]);
        let finished = process::run(command, duration + Duration::from_secs(20));
        ensure!(
            finished.status.success(),
            "the client ended with {}: {}",
            finished.status,
            finished.stderr.trim()
        );
        let mut measured: Measured =
            serde_json::from_str(&finished.stdout).context("read what the client found")?;
        if workload.is_counted_by_server() {
            // What is under way arrives meanwhile.
            std::thread::sleep(Duration::from_millis(20));
            // Lossless: far below 2^53.
            measured.units = self.process.count()? as f64;
            ensure!(measured.units > 0.0, "no datagram arrived");
        }
        Ok(measured)
    }

    /// Whether both ends leave it to the device to cut and join segments.
    fn set_segmentation(&self, on: bool) -> Result<()> {
        let value = if on { "on" } else { "off" };
        for (ns, interface) in [&self.client, &self.server].into_iter().zip(self.interfaces) {
            tool(ns, "ethtool", &["-K", interface, "tso", value, "gso", value])?;
        }
        Ok(())
    }
}

/// Runs a tool inside a namespace.
///
/// # Errors
/// When it fails, with what it said.
pub(super) fn tool(ns: &Netns, program: &str, args: &[&str]) -> Result<()> {
    let mut command = ns.command(program);
    command.args(args);
    let finished =
        process::try_run(command, TOOL_LIMIT).with_context(|| format!("{program} is not installed"))?;
    ensure!(finished.status.success(), "{program} {}: {}", args.join(" "), finished.stderr.trim());
    Ok(())
}

/// Gives a tool that reads rules from its standard input these.
///
/// # Errors
/// When it does not take them, with what it said.
pub(super) fn feed(ns: &Netns, program: &str, args: &[&str], rules: &str) -> Result<()> {
    let mut command = ns.command(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes()).with_context(|| format!("write rules to {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("find this program's own file")
}

/// A process that is ended when it is dropped.
struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A load server.
struct Server {
    _process: Owner,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(ns: &Netns, bind: SocketAddr) -> Result<Self> {
        let mut command = ns.command(this_program()?);
        command.args(["load", "serve", "--cpu", SERVER_CPU, "--bind", &bind.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a load server")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let process = Owner(child);
        let stdin = stdin.context("a load server has no standard input")?;
        let stdout = BufReader::new(stdout.context("a load server has no standard output")?);
        let mut server = Self { _process: process, stdin, stdout };
        ensure!(server.line()? == "ready", "a load server does not start");
        Ok(server)
    }

    /// How many datagrams arrived since the last call.
    fn count(&mut self) -> Result<u64> {
        self.stdin.write_all(COUNT).context("ask a load server")?;
        self.line()?.parse().context("read a load server's answer")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.by_ref().read_line(&mut line).context("read from a load server")?;
        Ok(line.trim_end().to_owned())
    }
}
