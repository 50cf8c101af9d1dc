//! The collector: goes through the flow table in rounds, removes what is over, and tells the programs how full it is.

use anyhow::Result;
use rnet_common::{Pressure, settings::SECOND};

use super::{
    Ebpf,
    flows::{self, Excerpt},
    tables::Tables,
};
use crate::controller::backend::{FlowPosition, Page, Tally};

/// How long limits are in force after a round, in nanoseconds: longer than one that is late takes.
const COUNTED_FOR: u64 = 60 * SECOND;

impl Ebpf {
    /// A step of a round.
    pub(super) fn collect(&mut self, from: FlowPosition) -> Result<Page<usize>> {
        let timeouts = self.tables.settings()?.timeouts;
        if from == FlowPosition::default() {
            self.sweeps = self.sweeps.wrapping_add(1);
            self.tallies.0 = Tally::default();
            self.room_before = self.tables.pressure()?.room;
            self.quotas.begin(self.tables.endpoint_mappings()?, &self.tables.mappings, &timeouts);
        }
        let round = self.sweeps;
        let Tables { v4, v6, mappings, .. } = &mut self.tables;
        let (tally, quotas) = (&mut self.tallies.0, &mut self.quotas);
        let page = if from.v6 {
            let some = Excerpt::take(&v6.flows, from)?;
            some.tally(tally, mappings, &timeouts);
            some.page(some.sweep(&mut v6.flows, mappings, &timeouts, round, quotas)?)
        } else {
            let some = Excerpt::take(&v4.flows, from)?;
            some.tally(tally, mappings, &timeouts);
            some.page(some.sweep(&mut v4.flows, mappings, &timeouts, round, quotas)?)
        };
        if page.next.is_none() {
            self.end_round()?;
        }
        Ok(page)
    }

    /// Keeps what a round has found, and tells the programs.
    fn end_round(&mut self) -> Result<()> {
        let mut tally = std::mem::take(&mut self.tallies.0);
        tally.opened = self.quotas.end(&self.tables.mappings);
        let capacities = [self.tables.v4.flows.capacity()?.1, self.tables.v6.flows.capacity()?.1];
        let left = [0, 1].map(|family: usize| room(tally.entries[family], capacities[family]));
        self.is_filling = left.iter().any(|left| *left <= 0);
        self.tallies.1 = Some(tally);
        let counted_until = flows::now()? + COUNTED_FOR;
        let source_interval = SECOND.checked_div(self.quotas.limits().source_rate.into()).unwrap_or(0);
        // What programs take between this and the writing is lost, until the next round counts it.
        let taken = self.tables.pressure()?.room;
        let room = [0, 1].map(|family: usize| {
            let opened_meanwhile = self.room_before[family].wrapping_sub(taken[family]);
            left[family].saturating_sub(opened_meanwhile)
        });
        self.tables.set_pressure(&Pressure { counted_until, room, source_interval })
    }
}

/// How many flows a table with so many entries takes before it is said to fill up: at three quarters.
fn room(entries: u64, capacity: u32) -> i32 {
    let left = i64::from(capacity) / 4 * 3 - i64::try_from(entries).unwrap_or(i64::MAX);
    // A flow has two entries.
    i32::try_from(left / 2).unwrap_or(i32::MIN)
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn a_table_fills_up_at_three_quarters() {
        assert_eq!((room(0, 16), room(4, 16), room(12, 16), room(16, 16)), (6, 4, 0, -2));
        assert_eq!(room(u64::MAX, u32::MAX), i32::MIN);
        assert_eq!(room(0, u32::MAX), 1_610_612_734);
    }
}
