//! Why a packet went where it went: every way out of the datapath is counted under one [`Reason`].

/// A program of the datapath. Named from the container's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Program {
    /// tcx ingress of the host's end of a container's veth or netkit.
    FromContainer = 0,
    /// tcx ingress of an uplink.
    FromUplink = 1,
    /// XDP of an uplink. What it leaves to `from_uplink` is counted there alone.
    XdpUplink = 2,
    /// tcx egress of an uplink, while there is a network that is delivered via the host's stack.
    ToUplink = 3,
    /// tcx ingress of a bridge that an engine has made.
    FromBridge = 4,
    /// tcx egress of such a bridge.
    ToBridge = 5,
}

impl Program {
    /// All programs that count, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::FromContainer,
        Self::FromUplink,
        Self::XdpUplink,
        Self::ToUplink,
        Self::FromBridge,
        Self::ToBridge,
    ];

    /// The program's name, as `bpftool prog` shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromContainer => "from_container",
            Self::FromUplink => "from_uplink",
            Self::XdpUplink => "xdp_uplink",
            Self::ToUplink => "to_uplink",
            Self::FromBridge => "from_bridge",
            Self::ToBridge => "to_bridge",
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Carried by rnet past the host's stack, or translated on its way through it.
    Carried,
    /// Left to the host's stack or bridge as it came.
    Passed,
    /// Dropped.
    Dropped,
}

impl Verdict {
    /// One lower-case word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Passed => "passed",
            Self::Dropped => "dropped",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal, $verdict:ident, $text:literal;)+) => {
        /// Why a packet was carried, passed or dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name = $value,)+ }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// What becomes of the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)+ }
            }

            /// The name that operators see: lower-case words joined by hyphens.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What the reason means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// To a published port, rewritten to the container's address.
    Published = 0, Carried, "published";
    /// Answer of a published port, rewritten to the host's address.
    PublishedReply = 1, Carried, "published-reply";
    /// From a container to the outside, rewritten to the uplink's address.
    Masqueraded = 2, Carried, "masqueraded";
    /// Answer from the outside to a container.
    MasqueradedReply = 3, Carried, "masqueraded-reply";
    /// From a container to a port that a container publishes on the host.
    Hairpin = 4, Carried, "hairpin";
    /// Answer of a published port to a container.
    HairpinReply = 5, Carried, "hairpin-reply";
    /// From a container to another on the same network.
    Switched = 6, Carried, "switched";
    /// From a container to the outside with its own address, as its network does not masquerade.
    Routed = 7, Carried, "routed";
    /// Answer from the outside to a container whose network does not masquerade.
    RoutedReply = 8, Carried, "routed-reply";

    /// An ICMP error about a flow, rewritten together with the packet that it quotes.
    Related = 9, Carried, "related";
    /// From outside to a container's own address, on a network that opens it.
    Direct = 10, Carried, "direct";
    /// Answer of a container that was reached at its own address.
    DirectReply = 11, Carried, "direct-reply";
    /// Answered with an ICMP error, as a router does: too large for the container, or its time to live has run out.
    Answered = 12, Carried, "answered";
    /// A fragment put back into its queue, behind what came after it, as its first fragment is not known yet.
    FragmentEarly = 13, Carried, "fragment-early";

    /// Nothing that concerns rnet.
    NotOurs = 16, Passed, "not-ours";
    /// ARP, broadcast, multicast or another frame that a bridge handles.
    Bridged = 17, Passed, "bridged";
    /// From a container to an address of the host itself.
    ToHost = 18, Passed, "to-host";
    /// Its time to live has run out: the host's stack answers.
    TtlExpired = 20, Passed, "ttl-expired";
    /// Larger than the way out takes: the host's stack answers.
    TooBig = 21, Passed, "too-big";
    /// No route to the destination: the host's stack answers.
    Unroutable = 22, Passed, "unroutable";
    /// Not understood, and from outside: left to the host's stack.
    Unparsed = 23, Passed, "unparsed";
    /// To a published port, but a socket of the host claims it.
    HostSocket = 24, Passed, "host-socket";
    /// From a container to the outside, on a network that is delivered via the host's stack.
    ViaStack = 25, Passed, "via-stack";

    /// A container sent with an address that is not its own.
    Spoofed = 32, Dropped, "spoofed";
    /// A container sent what can't be parsed.
    Malformed = 33, Dropped, "malformed";
    /// A container sent a protocol to the outside that is not translated.
    Untranslatable = 34, Dropped, "untranslatable";
    /// A container sent to the outside what neither opens a flow nor belongs to a known one.
    NoFlowOut = 35, Dropped, "no-flow-out";
    /// To another network, which only its published ports open.
    OtherNetwork = 36, Dropped, "other-network";
    /// From outside to a container's own address.
    Unpublished = 37, Dropped, "unpublished";
    /// No free source port towards this destination.
    PortsExhausted = 38, Dropped, "ports-exhausted";
    /// The flow table is full.
    TableFull = 39, Dropped, "table-full";
    /// The network forbids containers to talk to one another.
    IccDisabled = 40, Dropped, "icc-disabled";
    /// The network has no way out.
    Internal = 41, Dropped, "internal";
    /// The kernel refused to change the packet.
    RewriteFailed = 42, Dropped, "rewrite-failed";
    /// The uplink has no address to masquerade with.
    NoSourceAddress = 43, Dropped, "no-source-address";
    /// A published port leads to an endpoint that is gone.
    NoEndpoint = 44, Dropped, "no-endpoint";
    /// A fragment whose first fragment is not known.
    Fragment = 45, Dropped, "fragment";
    /// IPv6 from a container on a network without it.
    NoIpv6 = 46, Dropped, "no-ipv6";
    /// From an address that cannot be there: a loopback address or to one, and from outside a container's or the host's.
    Martian = 47, Dropped, "martian";
    /// To a container, and too large or with its time to live run out, but not to be answered with an ICMP error.
    Undeliverable = 48, Dropped, "undeliverable";
    /// A container sent what only a router sends.
    RogueRouter = 49, Dropped, "rogue-router";
    /// To a published port, from a source that is not among those that it is open to.
    Source = 50, Dropped, "source";
    /// Between the outside and a container on an engine's bridge that is not served, or not yet.
    Unserved = 51, Dropped, "unserved";
    /// The container has opened as many flows as it may have.
    FlowQuota = 52, Dropped, "flow-quota";
    /// The flow table is filling up, and this source opens more flows than its share.
    SourceRate = 53, Dropped, "source-rate";
    // Told of in traces, and not counted.
    /// A program of the host wanted a published port.
    Held = 59, Dropped, "held";
    /// With several VLAN tags that name no VLAN, below which the kernel would look for a packet.
    Tagged = 60, Dropped, "tagged";
}

/// Reasons for which a program has a counter: numbers below this.
pub const REASONS: u32 = 64;
/// Counters in all.
pub const COUNTERS: usize = REASONS as usize * Program::ALL.len();

/// Index of the counter for a program's reason.
#[inline(always)]
pub const fn counter_index(program: Program, reason: Reason) -> u32 {
    program as u32 * REASONS + reason as u32
}

/// A counter, kept per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets; a segmentation-offloaded packet counts once.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for reason in Reason::ALL {
            assert!((*reason as u32) < REASONS);
            assert!(names.insert(reason.name()));
            assert!(reason.meaning().ends_with('.'), "{reason:?}: {}", reason.meaning());
        }
    }
}
