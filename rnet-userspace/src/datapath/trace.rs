//! Records of packets for those who look (`rnet trace`): their filters, the word that switches the programs' recording on,
//! and the buffer that the records come in.
//!
//! The word says until when somebody looks, a few seconds ahead. Whoever looks is gone with his connection; and with a
//! daemon that is gone, nobody says so again.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use nix::time::{ClockId, clock_gettime};
use rnet_common::{
    TraceFilter, TraceRecord,
    trace::{FILTERS, Recorder},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{Notify, broadcast},
    time::{self, MissedTickBehavior},
};

use super::tables::{take, wrong};
use crate::controller::packets::{Look, Looked, Packets};

/// How long the programs go on by themselves.
const AHEAD: Duration = Duration::from_secs(5);
/// How often the daemon says so again.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Records that wait for whoever looks; who is slower than that misses the oldest.
const WAITING: usize = 4096;

/// The switch, and what comes through when it is on.
#[derive(Clone)]
pub struct Tracing(Arc<Shared>);

struct Shared {
    maps: Mutex<Maps>,
    told: broadcast::Sender<Looked>,
    /// Somebody looks, where nobody did.
    woken: Notify,
}

struct Maps {
    filters: Array<MapData, TraceFilter>,
    until: Array<MapData, u64>,
    recorders: PerCpuArray<MapData, Recorder>,
    /// Gone once it is being read.
    records: Option<RingBuf<MapData>>,
    /// Which of `filters` are somebody's.
    taken: [bool; FILTERS as usize],
}

/// Filters that are in force until this is dropped.
struct Slots {
    tracing: Tracing,
    numbers: Vec<u32>,
}

impl Tracing {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self> {
        let filters = take(ebpf, "TRACE_FILTERS")?.try_into().map_err(wrong("TRACE_FILTERS"))?;
        // What is not constant and begins as zero: nothing but that word.
        let until = take(ebpf, ".bss")?.try_into().map_err(wrong(".bss"))?;
        let recorders = take(ebpf, "TRACE_RECORDERS")?.try_into().map_err(wrong("TRACE_RECORDERS"))?;
        let records = take(ebpf, "TRACE_RECORDS")?.try_into().map_err(wrong("TRACE_RECORDS"))?;
        let maps =
            Maps { filters, until, recorders, records: Some(records), taken: [false; FILTERS as usize] };
        let (told, _) = broadcast::channel(WAITING);
        Ok(Self(Arc::new(Shared { maps: Mutex::new(maps), told, woken: Notify::new() })))
    }

    /// Reads what the programs write, until dropped.
    pub async fn run(self) {
        if let Err(error) = self.read().await {
            tracing::error!("packets cannot be traced: {error:#}");
        }
    }

    async fn read(&self) -> Result<()> {
        let Some(records) = self.maps().records.take() else { return Ok(()) };
        // SAFETY: the ring buffer keeps its map's descriptor open, and the same, until it is dropped, and is the AsyncFd's.
        let mut records =
            unsafe { AsyncFd::register(records) }.map_err(io::Error::from).context("wait for records")?;
        let mut renewals = time::interval(RENEW_EVERY);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = self.maps().lost()?;
        loop {
            if !self.maps().is_on() {
                self.0.woken.notified().await;
                lost = self.maps().lost()?;
            }
            tokio::select! {
                ready = records.readable_mut() => {
                    let mut ready = ready.context("wait for records")?;
                    while let Some(record) = ready.get_inner_mut().next() {
                        self.tell(&record);
                    }
                    ready.clear_ready();
                }
                _ = renewals.tick() => {
                    let mut maps = self.maps();
                    maps.switch()?;
                    let now = maps.lost()?;
                    if now > lost {
                        // Nobody may be there to hear it.
                        let _ = self.0.told.send(Looked::Lost(now - lost));
                    }
                    lost = now;
                }
            }
        }
    }

    fn tell(&self, bytes: &[u8]) {
        let Some(bytes) = bytes.first_chunk::<{ size_of::<TraceRecord>() }>() else { return };
        // SAFETY: as many bytes as the record has, all of whose fields are numbers of which any is one; unaligned, as
        // bytes are.
        let record = unsafe { bytes.as_ptr().cast::<TraceRecord>().read_unaligned() };
        let _ = self.0.told.send(Looked::Packet(record));
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Packets for Tracing {
    fn look(&self, filters: Vec<TraceFilter>) -> Result<Look> {
        let told = self.0.told.subscribe();
        // Whatever goes wrong from here on gives them back.
        let slots = Slots { numbers: self.maps().take(filters.len())?, tracing: self.clone() };
        let mut maps = self.maps();
        for (number, filter) in slots.numbers.iter().zip(&filters) {
            maps.filters.set(*number, filter, 0).context("look for packets")?;
        }
        maps.switch()?;
        drop(maps);
        self.0.woken.notify_one();
        Ok(Look { told, filters, until_dropped: Box::new(slots) })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut maps = self.tracing.maps();
        for number in &self.numbers {
            maps.taken[*number as usize] = false;
            if let Err(error) = maps.filters.set(*number, TraceFilter::default(), 0) {
                tracing::warn!("give back filter {number} of a trace: {error}");
            }
        }
        if let Err(error) = maps.switch() {
            tracing::warn!("end a trace: {error:#}");
        }
    }
}

impl Maps {
    /// Takes so many filters, all or none, and returns their numbers.
    fn take(&mut self, many: usize) -> Result<Vec<u32>> {
        let free: Vec<u32> = (0..FILTERS).filter(|number| !self.taken[*number as usize]).take(many).collect();
        if free.len() < many {
            anyhow::bail!(
                "{FILTERS} filters of packets are looked for at a time: others look for too many, and a container \
                 takes one for each of its interfaces and addresses"
            );
        }
        free.iter().for_each(|number| self.taken[*number as usize] = true);
        Ok(free)
    }

    fn is_on(&self) -> bool {
        self.taken.contains(&true)
    }

    /// Has the programs record as long as somebody looks.
    fn switch(&mut self) -> Result<()> {
        let until = if self.is_on() { now()? + AHEAD } else { Duration::ZERO };
        let nanos = u64::try_from(until.as_nanos()).context("read the clock")?;
        self.until.set(0, nanos, 0).context("switch recording")
    }

    /// How many records were not written, since the programs were loaded.
    fn lost(&self) -> Result<u64> {
        let recorders = self.recorders.get(&0, 0).context("read how many records were lost")?;
        Ok(recorders.iter().map(|recorder| recorder.lost).sum())
    }
}

/// The clock of the records.
fn now() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}
