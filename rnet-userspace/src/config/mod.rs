//! What a daemon is told: by the file that takes Docker's `daemon.json` keys, and by its flags.
//!
//! ```text
//! text ─ json ─▶ values with their places ─ file ─▶ known keys, each once ─ resolve ─▶ DaemonConfig ◀─ flags
//! ```
//!
//! Whatever is wrong with the file is refused with its line and column. A key that is also a flag's is refused, as
//! with Docker. SIGHUP reads the file again: [`KEYS`] says what can change then.

mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod json;
mod keys;
mod resolve;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use ipnetwork::IpNetwork;
use tokio_rustls::rustls::ServerConfig;

use self::{file::File, json::Source};
pub use self::{
    json::Error,
    keys::{KEYS, Key},
    value::Level,
};
use crate::{
    api::{address::Address, connections},
    bounded,
    controller::{self, model::xdp::Xdp, request::Subnet},
};

/// Flows that a table can be made for.
pub const MAX_FLOWS: u32 = controller::backend::MOST_FLOWS;
/// New flows a second of one source: more than one processor opens.
pub const MAX_SOURCE_RATE: u32 = 1_000_000;
/// What the table of mappings has room for.
pub const MAX_PORTS: u32 = rnet_common::limits::PORTS as u32;

/// Reads a range of ports, as `1024-32767`.
///
/// # Errors
/// Says what it should be like.
pub fn port_range(text: &str) -> std::result::Result<(u16, u16), String> {
    value::port_range(text)
}

/// Reads where metrics are served, as `127.0.0.1:9323`.
///
/// # Errors
/// Says what it should be like.
pub fn metrics_addr(text: &str) -> std::result::Result<SocketAddr, String> {
    value::listen_addr(text)
}

/// What a daemon is told on its command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The file; [`default_path`] when absent, which need not be there.
    pub file: Option<PathBuf>,
    /// The interfaces that lead outside; empty for all that do.
    pub uplinks: Vec<String>,
    /// Which uplinks run an XDP program.
    pub xdp: Option<Xdp>,
    /// First and last source port given to masqueraded flows.
    pub snat_ports: Option<(u16, u16)>,
    /// The default network has IPv6.
    pub ipv6: bool,
    /// The default network's IPv6 subnet.
    pub fixed_cidr_v6: Option<IpNetwork>,
    /// Idle times by name, in seconds.
    pub timeouts: Vec<(String, u64)>,
    /// Flows of each address family.
    pub max_flows: Option<u32>,
    /// Published ports of each address family.
    pub max_ports: Option<u32>,
    /// Where the dockerd listens whose networks are served; absent for none.
    pub docker: Option<PathBuf>,
    /// Where metrics are served beside the API.
    pub metrics: Option<SocketAddr>,
    /// Maps of another layout are given up, with the connections in them.
    pub replace_layout: bool,
}

/// Everything that a daemon is told, checked as far as can be without the kernel.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// For the controller.
    pub instance: controller::Config,
    /// Flows of each address family; absent for what is there already, or the default.
    pub max_flows: Option<u32>,
    /// Published ports of each address family; absent for what is there already, or the default.
    pub max_ports: Option<u32>,
    /// Maps of another layout are given up, with the connections in them.
    pub replace_layout: bool,
    /// Where the dockerd listens whose networks are served; absent for none.
    pub docker: Option<PathBuf>,
    /// Where it listens beside its own socket.
    pub hosts: Vec<Address>,
    /// Where metrics are served beside the API; absent for nowhere else.
    pub metrics: Option<SocketAddr>,
    /// What it speaks TLS with on TCP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Connections to the API at once.
    pub max_connections: usize,
    /// How much it logs.
    pub log_level: Level,
    /// What the daemon can do with, and its operator had better know of.
    pub warnings: Vec<String>,
    /// What the file says.
    said: BTreeMap<&'static str, serde_json::Value>,
}

/// Where an instance's file is when nobody says: `/etc/rnet/daemon.json`.
pub fn default_path(instance: &str) -> PathBuf {
    Path::new("/etc").join(instance).join("daemon.json")
}

