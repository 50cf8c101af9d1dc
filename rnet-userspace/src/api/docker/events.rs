//! What happens, as Docker tells it: one JSON object after the other for as long as somebody listens.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures::{Stream, future::BoxFuture, stream};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};

use super::{filters::Filters, timestamp};
use crate::{
    api::error::{ApiError, ApiResult},
    controller::{self, events::Kind},
};

/// Who or what an event can be asked for by name or id.
const ACTORS: [&str; 10] =
    ["config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume"];
const OTHERS: [&str; 4] = ["event", "label", "scope", "type"];

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened to a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The container's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `network` or `container`.
    #[serde(rename = "Type")]
    pub kind: Kind,
    /// `create`, `destroy`, `connect`, `disconnect`; `start`, `die`, `stop`, …
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// When, in nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Id of the network or container.
    #[serde(rename = "ID")]
    pub id: String,
    /// `name`, and what else is worth knowing.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    since: String,
    until: String,
    filters: String,
}

/// Which events are told.
#[derive(Debug)]
pub(super) struct Selection {
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    filters: Filters,
}

impl Wanted {
    #[cfg(any(test, fuzzing))]
    pub(super) fn new(since: &str, until: &str, filters: &str) -> Self {
        Self { since: since.to_owned(), until: until.to_owned(), filters: filters.to_owned() }
    }

    pub(super) fn parse(&self, now: OffsetDateTime) -> ApiResult<Selection> {
        let known = [&ACTORS[..], &OTHERS].concat();
        let time = |text: &str| match text {
            "" => Ok(None),
            text => timestamp::parse(text, now).map(Some).map_err(ApiError::bad_request),
        };
        let (since, until) = (time(&self.since)?, time(&self.until)?);
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            return Err(ApiError::bad_request(format!(
                "`since` time ({}) cannot be after `until` time ({})",
                self.since, self.until
            )));
        }
        Ok(Selection { since, until, filters: Filters::parse(&self.filters, &known)? })
    }
}

impl Selection {
    /// Those of the events kept that are told first. Without `since` and `until` none: only what is to come.
    fn past(&self, kept: Vec<controller::events::Event>) -> VecDeque<Event> {
        if self.since.is_none() && self.until.is_none() {
            return VecDeque::new();
        }
        let nanos = |time: OffsetDateTime| time.unix_timestamp_nanos();
        let after = self.since.map_or(i128::MIN, nanos);
        let before = self.until.map_or(i128::MAX, nanos);
        let in_time = |event: &Event| (after..=before).contains(&i128::from(event.time_nano));
        kept.iter().map(Event::from).filter(|event| in_time(event) && self.includes(event)).collect()
    }

    fn includes(&self, event: &Event) -> bool {
        let name = event.actor.attributes.get("name").map(String::as_str).unwrap_or_default();
        let kind = event.kind.to_string();
        self.filters.any("type", |wanted| wanted == kind)
            && self.filters.any("event", |wanted| wanted == event.action)
            && self.filters.any("scope", |wanted| wanted == "local")
            && self.filters.has_labels("label", &event.actor.attributes)
            // As with Docker, the beginning of a name or id will do, and whose it is does not matter.
            && ACTORS.into_iter().all(|actor| {
                self.filters.any(actor, |wanted| event.actor.id.starts_with(wanted) || name.starts_with(wanted))
            })
    }
}

impl From<&controller::events::Event> for Event {
    fn from(event: &controller::events::Event) -> Self {
        // Fields from before there were events of other things.
        let of_container = |text: &str| (event.kind == Kind::Container).then(|| text.to_owned());
        Self {
            status: of_container(&event.action),
            id: of_container(&event.id),
            kind: event.kind,
            action: event.action.clone(),
            actor: Actor { id: event.id.clone(), attributes: event.attributes.clone() },
            scope: "local".to_owned(),
            time: event.time.div_euclid(1_000_000_000),
            time_nano: event.time,
        }
    }
}

/// Tells the events that are wanted, until the time asked for, or until `end`.
pub(super) fn respond(
    selection: Selection,
    events: &controller::Events,
    now: OffsetDateTime,
    end: BoxFuture<'static, ()>,
) -> Response {
    let (kept, to_come) = events.listen();
    let past = selection.past(kept);
    let until = selection.until.map(|until| Duration::try_from(until - now).unwrap_or_default());
    // What is so far off that the clock does not know it never comes.
    let until = until.and_then(|wait| Instant::now().checked_add(wait));
    let telling = Telling { selection, past, to_come, until, end };
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(telling.lines())).into_response()
}

