//! Records of packets that pass the programs, and of calls of the host's own processes that concern published ports,
//! for whoever looks at them.
//!
//! The programs compare a packet with [`TraceFilter`]s once its verdict is settled, and write a [`TraceRecord`] for one
//! that matches. IPv4 addresses are kept in the first word of IPv6's. What is looked for in a tuple is looked for in the
//! packet as it came and as it left: one of the two must agree as a whole.

use crate::addr::{Be16, Ip4, Ip6};
use crate::counter::Reason;
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

/// A call of a process, in a record in the place of a [`crate::Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// `connect(2)` to an IPv4 address.
    Connect4 = 32,
    /// `connect(2)` of an IPv6 socket.
    Connect6 = 33,
    /// `sendmsg(2)` and the like, to an IPv4 address that comes with the datagram.
    Send4 = 34,
    /// The same to an IPv6 address.
    Send6 = 35,
    /// `bind(2)` to an IPv4 address.
    Bind4 = 36,
    /// `bind(2)` to an IPv6 address.
    Bind6 = 37,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connect4, Self::Connect6, Self::Send4, Self::Send6, Self::Bind4, Self::Bind6];

    /// Why it is told of.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Connect4 | Self::Connect6 | Self::Send4 | Self::Send6 => Reason::Published,
            Self::Bind4 | Self::Bind6 => Reason::Held,
        }
    }

    /// The name of the program that sees it, as `bpftool prog` shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "sock_connect4",
            Self::Connect6 => "sock_connect6",
            Self::Send4 => "sock_sendmsg4",
            Self::Send6 => "sock_sendmsg6",
            Self::Bind4 => "sock_bind4",
            Self::Bind6 => "sock_bind6",
        }
    }
}

/// Bytes of a process's name (`TASK_COMM_LEN`).
pub const COMM: usize = 16;

/// A packet at a program, or a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceRecord {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Addresses and ports as the packet came. Of a call: where the socket is bound, and what the process addressed; of
    /// `bind(2)` what it wants is the source.
    pub came: Tuple<Ip6>,
    /// Addresses and ports as it left, or the same.
    pub left: Tuple<Ip6>,
    /// Interface whose hook this is; 0 for a call.
    pub ifindex: u32,
    /// Length of the frame in bytes, Ethernet header included; 0 for a call.
    pub length: u32,
    /// Id of the process that called; 0 for a packet.
    pub process: u32,
    /// Its name, with zeroes behind.
    pub comm: [u8; COMM],
    /// EtherType: for others than IP, tuples and protocol are zero.
    pub ethertype: Be16,
    /// A [`crate::Program`], or a [`Call`].
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
    pub _pad: [u8; 5],
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
    pub word: u32,
}

/// An IPv4 address as records and filters have it.
#[inline(always)]
pub fn widened(addr: Ip4) -> Ip6 {
    Ip6::from_wire([addr.wire(), 0, 0, 0])
}

/// The inverse of [`widened`].
#[inline(always)]
pub fn narrowed(addr: Ip6) -> Ip4 {
    Ip4::from_wire(addr.wire()[0])
}

const _: () = assert!(size_of::<TraceRecord>() == 120);
const _: () = assert!(size_of::<TraceFilter>() == 120);
const _: () = assert!(size_of::<Recorder>() == 144);

// A comparison is a branch for the programs, and each doubles the ways that the verifier may have to look at. So there is
// one for a filter: differences are numbers that are zero where there is none, a sum of bits where all must agree, a
// product where one must.

/// Zero if any is wanted or it is this one.
#[inline(always)]
fn difference(wanted: u32, is: u32) -> u64 {
    wanted as u64 * (wanted ^ is) as u64
}

/// Zero if one of them is.
#[inline(always)]
fn either(first: u64, second: u64) -> u64 {
    let fold = |number: u64| (number | number >> 32) & u32::MAX as u64;
    fold(first) * fold(second)
}

impl Prefix {
    /// Zero if the address lies in it.
    #[inline(always)]
    fn difference(&self, addr: &Ip6) -> u64 {
        let (ours, mask, theirs) = (self.addr.wire(), self.mask.wire(), addr.wire());
        let differs = |word: usize| (ours[word] ^ theirs[word]) & mask[word];
        (differs(0) | differs(1) | differs(2) | differs(3)) as u64
    }
}

impl TraceFilter {
    /// Whether it means this packet.
    #[inline(always)]
    pub fn matches(&self, record: &TraceRecord) -> bool {
        let difference = !(self.reasons >> (record.reason & 63)) & 1
            | difference(self.ifindex, record.ifindex)
            | difference(self.ethertype.wire().into(), record.ethertype.wire().into())
            | difference(self.proto.into(), record.proto.into())
            | either(self.difference(&record.came), self.difference(&record.left));
        difference == 0
    }

