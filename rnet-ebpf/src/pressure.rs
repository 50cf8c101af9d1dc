//! What keeps one container, or one source outside, from taking the flow table for itself: see [`rnet_common::pressure`].
//! Looked at where a flow is opened, and nowhere else.

use rnet_common::{Pressure, SourceNet, pressure};

use crate::{
    conntrack,
    maps::{self, Tables},
};

/// Whether the container of an endpoint with this mapping may open a flow at time `now`.
#[inline(always)]
pub(crate) fn has_room(mapping: u32, now: u64) -> bool {
    let Some(pressure) = maps::pressure() else { return true };
    // SAFETY: a slot of an array, which stays. Words are read whole, whoever writes them meanwhile.
    let Pressure { counted_until, .. } = unsafe { *pressure };
    now >= counted_until || maps::room(mapping) > 0
}

/// Whether a source outside may open a flow: all may as long as the family's table does not fill up.
#[inline(never)]
pub(crate) fn admits<A: Tables>(source: &A) -> bool {
    let Some(pressure) = maps::pressure() else { return true };
    // SAFETY: as in `has_room`.
    let Pressure { counted_until, room, source_interval } = unsafe { *pressure };
    if room[A::V6 as usize] > 0 || source_interval == 0 {
        return true;
    }
    let now = conntrack::now();
    if now >= counted_until {
        return true;
    }
    let source: SourceNet = (*source).into();
    if let Some(due) = maps::due(&source) {
        // SAFETY: an entry of the table, readable and writable while the program runs. One that is reused meanwhile for
        // another source costs or gives that a flow, and so do two CPUs at once.
        return pressure::admits(unsafe { &mut *due }, now, source_interval);
    }
    let mut due = 0;
    let is_admitted = pressure::admits(&mut due, now, source_interval);
    maps::note_due(&source, due);
    is_admitted
}
