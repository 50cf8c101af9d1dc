//! Who runs a container that rnet serves and has not made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A container engine, by the way that it speaks to rnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Docker with networks of its own, which rnet follows.
    Docker,
    /// Docker with networks that rnet makes as its remote driver.
    DockerDriver,
    /// Whoever calls rnet as a CNI plugin.
    Cni,
    /// Podman, by netavark.
    Netavark,
}

impl Engine {
    /// With what its containers and networks are managed.
    pub fn tool(self) -> &'static str {
        match self {
            Self::Docker | Self::DockerDriver => "`docker`",
            Self::Cni => "the engine that called rnet as CNI plugin",
            Self::Netavark => "`podman`",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::DockerDriver => "docker-driver",
            Self::Cni => "cni",
            Self::Netavark => "netavark",
        })
    }
}