    /// Zero if it means a packet with this tuple.
    #[inline(always)]
    fn difference(&self, tuple: &Tuple<Ip6>) -> u64 {
        let port = |wanted: Be16, is: Be16| difference(wanted.wire().into(), is.wire().into());
        self.src.difference(&tuple.src)
            | self.dst.difference(&tuple.dst)
            | either(self.host.difference(&tuple.src), self.host.difference(&tuple.dst))
            | port(self.sport, tuple.sport)
            | port(self.dport, tuple.dport)
            | either(port(self.port, tuple.sport), port(self.port, tuple.dport))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of few values, so that they often agree.
    fn words() -> impl Strategy<Value = [u32; 4]> {
        prop::array::uniform4(prop::sample::select(&[0u32, 1, 0x8000_0000, u32::MAX][..]))
    }

    fn tuples() -> impl Strategy<Value = Tuple<Ip6>> {
        (words(), words(), 0u16..3, 0u16..3).prop_map(|(src, dst, sport, dport)| Tuple {
            src: Ip6::from_wire(src),
            dst: Ip6::from_wire(dst),
            sport: Be16::new(sport),
            dport: Be16::new(dport),
        })
    }

    fn records() -> impl Strategy<Value = TraceRecord> {
        (tuples(), tuples(), 1u32..3, 0u8..2, 0u8..64, any::<bool>()).prop_map(
            |(came, left, ifindex, proto, reason, is_v6)| TraceRecord {
                came,
                left,
                ifindex,
                proto,
                reason,
                ethertype: Be16::new(if is_v6 { 0x86dd } else { 0x0800 }),
                ..TraceRecord::default()
            },
        )
    }

    fn filters() -> impl Strategy<Value = TraceFilter> {
        let prefixes = || {
            (words(), words(), any::<bool>()).prop_map(|(addr, mask, is_set)| Prefix {
                addr: Ip6::from_wire(addr),
                mask: Ip6::from_wire(if is_set { mask } else { [0; 4] }),
            })
        };
        let numbers = (any::<u64>(), 0u32..3, prop::array::uniform3(0u16..3), 0u8..2, 0usize..3);
        (prefixes(), prefixes(), prefixes(), numbers).prop_map(
            |(src, dst, host, (reasons, ifindex, [sport, dport, port], proto, family))| TraceFilter {
                reasons,
                src,
                dst,
                host,
                ifindex,
                sport: Be16::new(sport),
                dport: Be16::new(dport),
                port: Be16::new(port),
                ethertype: Be16::new([0, 0x0800, 0x86dd][family]),
                proto,
                ..TraceFilter::default()
            },
        )
    }

    /// The same as the documentation of the fields says it.
    fn means(filter: &TraceFilter, record: &TraceRecord) -> bool {
        let lies_in = |prefix: &Prefix, addr: Ip6| {
            (0..4).all(|word| {
                let mask = prefix.mask.wire()[word];
                prefix.addr.wire()[word] & mask == addr.wire()[word] & mask
            })
        };
        let is = |wanted: Be16, port: Be16| wanted == Be16::ZERO || wanted == port;
        let agrees = |tuple: &Tuple<Ip6>| {
            lies_in(&filter.src, tuple.src)
                && lies_in(&filter.dst, tuple.dst)
                && (lies_in(&filter.host, tuple.src) || lies_in(&filter.host, tuple.dst))
                && is(filter.sport, tuple.sport)
                && is(filter.dport, tuple.dport)
                && (is(filter.port, tuple.sport) || is(filter.port, tuple.dport))
        };
        filter.reasons & 1 << record.reason != 0
            && [0, record.ifindex].contains(&filter.ifindex)
            && is(filter.ethertype, record.ethertype)
            && [0, record.proto].contains(&filter.proto)
            && (agrees(&record.came) || agrees(&record.left))
    }

    proptest! {
        #[test]
        fn differences_decide_as_comparisons_do(filter in filters(), record in records()) {
            prop_assert_eq!(filter.matches(&record), means(&filter, &record));
            // One that asks for no more than what the packet is agrees.
            let own = TraceFilter {
                reasons: 1 << record.reason,
                ifindex: record.ifindex,
                proto: record.proto,
                ethertype: record.ethertype,
                dport: record.left.dport,
                src: Prefix { addr: record.left.src, mask: Ip6::from_wire([u32::MAX; 4]) },
                ..TraceFilter::default()
            };
            prop_assert!(own.matches(&record));
        }
    }
}
