//! What happens to networks and containers, told to whoever listens.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::broadcast;

/// How many events are kept for those who ask for the past, as Docker does.
const KEPT: usize = 256;
/// How many events a listener may be behind before it misses some.
const BEHIND: usize = 1024;

/// Something that happened, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds since 1970.
    pub time: i64,
    /// What it happened to.
    pub kind: Kind,
    /// `create`, `destroy`, `connect`, `disconnect`; `start`, `die`, `stop`, …
    pub action: String,
    /// Id of the network or container; the instance's name for the daemon.
    pub id: String,
    /// `name`, and what else is worth knowing.
    pub attributes: BTreeMap<String, String>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A network.
    Network,
    /// A container.
    Container,
    /// The daemon itself.
    Daemon,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Container => "container",
            Self::Daemon => "daemon",
        })
    }
}

/// The events of one instance, since its daemon was started. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Events {
    kept: Arc<Mutex<VecDeque<Event>>>,
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Arc::default(), sender: broadcast::Sender::new(BEHIND) }
    }
}

impl Events {
    /// Tells of something that has just happened.
    pub fn emit<'a>(
        &self,
        kind: Kind,
        action: &str,
        id: &str,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        // The nanoseconds of an i64 last until the year 2262.
        let time = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap_or(i64::MAX);
        let attributes = attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let event = Event { time, kind, action: action.to_owned(), id: id.to_owned(), attributes };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Fails when nobody listens. Sent under the lock, so that none is both in the past and to come.
        let _ = self.sender.send(event);
    }

    /// The events that are kept, oldest first, and those to come: none is in both, and none in neither.
    pub fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().cloned().collect(), self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_and_future_meet() {
        let events = Events::default();
        for n in 0..KEPT + 1 {
            events.emit(Kind::Network, "create", &n.to_string(), [("name", "n")]);
        }
        let (past, mut future) = events.listen();
        assert_eq!((past.len(), past[0].id.as_str()), (KEPT, "1"));
        events.emit(Kind::Container, "die", "c", [("exitCode", "0")]);
        let event = future.try_recv().unwrap();
        assert_eq!((event.action.as_str(), event.attributes["exitCode"].as_str()), ("die", "0"));
        assert!(event.time >= past[KEPT - 1].time && future.try_recv().is_err());
    }
}
