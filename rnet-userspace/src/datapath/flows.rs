//! The flow table as the controller reads and clears it.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use rnet_common::{
    Flow, FlowKey, Reason, Tuple,
    flow::flow_flags,
    settings::Timeouts,
    timeout::{self, State},
};

use super::{
    mappings::{MappingId, Mappings},
    tables::{Address, Table},
};
use crate::controller::{
    backend::FlowInfo,
    model::flow_filter::{FlowFilter, protocol_name},
};

/// The flow table at one moment.
pub(super) struct Snapshot<A: Address> {
    halves: HashMap<FlowKey<A>, Flow<A>>,
    now: u64,
}

/// A flow of a snapshot.
struct Whole<'a, A: Address> {
    key: &'a FlowKey<A>,
    half: &'a Flow<A>,
    /// Missing when the programs are just making or removing the flow.
    twin: Option<&'a Flow<A>>,
}

impl<A: Address> Snapshot<A> {
    /// Reads the table.
    pub(super) fn take(flows: &Table<FlowKey<A>, Flow<A>>) -> Result<Self> {
        let halves = flows.entries()?.into_iter().collect();
        Ok(Self { halves, now: now()? })
    }

    /// Packets and bytes of the live flows that each mapping has made.
    pub(super) fn traffic(&self) -> HashMap<MappingId, (u64, u64)> {
        let mut traffic = HashMap::<_, (u64, u64)>::new();
        for half in self.halves.values() {
            let (packets, bytes) = traffic.entry(mapping(half)).or_default();
            *packets += half.packets;
            *bytes += half.bytes;
        }
        traffic
    }

    /// The flows that are alive, as people read them.
    pub(super) fn describe(&self, mappings: &Mappings, timeouts: &Timeouts) -> Vec<FlowInfo> {
        let live = self.flows().filter(|flow| !self.is_over(flow, mappings, timeouts));
        let is_original = |flow: &Whole<'_, A>| flow.half.is(flow_flags::ORIGINAL);
        live.filter(is_original).map(|flow| self.info(&flow, timeouts)).collect()
    }

    /// Removes the flows that are over from the table, and keeps their counts. Returns how many.
    pub(super) fn sweep(
        &self,
        flows: &mut Table<FlowKey<A>, Flow<A>>,
        mappings: &Mappings,
        timeouts: &Timeouts,
    ) -> Result<usize> {
        let mut swept = 0;
        for flow in self.flows().filter(|flow| self.is_over(flow, mappings, timeouts)) {
            // A packet may have come since, which began to use the entry again.
            let Some(half) = unchanged(flows, flow.key, flow.half)? else { continue };
            let twin_key = half.twin_key(flow.key.proto);
            let twin = match flow.twin {
                Some(twin) => match unchanged(flows, &twin_key, twin)? {
                    Some(twin) => Some(twin),
                    None => continue,
                },
                None => None,
            };
            flows.remove(flow.key)?;
            mappings.note_ended(mapping(&half), half.packets, half.bytes);
            if let Some(twin) = twin {
                flows.remove(&twin_key)?;
                mappings.note_ended(mapping(&twin), twin.packets, twin.bytes);
            }
            swept += 1;
        }
        Ok(swept)
    }

    /// Removes the flows that `filter` matches from the table, and keeps their counts. Returns how many.
    pub(super) fn flush(
        &self,
        flows: &mut Table<FlowKey<A>, Flow<A>>,
        mappings: &Mappings,
        filter: &FlowFilter,
    ) -> Result<usize> {
        let mut flushed = 0;
        for Whole { key, half, .. } in self.flows() {
            if !filter.matches(key.proto, addresses(&key.tuple), addresses(&half.to)) {
                continue;
            }
            // The answers' half first: while the other is there nobody opens the flow anew, only to lose a half of it
            // here.
            for key in [half.twin_key(key.proto), *key] {
                let Some(last) = flows.get(&key)? else { continue };
                flows.remove(&key)?;
                mappings.note_ended(mapping(&last), last.packets, last.bytes);
            }
            flushed += 1;
        }
        Ok(flushed)
    }

    /// Each flow once: by the half that opened it, or by the one that is left.
    fn flows(&self) -> impl Iterator<Item = Whole<'_, A>> {
        self.halves.iter().filter_map(|(key, half)| {
            let twin = self.halves.get(&half.twin_key(key.proto));
            (half.is(flow_flags::ORIGINAL) || twin.is_none()).then_some(Whole { key, half, twin })
        })
    }

    fn is_over(&self, flow: &Whole<'_, A>, mappings: &Mappings, timeouts: &Timeouts) -> bool {
        !mappings.is_current(mapping(flow.half))
            || timeout::expired(self.now, flow.key.proto, flow.half, flow.twin, timeouts)
    }

    fn info(&self, flow: &Whole<'_, A>, timeouts: &Timeouts) -> FlowInfo {
        let Whole { key, half, twin } = flow;
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

/// What made a flow.
fn mapping<A: Address>(half: &Flow<A>) -> MappingId {
    MappingId { slot: half.mapping, generation: half.generation }
}

/// An entry as it is, unless it has been used since it was read.
fn unchanged<A: Address>(
    flows: &Table<FlowKey<A>, Flow<A>>,
    key: &FlowKey<A>,
    read: &Flow<A>,
) -> Result<Option<Flow<A>>> {
    let same = |flow: &Flow<A>| flow.last_seen == read.last_seen && mapping(flow) == mapping(read);
    Ok(flows.get(key)?.filter(same))
}

fn addresses<A: Address>(tuple: &Tuple<A>) -> (SocketAddr, SocketAddr) {
    ((tuple.src.ip(), tuple.sport.get()).into(), (tuple.dst.ip(), tuple.dport.get()).into())
}

fn kind(carried: u8) -> String {
    let reason = Reason::ALL.iter().find(|reason| **reason as u8 == carried);
    reason.map_or_else(|| carried.to_string(), |reason| reason.name().to_owned())
}

/// The clock of [`Flow::last_seen`], in nanoseconds.
fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?;
    u64::try_from(Duration::from(now).as_nanos()).context("read the clock")
}
