//! The flow table as the controller reads and clears it: in steps of some thousand entries, so that neither memory nor
//! the time that a step takes grows with the number of flows.
//!
//! The two halves of a flow lie anywhere in the table, so that a twin is looked up by itself. That is a system call, and
//! is done only for flows that are listed or that may be over.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use rnet_common::{
    Flow, FlowKey, Reason, Side, Tuple,
    flow::flow_flags,
    settings::Timeouts,
    timeout::{self, State},
};

use super::{
    mappings::{MappingId, Mappings},
    quotas::Quotas,
    tables::{Address, Table},
};
use crate::controller::{
    backend::{FlowInfo, FlowPosition, Page, Tally},
    model::flow_filter::{FlowFilter, protocol_name},
};

/// A half that has lost its twin may have expired without saying so ([`timeout::may_have_expired`]): each is looked at
/// once in so many rounds of the collector.
pub(super) const LONE_EVERY: u16 = 64;

/// Some entries of the flow table at one moment.
pub(super) struct Excerpt<A: Address> {
    halves: Vec<(FlowKey<A>, Flow<A>)>,
    now: u64,
    next: Option<FlowPosition>,
}

/// Looks at the whole table, one excerpt after the other.
pub(super) fn walk<A: Address>(
    flows: &Table<FlowKey<A>, Flow<A>>,
    mut look: impl FnMut(&Excerpt<A>),
) -> Result<()> {
    // Until it goes on in the other family's table.
    let mut from = FlowPosition { v6: A::IS_V6, bucket: None };
    loop {
        let some = Excerpt::take(flows, from)?;
        look(&some);
        match some.next {
            Some(next) if next.v6 == from.v6 => from = next,
            _ => return Ok(()),
        }
    }
}

impl<A: Address> Excerpt<A> {
    /// Reads entries of the family's table. Behind the last of IPv4 come those of IPv6.
    pub(super) fn take(flows: &Table<FlowKey<A>, Flow<A>>, from: FlowPosition) -> Result<Self> {
        let (halves, bucket) = flows.some(from.bucket)?;
        let next = match bucket {
            Some(_) => Some(FlowPosition { bucket, ..from }),
            None => (!from.v6).then_some(FlowPosition { v6: true, bucket: None }),
        };
        Ok(Self { halves, now: now()?, next })
    }

    /// What came of going through these entries.
    pub(super) fn page<T>(&self, found: T) -> Page<T> {
        Page { found, next: self.next }
    }

    /// Adds packets and bytes of the live flows that each mapping has made.
    pub(super) fn add_traffic(&self, traffic: &mut HashMap<MappingId, (u64, u64)>) {
        for (_, half) in &self.halves {
            let (packets, bytes) = traffic.entry(mapping(half)).or_default();
            *packets += half.packets;
            *bytes += half.bytes;
        }
    }

    /// How many flows there are, without those that the half which opened them knows to be over.
    pub(super) fn count(&self, mappings: &Mappings, timeouts: &Timeouts) -> usize {
        let live = |(key, half): &&(FlowKey<A>, Flow<A>)| {
            half.is(flow_flags::ORIGINAL)
                && mappings.is_current(mapping(half))
                && !timeout::may_have_expired(self.now, key.proto, half, timeouts)
        };
        self.halves.iter().filter(live).count()
    }

    /// Adds these entries to what a round has seen.
    pub(super) fn tally(&self, tally: &mut Tally, mappings: &Mappings, timeouts: &Timeouts) {
        tally.entries[usize::from(A::IS_V6)] += self.halves.len() as u64;
        for (key, half) in self.halves.iter().filter(|(_, half)| half.is(flow_flags::ORIGINAL)) {
            let is_over = !mappings.is_current(mapping(half))
                || timeout::may_have_expired(self.now, key.proto, half, timeouts);
            if is_over {
                continue;
            }
            tally.flows += 1;
            let leaves = [Reason::Masqueraded, Reason::Routed].iter().any(|r| *r as u8 == half.carried);
            let container = if leaves { key.tuple.src } else { half.to.dst };
            *tally.by_container.entry(container.ip()).or_default() += 1;
        }
    }

