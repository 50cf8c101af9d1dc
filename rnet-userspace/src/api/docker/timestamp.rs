//! Points in time as Docker's clients write them.

use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::duration;

/// The time that `text` means: `10m` before `now`, a date with or without a time of day and a zone, or seconds
/// since 1970 with or without a fraction.
///
/// # Errors
/// When it is none of these.
pub fn parse(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    let ago = || duration::parse(text).filter(|_| text != "0").and_then(|ago| now.checked_sub(ago));
    ago().or_else(|| unix(text)).or_else(|| date(text)).ok_or_else(|| {
        format!(
            "failed to parse value as time or duration: \"{text}\": it should be as 10m, 2026-01-02T15:04:05, \
             2026-01-02T15:04:05Z or 1767366245"
        )
    })
}

/// A time in seconds since 1970, exact to the nanosecond.
pub fn to_unix(time: OffsetDateTime) -> String {
    format!("{}.{:09}", time.unix_timestamp(), time.nanosecond())
}

fn unix(text: &str) -> Option<OffsetDateTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    let whole = OffsetDateTime::from_unix_timestamp(seconds.parse().ok()?).ok()?;
    whole.checked_add(Duration::nanoseconds(nanoseconds))
}

/// Without a zone it is meant where this runs, as with Docker.
fn date(text: &str) -> Option<OffsetDateTime> {
    let (day, rest) = text.split_once('T').unwrap_or((text, ""));
    let (clock, zone) = rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len()));
    let clock = match clock.matches(':').count() {
        0 if clock.is_empty() => "00:00:00".to_owned(),
        0 => format!("{clock}:00:00"),
        1 => format!("{clock}:00"),
        _ => clock.to_owned(),
    };
    let full = |zone: &str| OffsetDateTime::parse(&format!("{day}T{clock}{zone}"), &Rfc3339).ok();
    let time = if zone.is_empty() {
        let time = full("Z")?;
        // The zone cannot be known where several threads run: it is read from the environment.
        time.replace_offset(UtcOffset::local_offset_at(time).unwrap_or(UtcOffset::UTC))
    } else {
        full(zone)?
    };
    // In the last hours of 9999 west of Greenwich it is a year later there, which is none that is known.
    time.checked_to_offset(UtcOffset::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_time_is_understood() {
        let now = OffsetDateTime::parse("2026-01-02T03:04:05.5Z", &Rfc3339).unwrap();
        for (text, meant) in [
            ("10m", "2026-01-02T02:54:05.5Z"),
            ("1h30m", "2026-01-02T01:34:05.5Z"),
            ("-1.5s", "2026-01-02T03:04:07Z"),
            ("2026-01-02T15:04:05.25Z", "2026-01-02T15:04:05.25Z"),
            ("2026-01-02T15:04:05+02:00", "2026-01-02T13:04:05Z"),
            ("2026-01-02T15:04Z", "2026-01-02T15:04:00Z"),
            ("2026-01-02T15-01:30", "2026-01-02T16:30:00Z"),
            ("1767323045", "2026-01-02T03:04:05Z"),
            ("1767323045.000000001", "2026-01-02T03:04:05.000000001Z"),
            ("1767323045.5", "2026-01-02T03:04:05.5Z"),
            ("0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse(text, now), Ok(OffsetDateTime::parse(meant, &Rfc3339).unwrap()), "{text}");
        }
        let local = parse("2026-01-02", now).unwrap();
        let midnight = OffsetDateTime::parse("2026-01-02T00:00:00Z", &Rfc3339).unwrap();
        assert_eq!(local.replace_offset(UtcOffset::UTC), midnight);
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_would_be() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "10 m",
            "1767323045.5x",
            "1767323045.0000000001",
            "2026-01-02Tx",
            "9999-12-31T23-12:11",
        ] {
            let refused = parse(text, OffsetDateTime::UNIX_EPOCH).unwrap_err();
            assert!(
                refused.starts_with(&format!("failed to parse value as time or duration: \"{text}\"")),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_time_survives_in_seconds() {
        let time = OffsetDateTime::parse("2026-01-02T03:04:05.000000009Z", &Rfc3339).unwrap();
        assert_eq!(to_unix(time), "1767323045.000000009");
        assert_eq!(parse(&to_unix(time), OffsetDateTime::UNIX_EPOCH), Ok(time));
    }
}
