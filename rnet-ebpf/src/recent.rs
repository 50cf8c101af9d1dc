//! Flows that were opened last, so that a full table has room for a new one: the oldest that nobody has completed gives
//! way, as by conntrack's `early_drop`. A flood that fills the table so drops its own flows, and those who answer get
//! through.
//!
//! They are in a ring, which is read only when the table is full, from the oldest on; what was found to be complete, or
//! gone, is not looked at again. All CPUs share it: those who answer need not be on the CPU that a flood comes in by. They
//! take no turns: where two write at once, a flow is not remembered, and is left to its idle time.

use rnet_common::{FlowKey, timeout::State};

use crate::{
    conntrack,
    maps::{self, Tables},
};

/// Flows that are remembered. A power of two.
pub(crate) const RECENT: u32 = 8192;

/// How many are looked at to make room for one.
const TRIES: u32 = 16;

/// Where in the ring the next flow goes, and where the oldest is that was not looked at. Both count on and on, and wrap.
#[repr(C)]
pub(crate) struct Cursor {
    next: u32,
    oldest: u32,
}

/// Notes a flow that was opened, by the key of the packet that opened it.
#[inline(always)]
pub(crate) fn note<A: Tables>(key: &FlowKey<A>) {
    let Some(cursor) = maps::cursor::<A>() else { return };
    // SAFETY: a slot of an array, which stays; see `Cursor`, and above for what others do meanwhile.
    let next = unsafe { (*cursor).next };
    if let Some(slot) = maps::recent(next) {
        // SAFETY: as above; any bytes are a key.
        unsafe { *slot = *key };
        // SAFETY: as above.
        unsafe { (*cursor).next = next.wrapping_add(1) };
    }
}

/// Removes the oldest flow that nobody has completed. False when none was found. `key` and `twin_key` are overwritten.
#[inline(never)]
pub(crate) fn make_room<A: Tables>(key: &mut FlowKey<A>, twin_key: &mut FlowKey<A>) -> bool {
    let Some(cursor) = maps::cursor::<A>() else { return false };
    for _ in 0..TRIES {
        // SAFETY: a slot of an array, which stays.
        let Cursor { next, mut oldest } = unsafe { core::ptr::read(cursor) };
        if next.wrapping_sub(oldest) > RECENT {
            oldest = next.wrapping_sub(RECENT);
        }
        if oldest == next {
            return false;
        }
        // SAFETY: as above.
        unsafe { (*cursor).oldest = oldest.wrapping_add(1) };
        let Some(slot) = maps::recent::<A>(oldest) else { return false };
        // SAFETY: a slot of an array, which stays; any bytes are a key.
        *key = unsafe { *slot };
        let Some(flow) = maps::flow(key) else { continue };
        // SAFETY: an entry of the flow table, readable while the program runs.
        let flow = unsafe { &*flow };
        twin_key.set_reversed(&flow.to, key.proto, flow.twin_side());
        // SAFETY: as above.
        let twin = maps::flow(twin_key).map(|twin| unsafe { &*twin });
        let twin_seen = twin.map_or(0, |twin| twin.seen);
        if !State::of(key.proto, flow.seen | twin_seen, flow.seen & twin_seen).is_incomplete() {
            continue;
        }
        conntrack::end(key, flow, twin_key, twin);
        return true;
    }
    false
}
