//! How many flows each container may open: counted by the collector on its way through the flow table, given out to the
//! programs when it has been round ([`rnet_common::pressure`]).
//!
//! A container whose quota is more than half used is hurried: the time that its flows may be idle shrinks with what is left of
//! the quota, as pf's adaptive timeouts do for a whole table (pf.conf(5), `adaptive.start`). So a client that opens many short
//! connections loses its own that are over, rather than being refused new ones. Connections that are established keep
//! their time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use rnet_common::{
    pressure::UNLIMITED,
    settings::{SECOND, Timeouts},
};

use super::mappings::{MappingId, Mappings};
use crate::controller::backend::{FlowLimits, Opened};

/// The least that an idle time is shortened to: what is under way between the two sides arrives within it.
const LEAST_IDLE: u64 = 2 * SECOND;
/// The least quota that a narrow range of source ports leads to: towards different remotes one port serves many flows.
const LEAST_BY_PORTS: u32 = 1024;

/// Quotas, and what containers have of them.
pub(super) struct Quotas {
    limits: FlowLimits,
    /// The quota where nobody has said one.
    share: u32,
    /// What the networks of endpoints say themselves, by the endpoints' addresses; 0 for no limit.
    own: HashMap<IpAddr, u32>,
    /// Containers in the round that is under way, by the addresses that they open flows from.
    openers: HashMap<IpAddr, Opener>,
    /// A container was hurried in the last round, or will be in the next.
    is_hurried: bool,
}

/// A container in one round, by one of its addresses.
pub(super) struct Opener {
    mapping: MappingId,
    /// 0 for no limit.
    quota: u32,
    /// Its room when the round began.
    room: i32,
    /// Idle times of its flows, if they are not those of all others.
    pub(super) timeouts: Option<Timeouts>,
    /// Flows of its own that the round has met and left.
    pub(super) flows: u64,
}

impl Quotas {
    /// Quotas for a flow table with room for so many flows, and so many source ports for masqueraded ones.
    pub(super) fn new(limits: FlowLimits, table: u32, ports: u32) -> Self {
        Self {
            limits,
            share: share(table, ports),
            own: HashMap::new(),
            openers: HashMap::new(),
            is_hurried: false,
        }
    }

    /// The limits, with the quota that is in force where nobody has said one.
    pub(super) fn limits(&self) -> FlowLimits {
        let per_container = self.limits.per_container.unwrap_or(self.share);
        FlowLimits { per_container: Some(per_container), ..self.limits }
    }

    /// Changes them, from the next round on.
    pub(super) fn set_limits(&mut self, limits: FlowLimits) {
        self.limits = limits;
    }

    /// Notes what the network of an endpoint says, and returns the room that a new endpoint begins with.
    pub(super) fn note(&mut self, addr: IpAddr, own: Option<u32>) -> i32 {
        match own {
            Some(own) => self.own.insert(addr, own),
            None => self.own.remove(&addr),
        };
        room(self.quota(&addr), 0)
    }

    /// Forgets an endpoint.
    pub(super) fn forget(&mut self, addr: &IpAddr) {
        self.own.remove(addr);
    }

    /// Forgets every endpoint that is not at one of these addresses.
    pub(super) fn retain(&mut self, addrs: &HashSet<IpAddr>) {
        self.own.retain(|addr, _| addrs.contains(addr));
    }

    /// 0 for no limit.
    fn quota(&self, addr: &IpAddr) -> u32 {
        self.own.get(addr).copied().unwrap_or_else(|| self.limits.per_container.unwrap_or(self.share))
    }

    /// Begins a round: `endpoints` are all that there are.
    pub(super) fn begin(
        &mut self,
        endpoints: impl IntoIterator<Item = (IpAddr, MappingId)>,
        mappings: &Mappings,
        timeouts: &Timeouts,
    ) {
        let before = std::mem::take(&mut self.openers);
        for (addr, mapping) in endpoints {
            let quota = self.quota(&addr);
            // Another container may have had the address.
            let had = before.get(&addr).filter(|before| before.mapping == mapping).map_or(0, |b| b.flows);
            let opener = Opener {
                mapping,
                quota,
                room: mappings.room(mapping),
                timeouts: hurried(timeouts, had, quota),
                flows: 0,
            };
            self.openers.insert(addr, opener);
        }
    }

    /// The container that opens flows from an address.
    pub(super) fn opener(&mut self, addr: &IpAddr) -> Option<&mut Opener> {
        self.openers.get_mut(addr)
    }

    /// Ends a round: containers get what is left of their quotas. What they have opened meanwhile is taken from that.
    pub(super) fn end(&mut self, mappings: &Mappings) -> BTreeMap<IpAddr, Opened> {
        self.is_hurried = false;
        let mut opened = BTreeMap::new();
        for (addr, Opener { mapping, quota, room: before, timeouts, flows }) in &self.openers {
            mappings.give_room(*mapping, room(*quota, *flows).wrapping_sub(*before));
            self.is_hurried |= timeouts.is_some() || is_near(*flows, *quota);
            let quota = (*quota != 0).then(|| u64::from(*quota));
            opened.insert(*addr, Opened { flows: *flows, quota });
        }
        opened
    }