impl DaemonConfig {
    /// Reads the file and puts it together with the flags.
    ///
    /// # Errors
    /// The file is named and not there, or wrong, which an [`Error`] says with its place; a flag repeats one of its
    /// keys; what the flags say cannot be.
    pub fn load(instance: &str, flags: &Flags) -> Result<Self> {
        let path = flags.file.clone().unwrap_or_else(|| default_path(instance));
        let text = match bounded::text_file(&path, bounded::SETTINGS) {
            Err(e) if e.kind() == ErrorKind::NotFound && flags.file.is_none() => String::new(),
            text => text.with_context(|| format!("read the configuration from {}", path.display()))?,
        };
        let name = path.display().to_string();
        let file = File::parse(Source { file: &name, text: &text })?;
        let mut config = Self::from_flags(instance, flags)?;
        config.said = file.said();
        let repeated = repeated(flags, &config.said);
        if !repeated.is_empty() {
            bail!(
                "the following directives are specified both as a flag and in the configuration file: {}",
                repeated.join(", ")
            );
        }
        resolve::add(&file, &mut config)?;
        if config.docker.is_some() && !config.said.contains_key("default-address-pools") {
            resolve::leave_pools_to_docker(&mut config)?;
        }
        Ok(config)
    }

    /// The keys that the file says otherwise than `before`, and that wait for the next start.
    pub fn waiting(&self, before: &Self) -> Vec<&'static str> {
        let waits = |key: &&Key| !key.reloads && self.said.get(key.name) != before.said.get(key.name);
        KEYS.iter().filter(waits).map(|key| key.name).collect()
    }

    fn from_flags(instance: &str, flags: &Flags) -> Result<Self> {
        let mut config = controller::Config::new(instance)?;
        let Flags { uplinks, snat_ports, ipv6, fixed_cidr_v6, timeouts, .. } = flags;
        if !uplinks.is_empty() {
            config.uplinks = Some(uplinks.clone());
        }
        config.xdp = flags.xdp.unwrap_or(config.xdp);
        config.snat_ports = snat_ports.unwrap_or(config.snat_ports);
        config.default_network.ipv6 = *ipv6;
        config.default_network.subnet_v6 =
            fixed_cidr_v6.map(|subnet| Subnet { subnet: Some(subnet), ..Subnet::default() });
        let timeouts = timeouts.iter().cloned().collect();
        config.timeouts = controller::model::timeouts::changed(config.timeouts, &timeouts)?;
        Ok(Self {
            instance: config,
            max_flows: flags.max_flows,
            max_ports: flags.max_ports,
            replace_layout: flags.replace_layout,
            docker: flags.docker.clone(),
            hosts: Vec::new(),
            metrics: flags.metrics,
            tls: None,
            max_connections: connections::MAX_CONNECTIONS,
            log_level: Level::default(),
            warnings: Vec::new(),
            said: BTreeMap::new(),
        })
    }
}

/// Flags that say what the file says as well, in Docker's words.
fn repeated(flags: &Flags, said: &BTreeMap<&'static str, serde_json::Value>) -> Vec<String> {
    let times = flags.timeouts.iter().map(|(name, seconds)| format!("{name}={seconds}s")).collect::<Vec<_>>();
    let given = [
        ("fixed-cidr-v6", flags.fixed_cidr_v6.map(|net| net.to_string())),
        ("ipv6", flags.ipv6.then(|| true.to_string())),
        ("metrics-addr", flags.metrics.map(|addr| addr.to_string())),
        ("rnet.docker", flags.docker.as_ref().map(|socket| format!("unix://{}", socket.display()))),
        ("rnet.max-flows", flags.max_flows.map(|n| n.to_string())),
        ("rnet.max-ports", flags.max_ports.map(|n| n.to_string())),
        ("rnet.snat-port-range", flags.snat_ports.map(|(first, last)| format!("{first}-{last}"))),
        ("rnet.timeouts", (!times.is_empty()).then(|| times.join(" "))),
        ("rnet.xdp", flags.xdp.map(|mode| mode.to_string())),
        ("rnet.uplinks", (!flags.uplinks.is_empty()).then(|| flags.uplinks.join(" "))),
    ];
    let repeated = |(key, flag): (&str, Option<String>)| {
        let (flag, file) = (flag?, said.get(key)?);
        let file = file.as_str().map_or_else(|| file.to_string(), str::to_owned);
        Some(format!("{key}: (from flag: {flag}, from file: {file})"))
    };
    given.into_iter().filter_map(repeated).collect()
}
