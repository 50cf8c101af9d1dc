//! Connection tracking: finding, opening, refreshing and taking over flows.
//!
//! Both halves of a flow are entries of one table ([`rnet_common::flow`]). The half for the answers is inserted
//! first and must be new: that insert is what allocates the source port, so two CPUs cannot take the same one.

use aya_ebpf::helpers::{bpf_get_prandom_u32, generated::bpf_ktime_get_coarse_ns};
use rnet_common::{Be16, Family, Flow, FlowKey, Reason, Side, limits::PORT_PROBES, port_choice, timeout};

use crate::{
    maps::{self, Inserted, Tables},
    nat::{Net, PortPolicy},
    packet::{Class, Packet},
};

/// The live entry for a packet that arrived at `side` through interface `ifindex`.
#[inline(always)]
pub(crate) fn find<A: Tables>(packet: &Packet<A>, side: Side, ifindex: u32) -> Option<*mut Flow<A>> {
    if matches!(packet.class, Class::Untracked | Class::Fragment) {
        return None;
    }
    let flow = maps::flow(&FlowKey::new(packet.tuple, packet.proto, side))?;
    is_live(flow, ifindex).then_some(flow)
}

/// Whether the mapping that made the entry is still in force, and the packet comes from where the entry's do.
#[inline(always)]
fn is_live<A: Family>(flow: *const Flow<A>, ifindex: u32) -> bool {
    // SAFETY: callers pass an entry of the flow table, readable while the program runs.
    let Flow { mapping, generation, from_ifindex, .. } = unsafe { *flow };
    (from_ifindex == 0 || from_ifindex == ifindex) && maps::is_current(mapping, generation)
}

/// Notes a packet of `bytes` on its flow's entry.
#[inline(always)]
pub(crate) fn touch<A: Tables>(flow: *mut Flow<A>, packet: &Packet<A>, bytes: u32) {
    if packet.is_syn() {
        reopen(flow, packet);
    }
    let now = now();
    // SAFETY: `flow` is an entry of the flow table, readable and writable while the program runs. One CPU carries
    // one direction of a flow, as receive queues are chosen by the flow's hash; where two do, a packet may go
    // uncounted, times differ by a tick, and bits are only ever set.
    unsafe {
        // The coarse clock stands still within a tick, so most packets write nothing here.
        if (*flow).last_seen != now {
            (*flow).last_seen = now;
        }
        if (*flow).seen | packet.seen != (*flow).seen {
            (*flow).seen |= packet.seen;
        }
        (*flow).packets += 1;
        (*flow).bytes += bytes as u64;
    }
}

/// A SYN on a closed connection's tuple begins a new one (RFC 9293 §3.6.1): forget what the old one saw.
#[inline(always)]
fn reopen<A: Tables>(flow: *mut Flow<A>, packet: &Packet<A>) {
    // SAFETY: as in `touch`.
    let Some(twin) = maps::flow(&unsafe { (*flow).twin_key(packet.proto) }) else { return };
    // SAFETY: as in `touch`, for both entries.
    unsafe {
        if timeout::reopens((*flow).seen, (*twin).seen) {
            (*flow).seen = 0;
            (*twin).seen = 0;
        }
    }
}

/// Opens a flow: `forward` says what `packet`, which arrived at `side`, becomes, `reply` what its answers become.
/// The source port of `forward` is settled here. Fails when no port is free or the table is full.
///
/// Both values are completed in place: they are too large for the stack twice.
#[inline(always)]
pub(crate) fn open<A: Net>(
    packet: &Packet<A>,
    side: Side,
    forward: &mut Flow<A>,
    reply: &mut Flow<A>,
    ports: &PortPolicy,
) -> Result<(), Reason> {
    let now = now();
    forward.last_seen = now;
    reply.last_seen = now;
    forward.seen = packet.seen;
    reply.to = packet.tuple.reversed();

    claim_port(packet, forward, reply, ports)?;
    let key = FlowKey::new(packet.tuple, packet.proto, side);
    match claim(&key, forward, now) {
        Inserted::Yes => {
            maps::note_opened(forward.mapping);
            Ok(())
        }
        Inserted::Exists => {
            // Another CPU opened the same flow meanwhile: its entries stand.
            maps::remove_flow(&forward.twin_key(packet.proto));
            let theirs = maps::flow(&key).ok_or(Reason::TableFull)?;
            // SAFETY: an entry of the flow table, readable while the program runs.
            *forward = unsafe { *theirs };
            Ok(())
        }
        Inserted::Full => {
            maps::remove_flow(&forward.twin_key(packet.proto));
            Err(Reason::TableFull)
        }
    }
}

/// Finds a source port under which the answers' key is new, and inserts their entry.
#[inline(always)]
fn claim_port<A: Net>(
    packet: &Packet<A>,
    forward: &mut Flow<A>,
    reply: &Flow<A>,
    ports: &PortPolicy,
) -> Result<(), Reason> {
    let own = packet.tuple.sport;
    // SAFETY: takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    // One more than there are probes: the flow's own port, then the others.
    for attempt in 0..=PORT_PROBES {
        forward.to.sport = match attempt {
            0 => own,
            _ => Be16::new(port_choice::candidate(attempt - 1, random, ports.min, ports.max)),
        };
        if (attempt == 0 && !ports.keeps(own)) || !ports.is_free(forward, packet.proto) {
            continue;
        }
        match claim(&forward.twin_key(packet.proto), reply, reply.last_seen) {
            Inserted::Yes => return Ok(()),
            Inserted::Exists => {}
            Inserted::Full => return Err(Reason::TableFull),
        }
    }
    Err(Reason::PortsExhausted)
}

/// Inserts an entry that must be new, taking the place of one that is dead or has expired.
#[inline(always)]
fn claim<A: Tables>(key: &FlowKey<A>, flow: &Flow<A>, now: u64) -> Inserted {
    match maps::insert_flow(key, flow) {
        Inserted::Exists if evict(key, flow.from_ifindex, now) => maps::insert_flow(key, flow),
        inserted => inserted,
    }
}

/// Removes the entry at `key` and its twin if they are of no use: made by a mapping that is gone, for an
/// interface that is gone, or idle for too long.
#[inline(always)]
fn evict<A: Tables>(key: &FlowKey<A>, from_ifindex: u32, now: u64) -> bool {
    let Some(entry) = maps::flow(key) else { return true };
    // SAFETY: an entry of the flow table, readable while the program runs.
    let entry = unsafe { &*entry };
    let twin_key = entry.twin_key(key.proto);
    // SAFETY: as above.
    let twin = maps::flow(&twin_key).map(|twin| unsafe { &*twin });
    if is_live(entry, from_ifindex)
        && !maps::settings().is_some_and(|s| timeout::expired(now, key.proto, entry, twin, &s.timeouts))
    {
        return false;
    }
    maps::note_ended(entry);
    if let Some(twin) = twin {
        maps::note_ended(twin);
        maps::remove_flow(&twin_key);
    }
    maps::remove_flow(key);
    true
}

/// The coarse monotonic clock, in nanoseconds. It moves once a tick, and is cheap to read.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { bpf_ktime_get_coarse_ns() }
}
