//! Published ports.

use crate::{
    addr::{Be16, Family},
    pressure,
};

/// The key of a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PortKey<A> {
    /// The host address that it is published on; [`Family::any`] for every address of the host.
    pub addr: A,
    /// The host port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    _pad: u8,
}

impl<A: Family> PortKey<A> {
    /// The key of `port` published on `addr`.
    #[inline(always)]
    pub fn new(addr: A, port: Be16, proto: u8) -> Self {
        Self { addr, port, proto, _pad: 0 }
    }
}

/// Where a published port leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Backend<A> {
    /// The container's address: a key of the endpoint map.
    pub addr: A,
    /// Index of the [`Mapping`] that this publication holds.
    pub mapping: u32,
    /// The mapping's generation.
    pub generation: u32,
    /// Number of the list of sources that may use it; 0 for anyone.
    pub sources: u32,
    /// The container's port.
    pub port: Be16,
    /// 1 when somebody else keeps the host port from the host's programs; 0 when it is in the table of held ports.
    pub unheld: u8,
    _pad: u8,
}

impl<A: Family> Backend<A> {
    /// A backend that is alive as long as `mapping` has this `generation`, for the list `sources`.
    pub fn new(addr: A, port: Be16, mapping: u32, generation: u32, sources: u32) -> Self {
        Self { addr, mapping, generation, sources, port, unheld: 0, _pad: 0 }
    }

    /// The same for a host port that somebody else keeps from the host's programs, if that is so.
    pub fn unheld_if(self, unheld: bool) -> Self {
        Self { unheld: unheld.into(), ..self }
    }
}

/// The key of the table of held ports: a host program that binds every address clashes with a port that is
/// published on any single one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct HeldKey {
    /// The host port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// 1 for IPv6, 0 for IPv4.
    pub v6: u8,
}

/// What a flow owes its existence to: a published port, or an endpoint that may reach the outside.
///
/// Withdrawing or changing either gives the slot another generation, and every flow that it made is dead
/// from the next packet on, whether or not anyone has removed it from the table yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping {
    /// 0 for a free slot. Never given out twice.
    pub generation: u32,
    /// Of an endpoint: how many flows its container may still open before they are counted anew, none if it is not
    /// positive. Programs take from it, the controller gives: see [`crate::pressure`].
    pub room: i32,
    /// Flows opened.
    pub flows: u64,
    /// Packets and bytes of flows that have ended, both directions. Those that live are in the flow table.
    pub ended_packets: u64,
    /// See `ended_packets`.
    pub ended_bytes: u64,
}

impl Mapping {
    /// A mapping that has made no flow yet.
    pub fn new(generation: u32) -> Self {
        Self { generation, room: pressure::UNLIMITED, ..Self::default() }
    }
}

const _: () = {
    use crate::addr::{Ip4, Ip6};
    assert!(size_of::<PortKey<Ip4>>() == 8);
    assert!(size_of::<PortKey<Ip6>>() == 20);
    assert!(size_of::<Backend<Ip4>>() == 20);
    assert!(size_of::<Backend<Ip6>>() == 32);
    assert!(size_of::<HeldKey>() == 4);
    assert!(size_of::<Mapping>() == 32);
};
