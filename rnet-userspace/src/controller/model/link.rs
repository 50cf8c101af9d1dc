//! What joins a container to its network's bridge.

use std::{fmt, str::FromStr};

/// The kind of a pair of interfaces, as `ip link add type` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// veth(4).
    #[default]
    Veth,
    /// netkit (`drivers/net/netkit.c`), in its mode for Ethernet frames, `l2`: with the other, `l3`, an interface has no
    /// Ethernet address and can be no bridge's port.
    Netkit,
}

impl LinkKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Veth, Self::Netkit];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Netkit => "netkit",
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LinkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == text);
        kind.ok_or_else(|| {
            format!("unknown kind of link {text:?}: {} is allowed", Self::ALL.map(Self::name).join(" or "))
        })
    }
}
