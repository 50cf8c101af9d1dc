//! Connection tracking: finding, opening, refreshing and taking over flows.
//!
//! Both halves of a flow are entries of one table ([`rnet_common::flow`]). The half for the answers is inserted
//! first and must be new: that insert is what allocates the source port, so two CPUs cannot take the same one.

use aya_ebpf::helpers::{bpf_get_prandom_u32, generated::bpf_ktime_get_coarse_ns};
use rnet_common::{
    Be16, Family, Flow, FlowKey, Reason, Side, flow::seen, limits::PORT_PROBES, port_choice, timeout,
};

use crate::{
    maps::{self, Inserted, NewFlow, Tables},
    nat::{Net, PortPolicy},
    packet::{Class, Packet},
    pressure, recent,
    skb::{ETH_LEN, Skb},
};

/// The live entry for a packet that arrived at `side` through interface `ifindex`. `key` is overwritten.
#[inline(always)]
pub(crate) fn find<A: Tables>(
    packet: &Packet<A>,
    side: Side,
    ifindex: u32,
    key: &mut FlowKey<A>,
) -> Option<*mut Flow<A>> {
    if !matches!(packet.class, Class::Opens | Class::Continues) {
        return None;
    }
    key.set(&packet.tuple, packet.proto, side);
    find_key(key, ifindex)
}

/// The live entry of a key, for a packet that arrived through interface `ifindex`.
#[inline(always)]
pub(crate) fn find_key<A: Tables>(key: &FlowKey<A>, ifindex: u32) -> Option<*mut Flow<A>> {
    let flow = maps::flow(key)?;
    is_live(flow, ifindex).then_some(flow)
}

/// Whether the mapping that made the entry is still in force, and the packet comes from where the entry's do.
#[inline(always)]
fn is_live<A: Family>(flow: *const Flow<A>, ifindex: u32) -> bool {
    // SAFETY: callers pass an entry of the flow table, readable while the program runs.
    let Flow { mapping, generation, from_ifindex, .. } = unsafe { *flow };
    (from_ifindex == 0 || from_ifindex == ifindex) && maps::is_current(mapping, generation)
}

/// Notes a packet on its flow's entry.
#[inline(always)]
pub(crate) fn touch<A: Tables>(entry: *mut Flow<A>, packet: &Packet<A>, skb: Skb) -> &'static Flow<A> {
    if packet.is_syn() {
        reopen(entry, packet);
    }
    note(entry, progress(entry, packet, skb), skb.len() - ETH_LEN as u32);
    // SAFETY: an entry of the flow table, readable while the program runs. The controller and other CPUs write only the
    // fields that `note` does.
    unsafe { &*entry }
}

/// The [`rnet_common::flow::seen`] bits of a packet that count. An end of the connection that comes from outside, where
/// anybody may send in another's name, counts if its sequence number is near what the container has acknowledged.
#[inline(always)]
fn progress<A: Tables>(entry: *mut Flow<A>, packet: &Packet<A>, skb: Skb) -> u8 {
    const SEQUENCE: usize = 4;
    const ACKNOWLEDGED: usize = 8;
    // Of other protocols, and of fragments after the first, no packet has seen it.
    if packet.seen & seen::ACK == 0 {
        return packet.seen;
    }
    // SAFETY: an entry of the flow table, readable while the program runs.
    let from_container = unsafe { (*entry).from_ifindex } != 0;
    if from_container {
        if let Some(acked) = skb.read::<u16>(packet.l4 + ACKNOWLEDGED).map(u16::from_be) {
            // SAFETY: as above, and writable; a segment that overtakes another sets it back by little.
            unsafe {
                // It changes every 64 KiB.
                if (*entry).acked != acked {
                    (*entry).acked = acked;
                }
            }
        }
        return packet.seen;
    }
    if packet.seen & (seen::FIN | seen::RST) == 0 {
        return packet.seen;
    }
    // SAFETY: as above.
    let Some(twin) = maps::flow(&unsafe { (*entry).twin_key(packet.proto) }) else { return packet.seen };
    // SAFETY: as above, for the twin.
    let (twin_seen, acked) = unsafe { ((*twin).seen, (*twin).acked) };
    let sequence = skb.read::<u16>(packet.l4 + SEQUENCE).map_or(0, u16::from_be);
    match timeout::is_end_believed(twin_seen, acked, sequence) {
        true => packet.seen,
        false => packet.seen & !(seen::FIN | seen::RST),
    }
}

