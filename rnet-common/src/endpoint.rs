//! Endpoints: a container's interface, as the datapath needs to know it.

use crate::addr::{Family, Mac};

/// Bits of [`Endpoint::flags`]: the policy of the endpoint's network.
pub struct EndpointFlags;

impl EndpointFlags {
    /// Containers of the network may talk to one another (`enable_icc`).
    pub const ICC: u32 = 1;
    /// The network has no way out (`--internal`).
    pub const INTERNAL: u32 = 1 << 1;
    /// What leaves the host gets the uplink's address (`enable_ip_masquerade`).
    pub const MASQUERADE: u32 = 1 << 2;
    /// What is published may be reached at the container's own address, and so may its echo (gateway mode
    /// `routed`).
    pub const ROUTED: u32 = 1 << 3;
    /// All of it may be reached at its own address (gateway mode `nat-unprotected`).
    pub const UNPROTECTED: u32 = 1 << 4;
    /// It has an IPv6 address.
    pub const IPV6: u32 = 1 << 5;
    /// What goes to the outside and comes from there takes the host's stack, so that its filter rules see it
    /// (`rnet.via_stack`).
    pub const VIA_STACK: u32 = 1 << 6;
    /// What goes to some destinations keeps its address: those of the network's list [`crate::source::exempt`].
    pub const EXEMPTS: u32 = 1 << 7;
}

/// The value of the endpoint map, which is keyed by the endpoint's address. An endpoint with addresses of
/// both families has an entry in the map of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint<A> {
    /// The network's gateway address: the source that a container sees on its own published port.
    pub gateway: A,
    /// The host side of the veth.
    pub ifindex: u32,
    /// The bridge.
    pub bridge: u32,
    /// A number for the network, equal for endpoints on one network.
    pub network: u32,
    /// [`EndpointFlags`].
    pub flags: u32,
    /// Index of the [`crate::Mapping`] for flows that the container opens.
    pub mapping: u32,
    /// The mapping's generation.
    pub generation: u32,
    /// Largest IP packet that the container's interface takes, in bytes.
    pub mtu: u32,
    /// The container's interface.
    pub mac: Mac,
    /// The bridge.
    pub gateway_mac: Mac,
}

impl<A: Family> Endpoint<A> {
    /// Whether all bits of `flag` are set.
    #[inline(always)]
    pub fn is(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }
}

/// The value of the table of containers' interfaces, which is keyed by the index of the host side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Veth {
    /// [`EndpointFlags`].
    pub flags: u32,
    /// The container's interface.
    pub mac: Mac,
    _pad: [u8; 2],
}

impl Veth {
    /// An interface with this address.
    pub fn new(mac: Mac, flags: u32) -> Self {
        Self { flags, mac, ..Self::default() }
    }
}

const _: () = {
    use crate::addr::{Ip4, Ip6};
    assert!(size_of::<Endpoint<Ip4>>() == 44);
    assert!(size_of::<Endpoint<Ip6>>() == 56);
    assert!(size_of::<Veth>() == 12);
};
