//! Flows that were opened last, so that a full table has room for a new one: the oldest that nobody has completed gives
//! way, as by conntrack's `early_drop`. A flood that fills the table so drops its own flows, and those who answer get
//! through.
//!
//! Each CPU keeps its own, in a ring. It is only ever read when the table is full, from the oldest on; what was found to
//! be complete, or gone, is not looked at again.

use rnet_common::{FlowKey, timeout::State};

use crate::maps::{self, Tables};

/// Flows that each CPU keeps. A power of two.
pub(crate) const RECENT: u32 = 8192;

/// How many are looked at to make room for one.
const TRIES: u32 = 16;

/// Where a CPU is in its ring. Both count on and on, and wrap.
#[repr(C)]
pub(crate) struct Recent<A> {
    next: u32,
    oldest: u32,
    /// Of the flow that is looked at.
    twin_key: FlowKey<A>,
}

/// Notes a flow that was opened, by the key of the packet that opened it.
#[inline(always)]
pub(crate) fn note<A: Tables>(recent: &mut Recent<A>, key: &FlowKey<A>) {
    if let Some(slot) = maps::recent(recent.next) {
        *slot = *key;
        recent.next = recent.next.wrapping_add(1);
    }
}

/// Removes the oldest flow that nobody has completed. False when none was found.
#[inline(never)]
pub(crate) fn make_room<A: Tables>(recent: &mut Recent<A>) -> bool {
    for _ in 0..TRIES {
        if recent.next.wrapping_sub(recent.oldest) > RECENT {
            recent.oldest = recent.next.wrapping_sub(RECENT);
        }
        if recent.oldest == recent.next {
            return false;
        }
        let Some(key) = maps::recent::<A>(recent.oldest) else { return false };
        recent.oldest = recent.oldest.wrapping_add(1);
        let Some(flow) = maps::flow(key) else { continue };
        // SAFETY: an entry of the flow table, readable while the program runs.
        let flow = unsafe { &*flow };
        recent.twin_key.set_reversed(&flow.to, key.proto, flow.twin_side());
        // SAFETY: as above.
        let twin = maps::flow(&recent.twin_key).map(|twin| unsafe { &*twin });
        let twin_seen = twin.map_or(0, |twin| twin.seen);
        if !State::of(key.proto, flow.seen | twin_seen, flow.seen & twin_seen).is_incomplete() {
            continue;
        }
        maps::note_ended(flow);
        if let Some(twin) = twin {
            maps::note_ended(twin);
            maps::remove_flow(&recent.twin_key);
        }
        maps::remove_flow(key);
        return true;
    }
    false
}
