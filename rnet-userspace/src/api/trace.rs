//! Packets, as they pass: one JSON object after the other for as long as somebody looks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use nix::{
    net::if_::{if_indextoname, if_nametoindex},
    time::{ClockId, clock_gettime},
};
use tokio::sync::broadcast::error::RecvError;

use super::{error::ApiResult, server::Query, supervisor::Supervisor};
use crate::controller::packets::{Look, Looked, Names, PacketFilter, Told};

/// How old the names of containers may be that packets are shown with.
const NAMES_LAST: Duration = Duration::from_secs(1);

pub(super) async fn trace(
    State(daemon): State<Arc<Supervisor>>,
    Query(filter): Query<PacketFilter>,
) -> ApiResult<Response> {
    let filters = daemon
        .ask(move |control| {
            let container = filter.container.as_deref().map(|name| control.container(name)).transpose()?;
            filter.resolve(container.as_ref(), |name| if_nametoindex(name).ok())
        })
        .await?;
    let look = daemon.look(filters).await?;
    let ended = daemon.ended();
    let telling = Telling { daemon, look, names: Names::default(), named: None };
    let lines = stream::unfold(telling, |mut telling| async {
        let told = telling.next().await?;
        Some((telling.line(told).await, telling))
    });
    let body = Body::from_stream(lines.take_until(ended));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

struct Telling {
    daemon: Arc<Supervisor>,
    look: Look,
    names: Names,
    named: Option<Instant>,
}

impl Telling {
    async fn next(&mut self) -> Option<Looked> {
        loop {
            match self.look.told.recv().await {
                Ok(Looked::Packet(record)) => {
                    if self.look.filters.iter().any(|filter| filter.matches(&record)) {
                        return Some(Looked::Packet(record));
                    }
                }
                Ok(lost) => return Some(lost),
                // Some of them may have been others'.
                Err(RecvError::Lagged(lost)) => return Some(Looked::Lost(lost)),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn line(&mut self, looked: Looked) -> anyhow::Result<Bytes> {
        let told = match looked {
            Looked::Lost(lost) => Told::Lost(lost),
            Looked::Packet(record) => {
                if self.named.is_none_or(|named| named.elapsed() > NAMES_LAST) {
                    let containers = self.daemon.ask(|control| Ok(control.containers())).await?;
                    (self.names, self.named) = (Names::of(&containers), Some(Instant::now()));
                }
                let interface = match record.ifindex {
                    0 => String::new(),
                    index => name_of(index),
                };
                Told::Packet(Box::new(self.names.show(&record, interface, epoch()?)))
            }
        };
        let mut line = serde_json::to_vec(&told).context("write JSON")?;
        line.push(b'\n');
        Ok(line.into())
    }
}

/// The name of an interface; its number if it has gone since.
fn name_of(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("if{index}"))
}

/// When the records' clock began, in nanoseconds since 1970: looked at anew each time, as the other clock may be set.
fn epoch() -> anyhow::Result<i64> {
    let nanos = |clock| clock_gettime(clock).map(|time| Duration::from(time).as_nanos());
    let (wall, records) = (nanos(ClockId::CLOCK_REALTIME)?, nanos(ClockId::CLOCK_MONOTONIC)?);
    i64::try_from(wall.saturating_sub(records)).context("read the clock")
}