    /// The flows that are alive and that `filter` matches, as people read them.
    pub(super) fn describe(
        &self,
        flows: &Table<FlowKey<A>, Flow<A>>,
        mappings: &Mappings,
        timeouts: &Timeouts,
        filter: &FlowFilter,
    ) -> Result<Vec<FlowInfo>> {
        let mut found = Vec::new();
        for (key, half) in self.halves.iter().filter(|(_, half)| half.is(flow_flags::ORIGINAL)) {
            if !matches(filter, key, half) {
                continue;
            }
            // Missing when the programs are just making or removing the flow.
            let twin = flows.get(&half.twin_key(key.proto))?;
            if !self.is_over(key, half, twin.as_ref(), mappings, timeouts) {
                found.push(self.info(key, half, twin.as_ref(), timeouts));
            }
        }
        Ok(found)
    }

    /// Removes the flows that are over from the table, and keeps their counts. Returns how many. Of those that stay, each
    /// that a container has opened is counted with its quota. `round` is one more in each round of the collector.
    pub(super) fn sweep(
        &self,
        flows: &mut Table<FlowKey<A>, Flow<A>>,
        mappings: &Mappings,
        timeouts: &Timeouts,
        round: u16,
        quotas: &mut Quotas,
    ) -> Result<usize> {
        let mut swept = 0;
        for (key, half) in &self.halves {
            let mut opener = opener(key, half).and_then(|addr| quotas.opener(&addr));
            let timeouts = opener.as_ref().and_then(|opener| opener.timeouts).unwrap_or(*timeouts);
            let may_be_over = !mappings.is_current(mapping(half))
                || timeout::may_have_expired(self.now, key.proto, half, &timeouts)
                || key.tuple.sport.get() % LONE_EVERY == round % LONE_EVERY
                    && timeout::expired(self.now, key.proto, half, None, &timeouts);
            let fate = match may_be_over {
                true => self.remove_if_over(flows, mappings, &timeouts, key, half)?,
                false => Fate::Stays,
            };
            match fate {
                Fate::Stays if half.is(flow_flags::ORIGINAL) => {
                    opener.iter_mut().for_each(|opener| opener.flows += 1);
                }
                Fate::Stays => {}
                Fate::WasGone => {}
                Fate::Removed => swept += 1,
            }
        }
        Ok(swept)
    }

    /// Removes the flow of a half from the table if it is over, and keeps its counts.
    fn remove_if_over(
        &self,
        flows: &mut Table<FlowKey<A>, Flow<A>>,
        mappings: &Mappings,
        timeouts: &Timeouts,
        key: &FlowKey<A>,
        half: &Flow<A>,
    ) -> Result<Fate> {
        // As it is: a packet may have come since, which began to use the entry again, or the other half has been met before.
        let Some(half) = flows.get(key)?.filter(|last| mapping(last) == mapping(half)) else {
            return Ok(Fate::WasGone);
        };
        let twin_key = half.twin_key(key.proto);
        // What another mapping has made under the twin's key is another flow's.
        let twin = flows.get(&twin_key)?.filter(|twin| mapping(twin) == mapping(&half));
        if !self.is_over(key, &half, twin.as_ref(), mappings, timeouts) {
            return Ok(Fate::Stays);
        }
        flows.remove(key)?;
        mappings.note_ended(mapping(&half), half.packets, half.bytes);
        if let Some(twin) = twin {
            flows.remove(&twin_key)?;
            mappings.note_ended(mapping(&twin), twin.packets, twin.bytes);
        }
        Ok(Fate::Removed)
    }

