//! Containers that are being started. dockerd tells that one is on a network before its interface is inside, and
//! answers nothing about it until its process runs. But the network knows its addresses, and the kernel knows which
//! veth leads to them as soon as it does: so it is served before its process sends a packet.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::translate::Interface;

/// How often interfaces are looked for that are to appear any moment. From when they have their address to when the
/// process runs runc takes some 20 ms.
const SOON: Duration = Duration::from_millis(3);
/// How often when they have not appeared for [`PATIENCE`], as where an image's files are slow to be mounted.
const LATER: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(3);
/// A start that takes longer has failed untold.
const LIMIT: Duration = Duration::from_secs(120);

/// A container that is being started.
#[derive(Debug)]
pub(super) struct Starting {
    pub name: String,
    /// Those that have not been found yet.
    pub waiting: Vec<Interface>,
    since: Instant,
}

/// All of them, by id.
#[derive(Debug, Default)]
pub(super) struct Starts(BTreeMap<String, Starting>);

impl Starts {
    /// Notes that a container is to have an interface.
    pub(super) fn expect(&mut self, container: &str, name: &str, interface: Interface) {
        let starting = self.0.entry(container.to_owned()).or_insert_with(|| Starting {
            name: name.to_owned(),
            waiting: Vec::new(),
            since: Instant::now(),
        });
        starting.waiting.retain(|other| other.network != interface.network);
        starting.waiting.push(interface);
    }

    pub(super) fn contains(&self, container: &str) -> bool {
        self.0.contains_key(container)
    }

    /// Says whether it was one.
    pub(super) fn remove(&mut self, container: &str) -> bool {
        self.0.remove(container).is_some()
    }

    /// An interface has been found.
    pub(super) fn found(&mut self, container: &str, endpoint: &str) {
        if let Some(starting) = self.0.get_mut(container) {
            starting.waiting.retain(|interface| interface.endpoint != endpoint);
        }
    }

    /// What is waited for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&String, &Starting)> {
        self.0.iter().filter(|(_, starting)| !starting.waiting.is_empty())
    }

    /// How long to wait before looking again; none while nothing is to appear. Forgets those that take too long.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        self.0.retain(|_, starting| starting.since.elapsed() < LIMIT);
        let youngest = self.waiting().map(|(_, starting)| starting.since.elapsed()).min()?;
        Some(if youngest < PATIENCE { SOON } else { LATER })
    }
}
