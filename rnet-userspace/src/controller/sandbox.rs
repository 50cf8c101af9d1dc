//! Which network namespace a container is in: one of its own, another container's, somebody else's, or the host's.

use std::path::{Path, PathBuf};

use super::{
    Controller,
    backend::{Datapath, Host},
    error::{Error, Result},
    request::{self, Connect, CreateContainer},
    view::{ContainerState, Namespaces},
};
use crate::store::schema::{Container, Driver, Namespace, Phase};

/// The network of a container that names none.
const DEFAULT_NETWORK: &str = "bridge";
/// What `--network` begins with that means another container's.
const SHARED: &str = "container:";
/// The daemon's own namespace, which is the host's.
const HOST_NETNS: &str = "/proc/self/ns/net";

/// What was asked for with `--network`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// To be on these.
    Networks(Vec<Connect>),
    /// To have a loopback only.
    None,
    /// The host's network.
    Host,
    /// That of the container with this id.
    Shared(String),
}

impl<H: Host, D: Datapath> Controller<H, D> {
    /// What was asked for, and how Docker shows it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a network or container that is not there; [`Error::Invalid`] for what contradicts
    /// itself; [`Error::Conflict`] for a container that does not run.
    pub(super) fn mode(&self, request: &CreateContainer) -> Result<(Mode, String)> {
        let default = [Connect::to(DEFAULT_NETWORK)];
        let asked = if request.networks.is_empty() { &default[..] } else { &request.networks };
        let [first, others @ ..] = asked else {
            return Err(Error::Invalid("create container: no network is named".to_owned()));
        };
        let mode = if let Some(other) = first.network.strip_prefix(SHARED) {
            let other = self.shareable(other)?;
            (Mode::Shared(other.id.clone()), format!("{SHARED}{}", other.id))
        } else {
            // Without a name it is the default one, as `default` is.
            let name = if first.network.is_empty() { DEFAULT_NETWORK } else { &first.network };
            match self.find_network(if name == "default" { DEFAULT_NETWORK } else { name }) {
                Ok(network) if network.driver == Driver::Host => (Mode::Host, "host".to_owned()),
                Ok(network) if network.driver == Driver::Null => (Mode::None, "none".to_owned()),
                Ok(network) => (Mode::Networks(asked.to_vec()), network.name.clone()),
                Err(e) => return Err(e),
            }
        };
        if matches!(mode.0, Mode::Networks(_)) {
            return Ok(mode);
        }
        if !others.is_empty() {
            return Err(Error::Invalid(format!(
                "conflicting options: --network {} cannot be combined with another network",
                first.network
            )));
        }
        if *first != Connect::to(&first.network) {
            return Err(Error::Invalid(format!(
                "conflicting options: a container with --network {} has no interface of its own to give an address, a \
                 MAC address or an alias to",
                first.network
            )));
        }
        self.check_mode(&mode.0, request)?;
        Ok(mode)
    }

    /// The namespace of a container that is to be called `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when what was given is not a network namespace, or is the host's own.
    pub(super) fn namespace(&self, mode: &Mode, request: &CreateContainer, name: &str) -> Result<Namespace> {
        match (mode, &request.namespace) {
            (Mode::Shared(id), _) => Ok(Namespace::Shared(id.clone())),
            (Mode::Host, _) => Ok(Namespace::Host),
            (Mode::Networks(_) | Mode::None, None) => Ok(Namespace::Own(self.netns_name(name))),
            (Mode::Networks(_) | Mode::None, Some(given)) => self.given(given),
        }
    }

    /// Where a container's namespace is, or was; none for the host's.
    pub(super) fn netns_path(&self, container: &Container) -> Option<PathBuf> {
        match container.netns.as_ref()? {
            Namespace::Own(name) => Some(self.machine.host.netns_path(name)),
            Namespace::Shared(id) => Some(self.shared_path(container, id)),
            Namespace::Given { path, .. } => Some(path.clone()),
            Namespace::Host => None,
        }
    }

    /// Which UTS and IPC namespaces a container's processes are to be in.
    pub(super) fn namespaces(&self, container: &Container) -> Namespaces {
        match &container.netns {
            Some(Namespace::Host) => Namespaces::Host,
            Some(Namespace::Shared(id)) => Namespaces::Held(self.dir(id)),
            Some(Namespace::Own(_) | Namespace::Given { .. }) | None => {
                Namespaces::Held(self.dir(&container.id))
            }
        }
    }

