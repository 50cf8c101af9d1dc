//! The steps that every change is made of, each with the step that undoes it.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;

use super::{
    backend::{BridgeSpec, BridgeState, DefaultRoute, EndpointAddr, PairSpec, Policy},
    files::ContainerFiles,
    model::{Binding, MacAddr},
};
use crate::store::schema::{Container, Network};

/// A record of the store before and after; absent where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change<T> {
    /// What the store has.
    pub before: Option<Box<T>>,
    /// What it is to have.
    pub after: Option<Box<T>>,
}

impl<T> Change<T> {
    /// A new record.
    pub(super) fn add(after: T) -> Self {
        Self { before: None, after: Some(Box::new(after)) }
    }

    /// Another record in place of `before`.
    pub(super) fn replace(before: T, after: T) -> Self {
        Self { before: Some(Box::new(before)), after: Some(Box::new(after)) }
    }

    /// No record.
    pub(super) fn remove(before: T) -> Self {
        Self { before: Some(Box::new(before)), after: None }
    }

    /// The change back.
    pub(super) fn reversed(&self) -> Self
    where
        T: Clone,
    {
        Self { before: self.after.clone(), after: self.before.clone() }
    }
}

/// An endpoint for the datapath, before it is known which interfaces the kernel made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointIntent {
    /// Name of the host's end of the pair.
    pub host_name: String,
    /// Name of the bridge.
    pub bridge: String,
    /// The network's number.
    pub network: u32,
    /// The container's interface.
    pub mac: MacAddr,
    /// The container's addresses.
    pub addrs: Vec<EndpointAddr>,
    /// MTU of the container's interface, in bytes.
    pub mtu: u32,
    /// The network's policy.
    pub policy: Policy,
}

/// Default routes of a namespace, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteChange {
    /// The namespace.
    pub netns: PathBuf,
    /// Interfaces whose routes are rnet's.
    pub interfaces: Vec<String>,
    /// What it has.
    pub before: Vec<DefaultRoute>,
    /// What it is to have.
    pub after: Vec<DefaultRoute>,
}

impl RouteChange {
    fn reversed(&self) -> Self {
        Self { before: self.after.clone(), after: self.before.clone(), ..self.clone() }
    }
}

/// One thing to do to the store, the disk, the kernel's network or the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes down a network, or strikes it out.
    SaveNetwork(Change<Network>),
    /// Writes down a container, or strikes it out.
    SaveContainer(Change<Container>),
    /// Makes a bridge.
    CreateBridge(BridgeSpec),
    /// Removes a bridge.
    DeleteBridge(String),
    /// Uses a bridge that somebody else made.
    AdoptBridge {
        /// What it is to be.
        spec: BridgeSpec,
        /// What it was.
        before: BridgeState,
    },
    /// Gives it back.
    RestoreBridge {
        /// Its name.
        name: String,
        /// What it was.
        state: BridgeState,
    },
    /// Has a bridge that stays an engine's own take back what the host is to fragment.
    LendBridge {
        /// Its name.
        name: String,
        /// What it was.
        before: BridgeState,
    },
    /// Gives its settings back.
    ReturnBridge {
        /// Its name.
        name: String,
        /// What it was.
        before: BridgeState,
    },
    /// Tells the datapath the host's own addresses.
    SetAddresses {
        /// What it knows.
        before: Vec<IpAddr>,
        /// What it is to know.
        after: Vec<IpAddr>,
    },
    /// Writes a container's files.
    WriteFiles(ContainerFiles),
    /// Writes them anew, where they are as they were written.
    UpdateFiles {
        /// What was written.
        before: ContainerFiles,
        /// What is to be.
        after: ContainerFiles,
    },
    /// Removes a container's directory.
    RemoveFiles(PathBuf),
    /// Makes a network namespace.
    CreateNetns(String),
    /// Removes a network namespace.
    DeleteNetns(String),
    /// Makes and holds a container's UTS and IPC namespaces.
    HoldNamespaces {
        /// The container's directory.
        dir: PathBuf,
        /// Its host name.
        hostname: String,
    },
    /// Lets go of those that this directory holds.
    ReleaseNamespaces(PathBuf),
    /// Sets settings of a container's own namespaces.
    SetSysctls {
        /// Its network namespace.
        netns: PathBuf,
        /// The directory that holds the others.
        dir: PathBuf,
        /// Values by name.
        settings: BTreeMap<String, String>,
    },
    /// Makes a pair of interfaces.
    CreatePair(PairSpec),
    /// Removes the pair whose host's end has this name.
    DeletePair(String),
    /// Has a bridge pass nothing between a port, which somebody else made, and others that are isolated.
    IsolatePort(String),
    /// Takes that back.
    ReleasePort(String),
    /// Changes the default routes of a namespace.
    SetDefaultRoutes(RouteChange),
    /// Makes an endpoint known to the datapath.
    AddEndpoint(EndpointIntent),
    /// Makes the datapath forget an endpoint.
    RemoveEndpoint(EndpointIntent),
    /// Says which addresses a list has.
    SetSources {
        /// The list's number.
        number: u32,
        /// What it has; empty when there is none.
        before: Vec<IpNetwork>,
        /// What it is to have; empty for no list.
        after: Vec<IpNetwork>,
    },
    /// Publishes ports.
    Publish(Vec<Binding>),
    /// Publishes ports in place of others.
    Republish {
        /// What is published.
        before: Vec<Binding>,
        /// What is to be.
        after: Vec<Binding>,
    },
    /// Withdraws ports.
    Unpublish(Vec<Binding>),
}

