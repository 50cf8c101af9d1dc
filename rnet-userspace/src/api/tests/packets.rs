//! A look at packets, from a datapath in memory.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rnet_common::{Reason, TraceFilter, TraceRecord};
use tokio::sync::broadcast;

use super::{Daemon, ends, eventually};
use crate::controller::packets::{Look, Looked, PacketFilter, Packets, Told};

/// Tells what a test says, and counts who looks.
pub(super) struct FakePackets {
    told: broadcast::Sender<Looked>,
    filters: Mutex<Vec<TraceFilter>>,
    looking: Arc<AtomicUsize>,
}

impl Default for FakePackets {
    fn default() -> Self {
        Self { told: broadcast::channel(16).0, filters: Mutex::default(), looking: Arc::default() }
    }
}

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Packets for FakePackets {
    fn look(&self, filters: Vec<TraceFilter>) -> anyhow::Result<Look> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner).extend(&filters);
        self.looking.fetch_add(1, Ordering::SeqCst);
        let until_dropped = Box::new(Leaves(Arc::clone(&self.looking)));
        Ok(Look { told: self.told.subscribe(), filters, until_dropped })
    }
}

fn packet(reason: Reason) -> Looked {
    Looked::Packet(TraceRecord { reason: reason as u8, ..TraceRecord::default() })
}

#[tokio::test]
async fn everybody_is_told_what_he_looks_for_as_long_as_he_does() {
    let daemon = Daemon::start().await;
    let filter = |reason: &str| PacketFilter { reason: Some(reason.into()), ..PacketFilter::default() };
    let mut spoofed = daemon.client.trace(&filter("spoofed")).await.unwrap();
    let mut others = daemon.client.trace(&filter("martian,internal")).await.unwrap();
    assert_eq!(daemon.packets.filters.lock().unwrap()[0].reasons, 1 << Reason::Spoofed as u8);

    for looked in [packet(Reason::Spoofed), packet(Reason::Internal), Looked::Lost(3)] {
        daemon.packets.told.send(looked).unwrap();
    }
    for (look, reason) in [(&mut spoofed, "spoofed"), (&mut others, "internal")] {
        let Some(Told::Packet(first)) = ends("a packet is told", look.next()).await.unwrap() else {
            panic!("it is a packet")
        };
        assert_eq!((first.reason.as_str(), first.verdict.as_str()), (reason, "dropped"));
        assert_eq!(ends("the lost are told", look.next()).await.unwrap(), Some(Told::Lost(3)));
    }

    drop(spoofed);
    eventually("one has left", async || daemon.packets.looking.load(Ordering::SeqCst) == 1).await;
    drop(daemon.end);
    assert_eq!(ends("the stream ends", others.next()).await.unwrap(), None);
    ends("the daemon ends though somebody looked", daemon.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_looked_for_is_refused() {
    let daemon = Daemon::start().await;
    for (query, status) in
        [("verdict=lost", 400), ("container=nobody", 404), ("interface=eth99", 404), ("colour=red", 400)]
    {
        let (answered, body) = daemon.http("GET", &format!("/rnet/trace?{query}"), None).await;
        assert_eq!(answered, status, "{query}: {body}");
    }
    assert_eq!(daemon.packets.looking.load(Ordering::SeqCst), 0);
}
