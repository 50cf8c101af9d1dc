//! What touches the kernel's network: netlink, namespaces, sysctl, resolv.conf, hosts, hostname.
//!
//! Everything acts on the network namespace of the calling thread, and no call changes which one that is.

mod adopted;
mod bridge;
pub mod bridge_ports;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod interfaces;
mod namespaces;
pub mod netfilter;
mod netlink;
mod netns;
mod offload;
mod pair;
mod ports;
pub mod preflight;
pub mod privileges;
pub mod process;
mod routes;
pub mod shaping;
pub mod survey;
mod sysctl;
#[cfg(test)]
mod testing;
pub mod traffic;
pub mod watch;

pub(crate) use self::sysctl::parse_ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;

use crate::controller::{
    backend::{
        BridgeSpec, BridgeState, DefaultRoute, Host, Link, PairSpec, PortHold, PortUnavailable, Uplink,
    },
    model::{HostPort, link::LinkKind},
};
use netlink::Netlink;

/// The network of the namespace that the calling thread is in. It blocks: async code calls it from a thread that
/// may, and a call on a thread that runs async tasks panics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Kernel {
    /// Makes sure that the kernel can be asked.
    ///
    /// # Errors
    /// It has no netlink socket for this process.
    pub fn open() -> Result<Self> {
        Netlink::open()?;
        Ok(Self)
    }
}

impl Host for Kernel {
    fn create_bridge(&self, spec: &BridgeSpec) -> Result<Link> {
        bridge::create(spec).with_context(|| format!("create bridge {}", spec.name))
    }

    fn bridge_state(&self, name: &str) -> Result<BridgeState> {
        adopted::state(name)
    }

    fn adopt_bridge(&self, spec: &BridgeSpec) -> Result<Link> {
        adopted::adopt(spec).with_context(|| format!("use bridge {}", spec.name))
    }

    fn restore_bridge(&self, name: &str, state: &BridgeState) -> Result<()> {
        adopted::restore(name, state).with_context(|| format!("give back bridge {name}"))
    }

    fn find_bridge(&self, name: &str) -> Result<Option<Link>> {
        bridge::find(&Netlink::open()?, name)
    }

    fn find_link(&self, name: &str) -> Result<Option<Link>> {
        Ok(Netlink::open()?.link(name)?.as_ref().map(netlink::link_of))
    }

    fn delete_link(&self, name: &str) -> Result<()> {
        Netlink::open()?.delete_link(name).with_context(|| format!("delete link {name}"))
    }

    fn delete_links(&self, names: &BTreeSet<String>) -> Result<()> {
        let what = || format!("delete {} links", names.len());
        Netlink::open()?.delete_links(names).with_context(what)
    }

    fn create_netns(&self, name: &str) -> Result<PathBuf> {
        netns::create(name).with_context(|| format!("create network namespace {name}"))
    }

    fn netns_path(&self, name: &str) -> PathBuf {
        netns::path(name)
    }

    fn netns_exists(&self, path: &Path) -> Result<bool> {
        netns::exists(path).with_context(|| format!("look at network namespace {}", path.display()))
    }

    fn delete_netns(&self, name: &str) -> Result<()> {
        netns::delete(name).with_context(|| format!("delete network namespace {name}"))
    }

    fn hold_namespaces(&self, dir: &Path, hostname: &str) -> Result<()> {
        namespaces::hold(dir, hostname).with_context(|| format!("hold namespaces in {}", dir.display()))
    }

    fn release_namespaces(&self, dir: &Path) -> Result<()> {
        namespaces::release(dir).with_context(|| format!("release the namespaces of {}", dir.display()))
    }

    fn set_sysctls(&self, netns: &Path, dir: &Path, settings: &BTreeMap<String, String>) -> Result<()> {
        namespaces::set_sysctls(netns, dir, settings)
    }

    fn netns_id(&self, path: &Path) -> Result<u64> {
        netns::id(path)
    }

