//! `rnet events`.

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use super::{
    list::{FilterArgs, ObjectFormat},
    print,
    template::Filling,
};
use crate::api::{
    client::Client,
    docker::{Event, timestamp},
};

/// Arguments of `rnet events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Show what has happened since then as well, as 10m or 2026-01-02T15:04:05
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show what happens until then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// json, or a template as '{{.Type}} {{.Action}} {{.Actor.ID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<ObjectFormat>,
}

impl EventsArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let now = OffsetDateTime::now_utc();
        // Read here, because a time without a zone is meant where it was typed.
        let time = |text: Option<&String>| match text {
            None => Ok(String::new()),
            Some(text) => timestamp::parse(text, now).map(timestamp::to_unix).map_err(anyhow::Error::msg),
        };
        let (since, until) = (time(self.since.as_ref())?, time(self.until.as_ref())?);
        let mut events = client.events(&since, &until, &self.filter.filters()).await?;
        while let Some(event) = events.next().await? {
            if !print::streamed(&self.shown(&event)?)? {
                break;
            }
        }
        Ok(())
    }

    fn shown(&self, event: &Event) -> Result<String> {
        match &self.format {
            None => Ok(line(event, UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC))),
            Some(ObjectFormat::Json) => serde_json::to_string(event).context("write JSON"),
            Some(ObjectFormat::Template(template)) => {
                template.fill(Filling { data: &fields(event), labels: Some(&event.actor.attributes) })
            }
        }
    }
}

/// `2026-01-02T15:04:05.000000009+00:00 network connect 0123… (container=…, name=web)`
fn line(event: &Event, zone: UtcOffset) -> String {
    const TIME: &[BorrowedFormatItem<'_>] = format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9][offset_hour sign:mandatory]:[offset_minute]"
    );
    let time = OffsetDateTime::from_unix_timestamp_nanos(event.time_nano.into())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Only a year beyond 9999 cannot be written so.
    let time = time.to_offset(zone).format(TIME).unwrap_or_default();
    let attributes = event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}"));
    let attributes = attributes.collect::<Vec<_>>().join(", ");
    format!("{time} {} {} {} ({attributes})", event.kind, event.action, event.actor.id)
}

/// What a template can show, by the names that Docker has for it.
fn fields(event: &Event) -> Value {
    json!({
        "Status": event.status.as_deref().unwrap_or_default(),
        "ID": event.id.as_deref().unwrap_or_default(),
        "Type": event.kind,
        "Action": event.action,
        "Actor": event.actor,
        "Scope": event.scope,
        "Time": event.time,
        "TimeNano": event.time_nano,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::docker::Event;

    fn event() -> Event {
        serde_json::from_value(json!({
            "Type": "network", "Action": "connect",
            "Actor": { "ID": "0123", "Attributes": { "name": "n1", "container": "4567" } },
            "scope": "local", "time": 1_767_323_045, "timeNano": 1_767_323_045_000_000_009_i64,
        }))
        .unwrap()
    }

    #[test]
    fn an_event_is_a_line_as_dockers() {
        let zone = UtcOffset::from_hms(2, 30, 0).unwrap();
        assert_eq!(
            line(&event(), zone),
            "2026-01-02T05:34:05.000000009+02:30 network connect 0123 (container=4567, name=n1)"
        );
    }

    #[test]
    fn a_template_knows_dockers_names() {
        let ObjectFormat::Template(template) =
            "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.TimeNano}}{{.ID}}".parse().unwrap()
        else {
            panic!("this is a template")
        };
        let event = event();
        let text = template.fill(Filling { data: &fields(&event), labels: None }).unwrap();
        assert_eq!(text, "network connect n1 1767323045000000009");
    }
}