    /// Removes the flows that `filter` matches from the table, and keeps their counts. Returns how many.
    pub(super) fn flush(
        &self,
        flows: &mut Table<FlowKey<A>, Flow<A>>,
        mappings: &Mappings,
        filter: &FlowFilter,
    ) -> Result<usize> {
        let mut flushed = 0;
        for (key, half) in self.halves.iter().filter(|(key, half)| matches(filter, key, half)) {
            let twin_key = half.twin_key(key.proto);
            // A flow is what opened it, unless only the other half is left.
            if !half.is(flow_flags::ORIGINAL) && flows.get(&twin_key)?.is_some() {
                continue;
            }
            // The answers' half first: while the other is there nobody opens the flow anew, only to lose a half of it
            // here.
            let mut is_there = false;
            for key in [twin_key, *key] {
                let Some(last) = flows.get(&key)? else { continue };
                flows.remove(&key)?;
                mappings.note_ended(mapping(&last), last.packets, last.bytes);
                is_there = true;
            }
            // A half that was met before with its twin is gone.
            flushed += usize::from(is_there);
        }
        Ok(flushed)
    }

    fn is_over(
        &self,
        key: &FlowKey<A>,
        half: &Flow<A>,
        twin: Option<&Flow<A>>,
        mappings: &Mappings,
        timeouts: &Timeouts,
    ) -> bool {
        !mappings.is_current(mapping(half)) || timeout::expired(self.now, key.proto, half, twin, timeouts)
    }

    fn info(
        &self,
        key: &FlowKey<A>,
        half: &Flow<A>,
        twin: Option<&Flow<A>>,
        timeouts: &Timeouts,
    ) -> FlowInfo {
        let none = Flow::default();
        let twin = twin.unwrap_or(&none);
        let state = State::of(key.proto, half.seen | twin.seen, half.seen & twin.seen);
        let idle = self.now.saturating_sub(half.last_seen.max(twin.last_seen));
        let left = state.idle_limit(key.proto, timeouts).saturating_sub(idle);
        let (src, dst) = addresses(&key.tuple);
        let (to_src, to_dst) = addresses(&half.to);
        FlowInfo {
            protocol: protocol_name(key.proto),
            src,
            dst,
            to_src,
            to_dst,
            kind: kind(half.carried),
            state: state.name().to_owned(),
            packets: half.packets + twin.packets,
            bytes: half.bytes + twin.bytes,
            idle: Duration::from_nanos(idle).as_secs(),
            timeout: Duration::from_nanos(left).as_secs(),
        }
    }
}

/// What became of a half that was looked at.
enum Fate {
    Stays,
    /// Somebody else has removed it.
    WasGone,
    Removed,
}

/// The address of the container that opened the flow of a half; absent where somebody outside did.
fn opener<A: Address>(key: &FlowKey<A>, half: &Flow<A>) -> Option<IpAddr> {
    let (side, addr) = match half.is(flow_flags::ORIGINAL) {
        true => (key.side, key.tuple.src),
        // Answers go back to who opened it.
        false => (half.twin_side() as u8, half.to.dst),
    };
    (side == Side::Container as u8).then(|| addr.ip())
}

/// What made a flow.
fn mapping<A: Address>(half: &Flow<A>) -> MappingId {
    MappingId { slot: half.mapping, generation: half.generation }
}

/// Whether a half's packets, as they come or as they go on, are what is meant.
fn matches<A: Address>(filter: &FlowFilter, key: &FlowKey<A>, half: &Flow<A>) -> bool {
    filter.matches(key.proto, addresses(&key.tuple), addresses(&half.to))
}

fn addresses<A: Address>(tuple: &Tuple<A>) -> (SocketAddr, SocketAddr) {
    ((tuple.src.ip(), tuple.sport.get()).into(), (tuple.dst.ip(), tuple.dport.get()).into())
}

fn kind(carried: u8) -> String {
    let reason = Reason::ALL.iter().find(|reason| **reason as u8 == carried);
    reason.map_or_else(|| carried.to_string(), |reason| reason.name().to_owned())
}

/// The clock of [`Flow::last_seen`], in nanoseconds.
pub(super) fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?;
    u64::try_from(Duration::from(now).as_nanos()).context("read the clock")
}