struct Telling {
    selection: Selection,
    past: VecDeque<Event>,
    to_come: broadcast::Receiver<controller::events::Event>,
    until: Option<Instant>,
    end: BoxFuture<'static, ()>,
}

impl Telling {
    fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold(self, |mut telling| async move {
            let event = telling.next().await?;
            // A map of texts always becomes JSON.
            let mut line = serde_json::to_vec(&event).unwrap_or_default();
            line.push(b'\n');
            Some((Ok(line.into()), telling))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        let until = self.until;
        let late = async move {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(late);
        loop {
            tokio::select! {
                // What comes after the time is not told.
                biased;
                () = &mut late => return None,
                () = &mut self.end => return None,
                event = self.to_come.recv() => match event {
                    Ok(event) => {
                        let event = Event::from(&event);
                        if self.selection.includes(&event) {
                            return Some(event);
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "a listener to events is too slow");
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: i64, kind: Kind, action: &str, id: &str, name: &str) -> controller::events::Event {
        controller::events::Event {
            time: second * 1_000_000_000 + 5,
            kind,
            action: action.into(),
            id: id.into(),
            attributes: [("name".to_owned(), name.to_owned()), ("type".to_owned(), "bridge".to_owned())]
                .into(),
        }
    }

    fn kept() -> Vec<controller::events::Event> {
        vec![
            event(1, Kind::Network, "create", "aa11", "front"),
            event(2, Kind::Container, "start", "bb22", "web"),
            event(3, Kind::Container, "die", "bb22", "web"),
            event(4, Kind::Network, "destroy", "aa11", "front"),
        ]
    }

    fn told(since: &str, until: &str, filters: &str) -> Result<Vec<i64>, String> {
        let wanted = Wanted { since: since.into(), until: until.into(), filters: filters.into() };
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(100);
        let selection = wanted.parse(now).map_err(|e| e.message)?;
        Ok(selection.past(kept()).iter().map(|event| event.time).collect())
    }

    #[test]
    fn the_past_is_told_only_when_it_is_asked_for() {
        assert_eq!(told("", "", ""), Ok(vec![]));
        assert_eq!(told("0", "", ""), Ok(vec![1, 2, 3, 4]));
        assert_eq!(told("3", "", ""), Ok(vec![3, 4]));
        assert_eq!(told("", "3", ""), Ok(vec![1, 2]), "five nanoseconds late is too late");
        assert_eq!(told("2.000000005", "3.000000005", ""), Ok(vec![2, 3]));
        assert_eq!(told("98s", "1m37s", ""), Ok(vec![2]));
        assert_eq!(told("4", "3", "").unwrap_err(), "`since` time (4) cannot be after `until` time (3)");
        assert!(told("soon", "", "").unwrap_err().starts_with("failed to parse value as time"));
    }

    #[test]
    fn every_filter_chooses() {
        for (filters, times) in [
            (r#"{"type":["network"]}"#, &[1, 4][..]),
            (r#"{"type":{"container":true,"network":true}}"#, &[1, 2, 3, 4]),
            (r#"{"event":["die","create"]}"#, &[1, 3]),
            (r#"{"container":["we"]}"#, &[2, 3]),
            (r#"{"container":["bb22"],"event":["start"]}"#, &[2]),
            (r#"{"network":["aa"]}"#, &[1, 4]),
            (r#"{"network":["web"],"type":["network"]}"#, &[]),
            (r#"{"label":["type=bridge"]}"#, &[1, 2, 3, 4]),
            (r#"{"label":["type=host"]}"#, &[]),
            (r#"{"scope":["swarm"]}"#, &[]),
            (r#"{"image":["debian"]}"#, &[]),
        ] {
            assert_eq!(told("0", "", filters).unwrap(), times, "{filters}");
        }
        assert!(told("0", "", r#"{"colour":["red"]}"#).unwrap_err().starts_with("invalid filter 'colour'"));
    }

    #[test]
    fn events_have_dockers_fields() {
        let json = |event: &controller::events::Event| serde_json::to_string(&Event::from(event)).unwrap();
        assert_eq!(
            json(&kept()[0]),
            r#"{"Type":"network","Action":"create","Actor":{"ID":"aa11","Attributes":{"name":"front","type":"bridge"}},"scope":"local","time":1,"timeNano":1000000005}"#
        );
        assert_eq!(
            json(&kept()[2]),
            r#"{"status":"die","id":"bb22","Type":"container","Action":"die","Actor":{"ID":"bb22","Attributes":{"name":"web","type":"bridge"}},"scope":"local","time":3,"timeNano":3000000005}"#
        );
    }
}