/// Notes a packet of `bytes` that has these [`rnet_common::flow::seen`] bits and opens no connection.
#[inline(always)]
pub(crate) fn note<A: Family>(flow: *mut Flow<A>, seen: u8, bytes: u32) {
    let now = now();
    // SAFETY: `flow` is an entry of the flow table, readable and writable while the program runs. One CPU carries
    // one direction of a flow, as receive queues are chosen by the flow's hash; where two do, a packet may go
    // uncounted, times differ by a tick, and bits are only ever set.
    unsafe {
        // The coarse clock stands still within a tick, so most packets write nothing here.
        if (*flow).last_seen != now {
            (*flow).last_seen = now;
        }
        if (*flow).seen | seen != (*flow).seen {
            (*flow).seen |= seen;
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

/// Opens a flow: `new.forward` says what `packet`, which arrived at `side`, becomes, `new.reply` what its answers
/// become. The source port of the former is settled here. Fails when the container that opens it has its quota of flows, no
/// port is free, or the table is full.
#[inline(never)]
pub(crate) fn open<A: Net>(
    skb: Skb,
    packet: &mut Packet<A>,
    side: Side,
    new: &mut NewFlow<A>,
) -> Result<(), Reason> {
    let now = now();
    if new.opener != 0 && !pressure::has_room(new.opener, now) {
        return Err(Reason::FlowQuota);
    }
    new.forward.last_seen = now;
    new.reply.last_seen = now;
    new.forward.seen = packet.seen;
    new.reply.to.set_reversed(&packet.tuple);

    claim_port(packet, new, &PortPolicy::new(skb, packet, new.as_host)?)?;
    new.key.set(&packet.tuple, packet.proto, side);
    match claim(&new.key, &new.forward, &mut new.old_key, &mut new.old_twin_key, now) {
        Inserted::Yes => {
            recent::note(&new.key);
            maps::note_opened(new.forward.mapping);
            maps::take_table_room::<A>();
            if new.opener != 0 {
                maps::take_room(new.opener);
            }
            packet.is_new = true;
            Ok(())
        }
        Inserted::Exists => {
            // Another CPU opened the same flow meanwhile: its entries stand.
            maps::remove_flow(&new.twin_key);
            let theirs = maps::flow(&new.key).ok_or(Reason::TableFull)?;
            // SAFETY: an entry of the flow table, readable while the program runs, and another place than `new`.
            unsafe { core::ptr::copy_nonoverlapping(theirs, &mut new.forward, 1) };
            Ok(())
        }
        Inserted::Full => {
            maps::remove_flow(&new.twin_key);
            Err(Reason::TableFull)
        }
    }
}

/// Finds a source port under which the answers' key is new, and inserts their entry: the flow's own, or another.
///
/// Expired entries are taken over under the flow's own port, and under one other: to look at each that is in the way
/// would be more than the verifier can follow.
#[inline(always)]
fn claim_port<A: Net>(packet: &Packet<A>, new: &mut NewFlow<A>, ports: &PortPolicy) -> Result<(), Reason> {
    new.forward.to.sport = packet.tuple.sport;
    if ports.keeps(packet.tuple.sport) && ports.is_free(&new.forward, packet.proto) {
        set_twin_key(packet, new);
        match claim(&new.twin_key, &new.reply, &mut new.old_key, &mut new.old_twin_key, new.reply.last_seen) {
            Inserted::Yes => return Ok(()),
            Inserted::Exists => {}
            Inserted::Full => return Err(Reason::TableFull),
        }
    }
    if ports.fixed {
        return Err(Reason::PortsExhausted);
    }
    match probe_ports(packet, new, ports) {
        Inserted::Yes => Ok(()),
        Inserted::Exists | Inserted::Full => {
            match claim(
                &new.twin_key,
                &new.reply,
                &mut new.old_key,
                &mut new.old_twin_key,
                new.reply.last_seen,
            ) {
                Inserted::Yes => Ok(()),
                Inserted::Exists => Err(Reason::PortsExhausted),
                Inserted::Full => Err(Reason::TableFull),
            }
        }
    }
}

/// Tries ports of the range. The last that was taken stays in `new`.
#[inline(always)]
fn probe_ports<A: Net>(packet: &Packet<A>, new: &mut NewFlow<A>, ports: &PortPolicy) -> Inserted {
    // SAFETY: takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    let mut inserted = Inserted::Exists;
    for attempt in 0..PORT_PROBES {
        let last = new.forward.to.sport;
        new.forward.to.sport = Be16::new(port_choice::candidate(attempt, random, ports.min, ports.max));
        if !ports.is_free(&new.forward, packet.proto) {
            new.forward.to.sport = last;
            continue;
        }
        set_twin_key(packet, new);
        inserted = maps::insert_flow(&new.twin_key, &new.reply);
        if !matches!(inserted, Inserted::Exists) {
            break;
        }
    }
    inserted
}

#[inline(always)]
fn set_twin_key<A: Net>(packet: &Packet<A>, new: &mut NewFlow<A>) {
    new.twin_key.set_reversed(&new.forward.to, packet.proto, new.forward.twin_side());
}

/// Inserts an entry that must be new, taking the place of one that is dead or has expired, or in a full table of one
/// that nobody has completed. Both scratches are overwritten.
#[inline(always)]
fn claim<A: Tables>(
    key: &FlowKey<A>,
    flow: &Flow<A>,
    scratch: &mut FlowKey<A>,
    twin_scratch: &mut FlowKey<A>,
    now: u64,
) -> Inserted {
    match maps::insert_flow(key, flow) {
        Inserted::Full if recent::make_room(scratch, twin_scratch) => maps::insert_flow(key, flow),
        Inserted::Exists if evict(key, flow.from_ifindex, scratch, now) => maps::insert_flow(key, flow),
        inserted => inserted,
    }
}

/// Removes the entry at `key` and its twin if they are of no use: made by a mapping that is gone, for an
/// interface that is gone, or idle for too long.
#[inline(never)]
fn evict<A: Tables>(key: &FlowKey<A>, from_ifindex: u32, twin_key: &mut FlowKey<A>, now: u64) -> bool {
    let Some(entry) = maps::flow(key) else { return true };
    // SAFETY: an entry of the flow table, readable while the program runs.
    let entry = unsafe { &*entry };
    twin_key.set_reversed(&entry.to, key.proto, entry.twin_side());
    // SAFETY: as above.
    let twin = maps::flow(twin_key).map(|twin| unsafe { &*twin });
    if is_live(entry, from_ifindex)
        && !maps::settings().is_some_and(|s| timeout::expired(now, key.proto, entry, twin, &s.timeouts))
    {
        return false;
    }
    end(key, entry, twin_key, twin);
    true
}

/// Removes a flow's entry and its twin's, if that is there, and keeps their counts.
#[inline(always)]
pub(crate) fn end<A: Tables>(
    key: &FlowKey<A>,
    entry: &Flow<A>,
    twin_key: &FlowKey<A>,
    twin: Option<&Flow<A>>,
) {
    maps::note_ended(entry);
    if let Some(twin) = twin {
        maps::note_ended(twin);
        maps::remove_flow(twin_key);
    }
    maps::remove_flow(key);
}

/// The coarse monotonic clock, in nanoseconds. It moves once a tick, and is cheap to read.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { bpf_ktime_get_coarse_ns() }
}
