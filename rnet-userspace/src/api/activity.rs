//! What the daemon itself has done since it was started.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::connections::Connections;

/// Counts of one thing that is done again and again.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    done: AtomicU64,
    failed: AtomicU64,
    /// In nanoseconds.
    took: AtomicU64,
}

impl Rounds {
    /// Notes a round.
    pub(super) fn note(&self, succeeded: bool, took: Duration) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(!succeeded), Ordering::Relaxed);
        self.took.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many rounds there were.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many of them failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How long all of them took.
    pub(super) fn took(&self) -> Duration {
        Duration::from_nanos(self.took.load(Ordering::Relaxed))
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Activity {
    /// When it was started.
    pub(super) started: SystemTime,
    /// Rounds through the flow table.
    pub(super) sweeps: Rounds,
    /// Changes of the host's links and addresses that were followed.
    pub(super) refreshes: Rounds,
    /// Requests by the route that they took and the status that they were answered with: as many as there are routes,
    /// whatever is asked for.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    /// Connections by which these come.
    connections: OnceLock<Arc<Connections>>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            sweeps: Rounds::default(),
            refreshes: Rounds::default(),
            requests: Mutex::default(),
            connections: OnceLock::new(),
        }
    }
}

impl Activity {
    /// Notes an answered request.
    pub(super) fn answered(&self, route: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route.to_owned(), status)).or_default() += 1;
    }

    /// From here on requests come by these.
    pub(super) fn come_by(&self, connections: Arc<Connections>) {
        // A daemon listens once.
        let _ = self.connections.set(connections);
    }

    /// What requests come by, once they may.
    pub(super) fn connections(&self) -> Option<&Connections> {
        self.connections.get().map(|connections| &**connections)
    }

    /// How many requests took each route, by status.
    pub(super) fn requests(&self) -> BTreeMap<(String, u16), u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
