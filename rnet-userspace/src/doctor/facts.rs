//! What the checks go by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::TcpStream, time};

use crate::{
    api::client::{Client, Result},
    config::{DaemonConfig, Flags},
    controller::{
        self,
        model::{HostPort, Protocol},
        view,
    },
    datapath::survey::{self as programs, Hooks},
    host::{
        netfilter, preflight,
        survey::{self, LinkFacts},
    },
};

/// Ports and name servers that are tried: more would take long, and the first say enough.
const MOST: usize = 64;
/// How long a name server on this host may take to take a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// Settings that are looked at, below `/proc/sys/net`.
const SETTINGS: [&str; 9] = [
    "bridge/bridge-nf-call-iptables",
    "core/bpf_jit_enable",
    "core/bpf_jit_harden",
    "ipv4/conf/all/route_localnet",
    "ipv4/conf/all/rp_filter",
    "ipv4/ip_forward",
    "ipv4/ip_local_port_range",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
];

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) instance: String,
    pub(super) release: String,
    pub(super) capabilities: u64,
    pub(super) settings: BTreeMap<String, String>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub(super) unprivileged_bpf: Option<String>,
    pub(super) has_btf: bool,
    pub(super) has_bpffs: bool,
    pub(super) has_cgroup2: bool,
    /// A chain of Docker's is in the table `nat`.
    pub(super) docker_has_rules: bool,
    pub(super) links: BTreeMap<String, LinkFacts>,
    pub(super) hooks: BTreeMap<String, Hooks>,
    /// Names of the programs on the root cgroup, by hook.
    pub(super) socket_hooks: BTreeMap<&'static str, Vec<String>>,
    /// Names of the XDP programs on interfaces.
    pub(super) xdp: BTreeMap<String, String>,
    /// Directories of pins, by layout.
    pub(super) layouts: BTreeSet<String>,
    /// Programs on interfaces that are pinned, with the interface's index.
    pub(super) pinned: BTreeSet<(String, u32)>,
    /// Programs on the root cgroup that have no pin.
    pub(super) unpinned_sockets: Vec<&'static str>,
    /// Namespaces in `/run/netns` that begin with the instance's name, without it.
    pub(super) namespaces: BTreeSet<String>,
    /// Ids of the containers that the state on disk knows.
    pub(super) records: BTreeSet<String>,
    /// Where the configuration is looked for, whether it is there, and what is wrong with it.
    pub(super) config: Configuration,
    pub(super) daemon: Daemon,
}

/// The configuration's file.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    pub(super) path: PathBuf,
    pub(super) is_there: bool,
    pub(super) wrong: Option<String>,
    /// What the daemon can do with, and should be looked at.
    pub(super) warnings: Vec<String>,
    pub(super) follows_docker: bool,
}

/// What the daemon says.
#[derive(Debug)]
pub(super) enum Daemon {
    /// Why it says nothing.
    Silent(String),
    Answers(Box<Answers>),
}

impl Default for Daemon {
    fn default() -> Self {
        Self::Silent(String::new())
    }
}

/// What a daemon that answers says, and what was tried by it.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) status: view::Status,
    pub(super) usage: view::Usage,
    pub(super) networks: Vec<view::Network>,
    pub(super) containers: Vec<view::Container>,
    /// Published ports that a host's program could take.
    pub(super) free: Vec<HostPort>,
    /// TCP ports that a program listens at.
    pub(super) listening: Vec<u16>,
    /// Gateways where no name server takes a connection.
    pub(super) mute: Vec<IpAddr>,
}

impl Facts {
    /// The answers, if there are any.
    pub(super) fn answers(&self) -> Option<&Answers> {
        match &self.daemon {
            Daemon::Silent(_) => None,
            Daemon::Answers(answers) => Some(answers),
        }
    }

    /// A setting's value.
    pub(super) fn setting(&self, path: &str) -> Option<&str> {
        self.settings.get(path).map(String::as_str)
    }
}

/// Looks. What cannot be seen, such as for want of root, is left out.
pub(super) async fn gather(client: &Client, instance: &str, config: Option<PathBuf>) -> Facts {
    let daemon = match ask(client).await {
        Ok(answers) => Daemon::Answers(Box::new(answers)),
        Err(e) => Daemon::Silent(e.to_string()),
    };
    let name = instance.to_owned();
    // Netlink is asked by calls that block.
    let local = tokio::task::spawn_blocking(move || local(&name, config)).await;
    Facts { daemon, ..local.unwrap_or_default() }
}