impl Step {
    /// The step that undoes this one. Steps that remove have none: a removal goes on past errors and is
    /// finished later, it is never taken back.
    pub(super) fn inverse(&self) -> Option<Self> {
        match self {
            Self::SaveNetwork(change) => Some(Self::SaveNetwork(change.reversed())),
            Self::SaveContainer(change) => Some(Self::SaveContainer(change.reversed())),
            Self::CreateBridge(spec) => Some(Self::DeleteBridge(spec.name.clone())),
            Self::AdoptBridge { spec, before } => {
                Some(Self::RestoreBridge { name: spec.name.clone(), state: before.clone() })
            }
            Self::LendBridge { name, before } => {
                Some(Self::ReturnBridge { name: name.clone(), before: before.clone() })
            }
            Self::SetAddresses { before, after } => {
                Some(Self::SetAddresses { before: after.clone(), after: before.clone() })
            }
            Self::WriteFiles(files) => Some(Self::RemoveFiles(files.dir.clone())),
            Self::UpdateFiles { before, after } => {
                Some(Self::UpdateFiles { before: after.clone(), after: before.clone() })
            }
            Self::SetDefaultRoutes(change) => Some(Self::SetDefaultRoutes(change.reversed())),
            Self::SetSources { number, before, after } => {
                Some(Self::SetSources { number: *number, before: after.clone(), after: before.clone() })
            }
            Self::Republish { before, after } => {
                Some(Self::Republish { before: after.clone(), after: before.clone() })
            }
            Self::CreateNetns(name) => Some(Self::DeleteNetns(name.clone())),
            Self::HoldNamespaces { dir, .. } => Some(Self::ReleaseNamespaces(dir.clone())),
            Self::CreatePair(spec) => Some(Self::DeletePair(spec.host_name.clone())),
            Self::IsolatePort(name) => Some(Self::ReleasePort(name.clone())),
            Self::AddEndpoint(endpoint) => Some(Self::RemoveEndpoint(endpoint.clone())),
            Self::Publish(bindings) => Some(Self::Unpublish(bindings.clone())),
            // They go with the namespaces.
            Self::SetSysctls { .. }
            | Self::DeleteBridge(_)
            | Self::RestoreBridge { .. }
            | Self::ReturnBridge { .. }
            | Self::RemoveFiles(_)
            | Self::DeleteNetns(_)
            | Self::ReleaseNamespaces(_)
            | Self::DeletePair(_)
            | Self::ReleasePort(_)
            | Self::RemoveEndpoint(_)
            | Self::Unpublish(_) => None,
        }
    }

    /// Whether this step, failing, may have done some of its work: then it is undone too. The others are made
    /// by the kernel whole or not at all, and undoing one that failed because something of that name is there
    /// already would remove what is not ours.
    pub(super) fn may_be_partial(&self) -> bool {
        matches!(
            self,
            Self::WriteFiles(_)
                | Self::AdoptBridge { .. }
                | Self::LendBridge { .. }
                | Self::UpdateFiles { .. }
                | Self::SetDefaultRoutes(_)
                | Self::AddEndpoint(_)
                | Self::SetSources { .. }
                | Self::Republish { .. }
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SaveNetwork(_) => f.write_str("save network"),
            Self::SaveContainer(_) => f.write_str("save container"),
            Self::CreateBridge(spec) => write!(f, "create bridge {}", spec.name),
            Self::DeleteBridge(name) => write!(f, "remove bridge {name}"),
            Self::AdoptBridge { spec, .. } => write!(f, "use bridge {}", spec.name),
            Self::RestoreBridge { name, .. } => write!(f, "give back bridge {name}"),
            Self::LendBridge { name, .. } => write!(f, "set up bridge {name}"),
            Self::ReturnBridge { name, .. } => write!(f, "give back bridge {name}"),
            Self::SetAddresses { .. } => f.write_str("tell the datapath the host's addresses"),
            Self::WriteFiles(_) => f.write_str("write container files"),
            Self::UpdateFiles { .. } => f.write_str("update container files"),
            Self::RemoveFiles(_) => f.write_str("remove container files"),
            Self::CreateNetns(name) => write!(f, "create network namespace {name}"),
            Self::DeleteNetns(name) => write!(f, "remove network namespace {name}"),
            Self::HoldNamespaces { .. } => f.write_str("make UTS and IPC namespaces"),
            Self::ReleaseNamespaces(_) => f.write_str("release UTS and IPC namespaces"),
            Self::SetSysctls { .. } => f.write_str("set sysctls"),
            Self::CreatePair(spec) => write!(f, "create {} {}", spec.kind, spec.host_name),
            Self::DeletePair(name) => write!(f, "remove link {name}"),
            Self::IsolatePort(name) => write!(f, "isolate bridge port {name}"),
            Self::ReleasePort(name) => write!(f, "release bridge port {name}"),
            Self::SetDefaultRoutes(_) => f.write_str("change the default routes"),
            Self::AddEndpoint(endpoint) => {
                write!(f, "add endpoint of {} to the datapath", endpoint.host_name)
            }
            Self::RemoveEndpoint(endpoint) => {
                write!(f, "remove endpoint of {} from the datapath", endpoint.host_name)
            }
            Self::SetSources { .. } => f.write_str("tell the datapath a list of addresses"),
            Self::Publish(bindings) => write!(f, "publish {}", ports(bindings)),
            Self::Republish { after, .. } => write!(f, "publish {}", ports(after)),
            Self::Unpublish(bindings) => write!(f, "withdraw {}", ports(bindings)),
        }
    }
}

/// The first port by name, the rest by number: a message is one line however many there are.
fn ports(bindings: &[Binding]) -> String {
    let Some(first) = bindings.first() else {
        return "no ports".to_owned();
    };
    let first =
        format!("{}/{}", std::net::SocketAddr::from((first.host.addr, first.host.port)), first.host.protocol);
    match bindings.len() - 1 {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