    /// Whether a container is about to use up its quota, so that the next round should come soon.
    pub(super) fn is_hurried(&self) -> bool {
        self.is_hurried
    }
}

/// The quota where nobody has said one: a quarter of the table, and half of the source ports, each of which one flow takes
/// towards one remote. So one container leaves the others three quarters and half.
fn share(table: u32, ports: u32) -> u32 {
    (table / 4).min((ports / 2).max(LEAST_BY_PORTS)).max(1)
}

/// What is left of a quota; negative where there are more flows than it allows.
fn room(quota: u32, flows: u64) -> i32 {
    if quota == 0 {
        return UNLIMITED;
    }
    let left = i64::from(quota).saturating_sub_unsigned(flows);
    i32::try_from(left).unwrap_or(if left < 0 { i32::MIN } else { UNLIMITED })
}

/// Whether a container with so many flows is hurried.
fn is_near(flows: u64, quota: u32) -> bool {
    quota != 0 && flows > u64::from(quota) / 2
}

/// Idle times for a container with so many flows, if it is hurried.
fn hurried(timeouts: &Timeouts, flows: u64, quota: u32) -> Option<Timeouts> {
    if !is_near(flows, quota) {
        return None;
    }
    let quota = u128::from(quota);
    let left = quota.saturating_sub(flows.into());
    // All of the time where half of the quota is left, none where nothing is.
    let shrink = |time: u64| {
        let shrunk = u64::try_from(u128::from(time) * 2 * left / quota).unwrap_or(time);
        shrunk.max(LEAST_IDLE).min(time)
    };
    let Timeouts {
        tcp_established,
        tcp_opening,
        tcp_half_closed,
        tcp_closing,
        tcp_reset,
        udp,
        udp_replied,
        icmp,
    } = *timeouts;
    Some(Timeouts {
        tcp_established,
        tcp_opening: shrink(tcp_opening),
        tcp_half_closed: shrink(tcp_half_closed),
        tcp_closing: shrink(tcp_closing),
        tcp_reset: shrink(tcp_reset),
        udp: shrink(udp),
        udp_replied: shrink(udp_replied),
        icmp: shrink(icmp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_leaves_room_for_others() {
        assert_eq!(share(131_072, 31_744), 15_872, "half of the ports");
        assert_eq!(share(1024, 31_744), 256, "a quarter of the table");
        assert_eq!(share(131_072, 8), 1024, "a narrow range is used towards many remotes");
        assert_eq!(share(1, 31_744), 1, "never none, which would be no limit");
    }

    #[test]
    fn idle_times_shrink_with_what_is_left() {
        let plain = Timeouts::default();
        assert_eq!(hurried(&plain, 50, 100), None);
        assert_eq!(hurried(&plain, 1_000_000, 0), None, "no limit");
        let some = hurried(&plain, 75, 100).unwrap();
        assert_eq!((some.udp_replied, some.tcp_closing), (plain.udp_replied / 2, plain.tcp_closing / 2));
        let all = hurried(&plain, 100, 100).unwrap();
        assert_eq!((all.udp, all.tcp_reset, all.tcp_half_closed), (LEAST_IDLE, LEAST_IDLE, LEAST_IDLE));
        assert_eq!(all.tcp_established, plain.tcp_established, "is nobody's to be cut");
        assert_eq!(hurried(&plain, u64::MAX, 100).unwrap(), all);
        let short = Timeouts { udp: SECOND, ..plain };
        assert_eq!(hurried(&short, 100, 100).unwrap().udp, SECOND, "never longer than it was");
    }

    #[test]
    fn room_is_what_is_left() {
        assert_eq!((room(10, 3), room(10, 10), room(10, 12)), (7, 0, -2));
        assert_eq!(
            (room(0, 1 << 40), room(u32::MAX, 0), room(1, u64::MAX)),
            (UNLIMITED, UNLIMITED, i32::MIN)
        );
    }

    #[test]
    fn what_a_network_says_goes_before_what_holds_for_all() {
        let addr = "172.17.0.2".parse().unwrap();
        let limits = FlowLimits { per_container: None, ..FlowLimits::default() };
        let mut quotas = Quotas::new(limits, 4000, 31_744);
        assert_eq!(quotas.note(addr, None), 1000);
        assert_eq!(quotas.note(addr, Some(7)), 7);
        quotas.set_limits(FlowLimits { per_container: Some(50), ..limits });
        assert_eq!(quotas.quota(&addr), 7);
        assert_eq!(quotas.note(addr, Some(0)), UNLIMITED);
        quotas.forget(&addr);
        assert_eq!((quotas.quota(&addr), quotas.limits().per_container), (50, Some(50)));
    }
}
