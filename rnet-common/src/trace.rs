//! Records of packets that pass the programs, for whoever looks at them.
//!
//! The programs compare a packet with [`TraceFilter`]s once its verdict is settled, and write a [`TraceRecord`] for one
//! that matches. IPv4 addresses are kept in the first word of IPv6's. What is looked for in a tuple is looked for in the
//! packet as it came and as it left: one of the two must agree as a whole.

use crate::addr::{Be16, Ip6};
use crate::flow::Tuple;

/// Filters that the programs compare a packet with.
pub const FILTERS: u32 = 8;
/// Bytes of the buffer that records wait in.
pub const BUFFER: usize = 256 * 1024;
/// Records that a CPU writes in each [`WINDOW`]; more are counted as lost.
pub const BURST: u32 = 256;
/// A window of the limit: the number of binary digits of nanoseconds that are left out, 134 ms.
pub const WINDOW: u32 = 27;

/// Bits of [`TraceRecord::flags`].
pub mod trace_flags {
    /// The packet has opened the flow that it belongs to.
    pub const NEW_FLOW: u8 = 1;
}

/// A packet at a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceRecord {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Addresses and ports as the packet came.
    pub came: Tuple<Ip6>,
    /// Addresses and ports as it left, or the same.
    pub left: Tuple<Ip6>,
    /// Interface whose hook this is.
    pub ifindex: u32,
    /// Length of the frame in bytes, Ethernet header included.
    pub length: u32,
    /// EtherType: for others than IP, tuples and protocol are zero.
    pub ethertype: Be16,
    /// A [`crate::Program`].
    pub program: u8,
    /// A [`crate::Reason`].
    pub reason: u8,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags, or the type of an ICMP message.
    pub detail: u8,
    /// [`trace_flags`] bits.
    pub flags: u8,
    #[doc(hidden)]
    pub _pad: u8,
}

/// Addresses that agree with `addr` in the bits of `mask`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Prefix {
    /// The address, without bits outside of the mask.
    pub addr: Ip6,
    /// The bits that count; none for any address.
    pub mask: Ip6,
}

/// The packets that agree with everything that is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceFilter {
    /// A bit for each [`crate::Reason`] that is meant; without any the filter matches nothing.
    pub reasons: u64,
    /// The source.
    pub src: Prefix,
    /// The destination.
    pub dst: Prefix,
    /// Source or destination.
    pub host: Prefix,
    /// Interface; 0 for any.
    pub ifindex: u32,
    /// Source port; 0 for any.
    pub sport: Be16,
    /// Destination port; 0 for any.
    pub dport: Be16,
    /// Either port; 0 for any.
    pub port: Be16,
    /// EtherType, which has to be set with an address; 0 for any.
    pub ethertype: Be16,
    /// IP protocol number; 0 for any.
    pub proto: u8,
    #[doc(hidden)]
    pub _pad: [u8; 3],
}

/// What a CPU puts a record together in, and how many it has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Recorder {
    /// The record.
    pub record: TraceRecord,
    /// The window that `written` is of.
    pub window: u64,
    /// Records that matched and were not written: too many, or nobody has read the others.
    pub lost: u64,
    /// Records written in the window.
    pub written: u32,
    /// Part of a header.
    pub header: [u32; 10],
    #[doc(hidden)]
    pub _pad: [u8; 4],
}

const _: () = assert!(size_of::<TraceRecord>() == 96);
const _: () = assert!(size_of::<TraceFilter>() == 120);
const _: () = assert!(size_of::<Recorder>() == 160);

impl Prefix {
    #[inline(always)]
    fn has(&self, addr: &Ip6) -> bool {
        let (ours, mask, theirs) = (self.addr.wire(), self.mask.wire(), addr.wire());
        let differs = |word: usize| (ours[word] ^ theirs[word]) & mask[word];
        differs(0) | differs(1) | differs(2) | differs(3) == 0
    }
}

impl TraceFilter {
    /// Whether it means this packet.
    #[inline(always)]
    pub fn matches(&self, record: &TraceRecord) -> bool {
        let agrees = |wanted: u32, is: u32| wanted == 0 || wanted == is;
        self.reasons >> (record.reason & 63) & 1 == 1
            && agrees(self.ifindex, record.ifindex)
            && agrees(self.ethertype.wire().into(), record.ethertype.wire().into())
            && agrees(self.proto.into(), record.proto.into())
            && (self.matches_tuple(&record.came) || self.matches_tuple(&record.left))
    }

    #[inline(always)]
    fn matches_tuple(&self, tuple: &Tuple<Ip6>) -> bool {
        let agrees = |wanted: Be16, is: Be16| wanted == Be16::ZERO || wanted == is;
        self.src.has(&tuple.src)
            && self.dst.has(&tuple.dst)
            && (self.host.has(&tuple.src) || self.host.has(&tuple.dst))
            && agrees(self.sport, tuple.sport)
            && agrees(self.dport, tuple.dport)
            && (agrees(self.port, tuple.sport) || agrees(self.port, tuple.dport))
    }
}
