//! Uplinks, as the datapath needs to know them.

use crate::addr::Mac;

/// The value of the table of interfaces that lead outside, which is keyed by interface index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Uplink {
    /// The interface: what is for this host is addressed to it.
    pub mac: Mac,
    /// [`uplink_flags`] bits.
    pub flags: u16,
}

/// Bits of [`Uplink::flags`].
pub mod uplink_flags {
    /// Packets may arrive with their transport checksum left to be computed: its sender took the interface for a
    /// network card. An XDP program cannot tell.
    pub const UNFINISHED: u16 = 1;
}

const _: () = assert!(size_of::<Uplink>() == 8);