async fn ask(client: &Client) -> Result<Answers> {
    let (status, usage) = (client.status().await?, client.usage().await?);
    let (networks, containers) = (client.every_network().await?, client.every_container().await?);
    let published: Vec<HostPort> = containers
        .iter()
        .filter(|c| c.state != view::ContainerState::Exited)
        .flat_map(|c| &c.ports)
        // In gateway mode `routed` a port is the container's own; what is not held is somebody else's to keep.
        .filter(|binding| binding.host.addr != binding.addr && !binding.unheld)
        .map(|binding| binding.host)
        .take(MOST)
        .collect();
    let free = published.into_iter().filter(is_free).collect();
    let mut mute = Vec::new();
    let gateways = networks
        .iter()
        .filter(|network| !network.predefined && network.driver == "bridge" && network.engine.is_none())
        .flat_map(|network| &network.subnets)
        .filter_map(|subnet| subnet.gateway);
    for gateway in gateways.take(MOST) {
        let connected = time::timeout(PATIENCE, TcpStream::connect(SocketAddr::new(gateway, 53))).await;
        if !connected.is_ok_and(|connected| connected.is_ok()) {
            mute.push(gateway);
        }
    }
    Ok(Answers { status, usage, networks, containers, free, listening: survey::listening(), mute })
}

/// Whether a program could take it.
fn is_free(port: &HostPort) -> bool {
    let at = SocketAddr::new(port.addr, port.port);
    match port.protocol {
        Protocol::Tcp => TcpListener::bind(at).is_ok(),
        Protocol::Udp => UdpSocket::bind(at).is_ok(),
        // The kernel need not have it, in which case nobody can take it.
        Protocol::Sctp => false,
    }
}

fn local(instance: &str, config: Option<PathBuf>) -> Facts {
    let links = survey::links().unwrap_or_default();
    let pins = controller::pins(instance);
    let own = pins.join(controller::layout());
    let xdp = |(name, link): (&String, &LinkFacts)| Some((name.clone(), programs::program(link.xdp?)?));
    let unprivileged = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").ok();
    let prefix = format!("{instance}-");
    let namespaces = survey::namespaces();
    Facts {
        instance: instance.to_owned(),
        release: preflight::release().unwrap_or_default(),
        capabilities: survey::capabilities(),
        settings: survey::settings(&SETTINGS),
        unprivileged_bpf: unprivileged.map(|value| value.trim_end().to_owned()),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        has_bpffs: survey::has_bpffs(),
        has_cgroup2: preflight::cgroup2().is_ok(),
        docker_has_rules: netfilter::has_nat_chain("DOCKER").unwrap_or(false),
        hooks: links.keys().map(|name| (name.clone(), programs::hooks(name))).collect(),
        socket_hooks: programs::socket_hooks(),
        xdp: links.iter().filter_map(xdp).collect(),
        links,
        layouts: survey::names(&pins).into_iter().filter(|name| name.starts_with('v')).collect(),
        pinned: programs::pinned(&own),
        unpinned_sockets: programs::unpinned_sockets(&own),
        namespaces: namespaces.iter().filter_map(|n| n.strip_prefix(&prefix)).map(str::to_owned).collect(),
        records: survey::names(&controller::state_dir(instance).join("containers"))
            .iter()
            .filter_map(|file| Some(file.split_once('.')?.0.to_owned()))
            .collect(),
        config: configuration(instance, config),
        daemon: Daemon::default(),
    }
}

fn configuration(instance: &str, file: Option<PathBuf>) -> Configuration {
    let path = file.clone().unwrap_or_else(|| crate::config::default_path(instance));
    let loaded = DaemonConfig::load(instance, &Flags { file, ..Flags::default() });
    let is_there = path.exists();
    match loaded {
        Ok(DaemonConfig { docker, warnings, .. }) => {
            Configuration { path, is_there, wrong: None, warnings, follows_docker: docker.is_some() }
        }
        Err(e) => Configuration { path, is_there, wrong: Some(format!("{e:#}")), ..Configuration::default() },
    }
}