    fn interfaces(&self, netns: &Path) -> Result<BTreeSet<String>> {
        netns::within(netns, routes::link_names)
    }

    fn link_names(&self) -> Result<BTreeSet<String>> {
        routes::link_names()
    }

    fn hostname(&self) -> Result<String> {
        let name = nix::unistd::gethostname().context("ask for the host's name")?;
        Ok(name.to_string_lossy().into_owned())
    }

    fn set_default_routes(&self, netns: &Path, interfaces: &[String], routes: &[DefaultRoute]) -> Result<()> {
        routes::set_default(&Netlink::in_netns(netns)?, interfaces, routes)
            .with_context(|| format!("set the default routes of {}", netns.display()))
    }

    fn lacks(&self, kind: LinkKind) -> Result<Option<String>> {
        pair::lacks(kind)
    }

    fn create_pair(&self, spec: &PairSpec) -> Result<Link> {
        pair::create(spec).with_context(|| {
            let place = spec.netns.as_ref().map(|netns| format!(" in {}", netns.display()));
            let PairSpec { kind, host_name, name, .. } = spec;
            format!("create {kind} {host_name} with {name}{}", place.unwrap_or_default())
        })
    }

    fn take_frames(&self, netns: &Path, interface: &str) -> Result<()> {
        netns::within(netns, || Ok(offload::join_received(interface)?))
            .with_context(|| format!("switch receive offload of {interface} in {} on", netns.display()))
    }

    fn lend_bridge(&self, name: &str) -> Result<()> {
        adopted::lend(name).with_context(|| format!("set up bridge {name}"))
    }

    fn return_bridge(&self, name: &str, state: &BridgeState) -> Result<()> {
        adopted::give_back(name, state).with_context(|| format!("give back bridge {name}"))
    }

    fn isolate_port(&self, name: &str, isolated: bool) -> Result<()> {
        pair::isolate(name, isolated)
    }

    fn routes(&self) -> Result<Vec<IpNetwork>> {
        routes::destinations(&Netlink::open()?)
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        routes::addresses(&Netlink::open()?)
    }

    fn uplinks(&self, own: &BTreeSet<String>) -> Result<Vec<Uplink>> {
        routes::uplinks(&Netlink::open()?, own)
    }

    fn hold_ports(&self, ports: &[HostPort]) -> Result<Box<dyn PortHold>, PortUnavailable> {
        Ok(Box::new(ports::hold(ports)?))
    }

    fn ephemeral_ports(&self) -> Result<(u16, u16)> {
        sysctl::ephemeral_ports()
    }

    fn forwarding_off(&self, uplinks: &[Uplink], ipv6: bool) -> Result<BTreeSet<String>> {
        sysctl::forwarding_off(uplinks.iter().map(|uplink| uplink.name.as_str()), ipv6)
    }

    fn exit_code(&self, dir: &Path) -> Result<Option<i32>> {
        process::status_of_ended(&dir.join(process::STATUS_FILE))
    }

    fn process_start(&self, pid: u32) -> Result<Option<u64>> {
        process::start_time(pid).with_context(|| format!("look at process {pid}"))
    }
}

/// Settings that keep the stack from forwarding what arrives at an interface in one address family, by their names as
/// `net.ipv4.conf.docker0.forwarding`: each would have to be 1.
///
/// # Errors
/// They cannot be read.
pub fn forwarding_off(interface: &str, ipv6: bool) -> Result<BTreeSet<String>> {
    sysctl::forwarding_off(std::iter::once(interface), ipv6)
}

/// Undoes what a failed operation had made, and tells of both failures where that fails too.
fn or_undo<T>(result: Result<T>, undo: impl FnOnce() -> Result<()>) -> Result<T> {
    result.map_err(|error| match undo() {
        Ok(()) => error,
        Err(undo) => error.context(format!("something is left behind, as undoing failed ({undo:#})")),
    })
}
