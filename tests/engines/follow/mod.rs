//! Docker's own networks with rnet in the place of iptables and docker-proxy: `rnet daemon --docker` beside a dockerd
//! that does neither.

mod life;
mod networks;
mod policy;
mod publish;
mod restart;
mod start;

use std::{fs, ops::Deref, time::Duration};

use serde_json::json;
use tempfile::NamedTempFile;
use testbed::{
    Container, Rnet,
    capture::Capture,
    engine::{Dockerd, Machine},
    packet, topology, wait_until,
};

/// How long rnet may take to see what dockerd has done, on two busy cores.
const LIMIT: Duration = Duration::from_secs(20);

/// What leaves the firewall, and the proxy, to rnet.
pub(crate) const FLAGS: [&str; 3] = ["--iptables=false", "--ip6tables=false", "--userland-proxy=false"];

/// A machine with dockerd and rnet, and a capture of all that leaves it. Nothing in it may have a container's address.
pub(crate) struct Site<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) dockerd: Dockerd<'m>,
    pub(crate) rnet: Rnet<'m>,
    outside: Option<Capture>,
    config: NamedTempFile,
}

impl<'m> Site<'m> {
    pub(crate) fn new(machine: &'m Machine) -> Self {
        Self::with(machine, &[])
    }

    /// With options of dockerd.
    pub(crate) fn with(machine: &'m Machine, args: &[&str]) -> Self {
        Self::configured(machine, args, json!({}))
    }

    /// With options of dockerd, and keys of rnet's configuration.
    pub(crate) fn configured(machine: &'m Machine, args: &[&str], mut keys: serde_json::Value) -> Self {
        let outside = Some(Capture::start(&machine.client, topology::UPLINK));
        let dockerd = Dockerd::start(machine, &[&FLAGS[..], args].concat());
        let rnet = Rnet::new(machine);
        let config = NamedTempFile::new().unwrap();
        let socket = format!("unix://{}", dockerd.socket().display());
        // A test that fails shows what the daemon has seen.
        keys["log-level"] = json!("debug");
        keys["rnet"] = json!({ "docker": socket });
        fs::write(config.path(), keys.to_string()).unwrap();
        let site = Self { machine, dockerd, rnet, outside, config };
        site.start_rnet();
        site
    }

    pub(crate) fn start_rnet(&self) {
        self.rnet.start_daemon_with(&["--config", &self.config.path().display().to_string()]);
        self.await_docker();
    }

    /// Waits until rnet follows dockerd and has looked at all that is there.
    pub(crate) fn await_docker(&self) {
        wait_until("rnet follows dockerd", LIMIT, || {
            let status = self.rnet.json(&["status"]);
            status[0]["engines"][0]["version"].is_string().then_some(())
        });
    }

    /// Runs a container, and waits until rnet serves it with its ports.
    pub(crate) fn run(&self, name: &str, args: &[&str]) -> Container {
        let container = self.dockerd.run(name, args);
        self.await_served(name);
        container
    }

    /// Waits until rnet has a container as dockerd says it is: its addresses and its ports.
    pub(crate) fn await_served(&self, name: &str) {
        let wanted = self.addrs(&self.dockerd.ok(&["inspect", name]));
        wait_until(&format!("rnet serves {name}"), LIMIT, || {
            let inspected = self.rnet.cmd(&["inspect", name]);
            let is_there = inspected.status.success() && self.addrs(&inspected.stdout) == wanted;
            (is_there && self.ports_are_right(name)).then_some(())
        });
    }

    fn addrs(&self, inspected: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(inspected).unwrap();
        let networks = value[0]["NetworkSettings"]["Networks"].as_object().unwrap();
        let mut addrs: Vec<_> =
            networks.values().map(|n| n["IPAddress"].as_str().unwrap_or_default().to_owned()).collect();
        addrs.sort();
        addrs
    }

    /// A container's address on a network, as dockerd says it.
    pub(crate) fn address_on(&self, name: &str, network: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
        self.dockerd.line(&["inspect", "--format", &format, name])
    }

    /// Whether rnet has the IPv4 ports that dockerd has.
    fn ports_are_right(&self, name: &str) -> bool {
        let v4 = |text: &str| {
            let mut lines: Vec<_> = text
                .lines()
                .filter(|line| !line.contains("[::]") && !line.contains(":::"))
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        };
        v4(&self.dockerd.ok(&["port", name])) == v4(&self.rnet.cmd(&["port", name]).stdout)
    }

    /// Waits until rnet has no container called so.
    pub(crate) fn await_forgotten(&self, name: &str) {
        wait_until(&format!("rnet forgets {name}"), LIMIT, || {
            (!self.rnet.cmd(&["inspect", name]).status.success()).then_some(())
        });
    }

    /// Checks that no rule is in the firewall, whichever way it is asked.
    pub(crate) fn assert_no_rule(&self) {
        let nft = self.machine.ns.output_of("nft", &["list", "ruleset"]).unwrap();
        assert_eq!(nft, "", "rules in the firewall");
        for tool in ["iptables-save", "ip6tables-save", "iptables-legacy-save"] {
            let rules = self.machine.ns.output_of(tool, &[]).unwrap_or_default();
            let rules: Vec<_> = rules.lines().filter(|line| line.starts_with("-A")).collect();
            assert_eq!(rules, [""; 0], "{tool}");
        }
    }

    /// Ends the capture, and checks that nothing left with an address of a container's.
    pub(crate) fn assert_nothing_private(&mut self) {
        let frames = self.outside.take().unwrap().stop();
        let private: Vec<_> = frames
            .iter()
            .filter(|frame| {
                packet::tuple(frame).is_some_and(|t| is_private(&t.src.ip()) || is_private(&t.dst.ip()))
            })
            .map(|frame| packet::describe(frame))
            .collect();
        assert_eq!(private, [""; 0], "packets with a container's own address were outside");
    }
}

/// Docker's pools, and the IPv6 subnets that these tests give it.
fn is_private(addr: &std::net::IpAddr) -> bool {
    match addr {
        std::net::IpAddr::V4(addr) => addr.octets()[0] == 172 || addr.octets()[..2] == [192, 168],
        std::net::IpAddr::V6(addr) => addr.segments()[0] == 0xfd77,
    }
}

impl<'m> Deref for Site<'m> {
    type Target = Dockerd<'m>;

    fn deref(&self) -> &Dockerd<'m> {
        &self.dockerd
    }
}

/// What a command inside a container prints, whether it succeeds or not.
pub(crate) fn exec(dockerd: &Dockerd<'_>, name: &str, command: &str) -> String {
    let done = dockerd.cmd(&["exec", name, "sh", "-c", command]);
    done.stdout + &done.stderr
}
