//! Mappings: what flows owe their existence to, in memory that is shared with the programs.

use std::{
    collections::HashSet,
    mem::{offset_of, size_of},
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};
use rnet_common::{Mapping, limits, pressure::UNLIMITED};

use crate::controller::backend::PortCount;

/// Which mapping made a flow: its slot, and the slot's generation then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MappingId {
    /// The slot's index.
    pub(super) slot: u32,
    /// 0 for none.
    pub(super) generation: u32,
}

/// The table of mappings. Slot 0 is never given out: its generation is the last one that was.
pub(super) struct Mappings {
    memory: MmapRaw,
    /// Where the search for a free slot goes on.
    cursor: usize,
}

/// The slot that holds the last generation given out.
const LAST: usize = 0;

impl Mappings {
    /// Takes hold of the table.
    pub(super) fn open(map: &MapData) -> Result<Self> {
        let memory = MmapOptions::new()
            .len(limits::MAPPINGS * size_of::<Mapping>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .context("map the table of mappings into memory")?;
        Ok(Self { memory, cursor: LAST })
    }

    /// Takes a free slot, which gets a generation that there never was.
    pub(super) fn take(&mut self) -> Result<MappingId> {
        let slots = (0..limits::MAPPINGS).map(|step| (self.cursor + step) % limits::MAPPINGS);
        let Some(slot) = slots.filter(|slot| *slot != LAST).find(|slot| self.load(*slot) == 0) else {
            bail!("there are {} mappings already", limits::MAPPINGS - 1);
        };
        self.cursor = slot + 1;
        for number in
            [offset_of!(Mapping, flows), offset_of!(Mapping, ended_packets), offset_of!(Mapping, ended_bytes)]
        {
            self.number(slot, number).store(0, Ordering::Relaxed);
        }
        self.room_of(slot).store(UNLIMITED, Ordering::Relaxed);
        let generation = self.load(LAST).checked_add(1).unwrap_or(1);
        self.generation(LAST).store(generation, Ordering::Relaxed);
        self.generation(slot).store(generation, Ordering::Release);
        Ok(MappingId { slot: u32::try_from(slot).context("number a mapping")?, generation })
    }

    /// Ends a mapping: its flows are dead from the next packet on. One that has ended already stays so.
    pub(super) fn release(&self, id: MappingId) {
        if self.is_current(id) {
            self.generation(id.slot as usize).store(0, Ordering::Release);
        }
    }

    /// Ends every mapping but these: what an interrupted run took and did not come to use.
    pub(super) fn retain(&self, used: &HashSet<MappingId>) {
        for slot in (0..limits::MAPPINGS).filter(|slot| *slot != LAST) {
            let generation = self.load(slot);
            let is_used =
                u32::try_from(slot).is_ok_and(|slot| used.contains(&MappingId { slot, generation }));
            if generation != 0 && !is_used {
                self.generation(slot).store(0, Ordering::Release);
            }
        }
    }

    /// Whether flows that it made are alive.
    pub(super) fn is_current(&self, id: MappingId) -> bool {
        let slot = id.slot as usize;
        id.generation != 0 && slot != LAST && slot < limits::MAPPINGS && self.load(slot) == id.generation
    }

    /// How many flows its container may open still; of the mapping of an endpoint.
    pub(super) fn room(&self, id: MappingId) -> i32 {
        if self.is_current(id) { self.room_of(id.slot as usize).load(Ordering::Relaxed) } else { 0 }
    }

    /// Adds to that. Programs may take from it meanwhile.
    pub(super) fn give_room(&self, id: MappingId, more: i32) {
        if self.is_current(id) {
            self.room_of(id.slot as usize).fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Flows opened, and the traffic of those that have ended.
    pub(super) fn count(&self, id: MappingId) -> PortCount {
        if !self.is_current(id) {
            return PortCount::default();
        }
        let number = |offset| self.number(id.slot as usize, offset).load(Ordering::Relaxed);
        PortCount {
            flows: number(offset_of!(Mapping, flows)),
            packets: number(offset_of!(Mapping, ended_packets)),
            bytes: number(offset_of!(Mapping, ended_bytes)),
        }
    }

    /// Keeps the counts of a flow that is removed.
    pub(super) fn note_ended(&self, id: MappingId, packets: u64, bytes: u64) {
        if self.is_current(id) {
            let slot = id.slot as usize;
            self.number(slot, offset_of!(Mapping, ended_packets)).fetch_add(packets, Ordering::Relaxed);
            self.number(slot, offset_of!(Mapping, ended_bytes)).fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn load(&self, slot: usize) -> u32 {
        self.generation(slot).load(Ordering::Acquire)
    }

    fn generation(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: `field` gives aligned memory inside the map, which lives as long as `self`, and which everybody
        // reads and writes whole words of.
        unsafe { AtomicU32::from_ptr(self.field(slot, offset_of!(Mapping, generation)).cast()) }
    }

    fn room_of(&self, slot: usize) -> &AtomicI32 {
        // SAFETY: as in `generation`.
        unsafe { AtomicI32::from_ptr(self.field(slot, offset_of!(Mapping, room)).cast()) }
    }

    fn number(&self, slot: usize, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `generation`.
        unsafe { AtomicU64::from_ptr(self.field(slot, offset).cast()) }
    }

    /// A field of a slot. The kernel keeps an array map's values as an array does, from the start of a page
    /// (`array_map_mmap`); a mapping's size is a multiple of its alignment.
    fn field(&self, slot: usize, offset: usize) -> *mut u8 {
        assert!(slot < limits::MAPPINGS && offset < size_of::<Mapping>());
        // SAFETY: within the mapped memory, by the line above.
        unsafe { self.memory.as_mut_ptr().add(slot * size_of::<Mapping>() + offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Mappings {
        let memory = MmapOptions::new().len(limits::MAPPINGS * size_of::<Mapping>()).map_anon().unwrap();
        Mappings { memory: memory.into(), cursor: LAST }
    }

    #[test]
    fn a_generation_is_never_given_out_twice() {
        let mut table = table();
        let first = table.take().unwrap();
        let second = table.take().unwrap();
        assert!(first.slot != 0 && first.slot != second.slot && first.generation != second.generation);
        table.release(first);
        assert!(!table.is_current(first) && table.is_current(second));
        table.cursor = LAST;
        let again = table.take().unwrap();
        assert_eq!(again.slot, first.slot);
        assert!(again.generation > second.generation);
        table.release(first);
        assert!(table.is_current(again), "the slot is another's");
    }

    #[test]
    fn a_slot_begins_with_no_counts() {
        let mut table = table();
        let first = table.take().unwrap();
        table.note_ended(first, 3, 180);
        assert_eq!(table.count(first), PortCount { flows: 0, packets: 3, bytes: 180 });
        table.release(first);
        table.note_ended(first, 1, 60);
        table.cursor = LAST;
        let again = table.take().unwrap();
        assert_eq!((again.slot, table.count(again)), (first.slot, PortCount::default()));
    }

    #[test]
    fn room_is_given_to_what_is_current_and_does_not_pass_to_the_next() {
        let mut table = table();
        let first = table.take().unwrap();
        assert_eq!(table.room(first), UNLIMITED);
        // What is given is counted from what there was, so that it may wrap.
        table.give_room(first, (-3_i32).wrapping_sub(UNLIMITED));
        assert_eq!(table.room(first), -3);
        table.give_room(first, UNLIMITED.wrapping_sub(-3));
        assert_eq!(table.room(first), UNLIMITED);
        table.give_room(first, -UNLIMITED);
        table.release(first);
        table.give_room(first, 5);
        table.cursor = LAST;
        let again = table.take().unwrap();
        assert_eq!((again.slot, table.room(again), table.room(first)), (first.slot, UNLIMITED, 0));
    }

    #[test]
    fn what_is_not_used_is_freed() {
        let mut table = table();
        let [lost, used] = [table.take().unwrap(), table.take().unwrap()];
        table.retain(&HashSet::from([used]));
        assert!(!table.is_current(lost) && table.is_current(used));
        assert!(table.take().unwrap().generation > used.generation, "the last generation is kept");
    }

    #[test]
    fn a_full_table_is_an_error() {
        let mut table = table();
        for slot in 1..limits::MAPPINGS {
            table.generation(slot).store(1, Ordering::Relaxed);
        }
        assert!(table.take().is_err());
    }
}