    /// Whether a container's namespace is there, and is the one that it was.
    ///
    /// # Errors
    /// When this can't be told.
    pub(super) fn netns_is_there(&self, container: &Container) -> Result<bool> {
        let host = &self.machine.host;
        Ok(match &container.netns {
            Some(Namespace::Own(name)) => host.netns_exists(&host.netns_path(name))?,
            Some(Namespace::Given { path, number }) => {
                host.netns_exists(path)? && host.netns_id(path)? == *number
            }
            Some(Namespace::Shared(_) | Namespace::Host) => true,
            // Where an engine has not said, it says when the container is gone.
            None => container.engine.is_some(),
        })
    }

    pub(super) fn netns_name(&self, container: &str) -> String {
        format!("{}-{container}", self.config.instance)
    }

    /// A process keeps the namespace that it shares when the container that it belongs to is gone.
    fn shared_path(&self, container: &Container, other: &str) -> PathBuf {
        if let Some(pid) = container.pid {
            return PathBuf::from(format!("/proc/{pid}/ns/net"));
        }
        let other = self.machine.state.containers.get(other);
        match other.and_then(|other| other.netns.as_ref()) {
            Some(Namespace::Own(name)) => self.machine.host.netns_path(name),
            Some(Namespace::Given { path, .. }) => path.clone(),
            // Where there is nothing: it must not be taken for the host's.
            Some(Namespace::Shared(_) | Namespace::Host) | None => self.dir(&container.id).join("netns"),
        }
    }

    fn check_mode(&self, mode: &Mode, request: &CreateContainer) -> Result<()> {
        let refuse = |why: &str| Err(Error::Invalid(format!("conflicting options: {why}")));
        let keeps_nothing = matches!(mode, Mode::Host | Mode::Shared(_)) && request.command.is_empty();
        if keeps_nothing {
            return refuse("a container without a network namespace of its own needs a command");
        }
        if request.namespace.is_some() {
            return refuse("a namespace that somebody else made is attached to networks with bridges");
        }
        if !matches!(mode, Mode::Shared(_)) {
            return Ok(());
        }
        // Docker's words.
        for (given, what) in [
            (request.hostname.is_some(), "hostname and the network mode"),
            (!request.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
            (
                !(request.dns.is_empty() && request.dns_search.is_empty() && request.dns_options.is_empty()),
                "dns and the network mode",
            ),
            (
                !request.publish.is_empty() || request.publish_all,
                "port publishing and the container type network mode",
            ),
            (!request.expose.is_empty(), "port exposing and the container type network mode"),
        ] {
            if given {
                return refuse(what);
            }
        }
        Ok(())
    }

    /// The container whose network another may share.
    fn shareable(&self, name: &str) -> Result<&Container> {
        let other = self.find_container(name)?;
        if other.state != ContainerState::Running || other.phase != Phase::Ready {
            return Err(Error::Conflict(format!(
                "cannot join network of a non running container: {}",
                other.id
            )));
        }
        match &other.netns {
            Some(Namespace::Own(_) | Namespace::Given { .. }) => Ok(other),
            Some(Namespace::Shared(_)) => Err(Error::Invalid(format!(
                "container {} shares the network of another container itself: name that one",
                other.name
            ))),
            Some(Namespace::Host) | None => Err(Error::Invalid(format!(
                "container {} has no network of its own: use --network host",
                other.name
            ))),
        }
    }

    fn given(&self, given: &request::Namespace) -> Result<Namespace> {
        let host = &self.machine.host;
        let path = match given {
            request::Namespace::Path(path) => path.clone(),
            request::Namespace::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        };
        let number = host.netns_id(&path).map_err(|e| match given {
            request::Namespace::Path(_) => Error::Invalid(format!("attach namespace: {e:#}")),
            request::Namespace::Pid(pid) => {
                Error::Invalid(format!("attach namespace of process {pid}: {e:#}"))
            }
        })?;
        if host.netns_id(Path::new(HOST_NETNS)).is_ok_and(|own| own == number) {
            return Err(Error::Invalid(format!(
                "attach namespace {}: it is the host's own: name another, as /run/netns/NAME",
                path.display()
            )));
        }
        let containers = self.machine.state.containers.values();
        let mut attached = containers.filter(|c| {
            self.netns_path(c).is_some_and(|path| host.netns_id(&path).is_ok_and(|id| id == number))
        });
        if let Some(other) = attached.find(|c| !matches!(c.netns, Some(Namespace::Shared(_)))) {
            return Err(Error::Conflict(format!(
                "attach namespace {}: it is container {}'s: connect that one to more networks with `rnet network connect`",
                path.display(),
                other.name
            )));
        }
        Ok(Namespace::Given { path, number })
    }
}
