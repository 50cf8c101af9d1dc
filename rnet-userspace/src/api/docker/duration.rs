//! Times in words, as Docker writes them.

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// How long it has been since `then`, an RFC 3339 time: `About a minute`. Empty when `then` is not a time.
pub fn since(then: &str, now: OffsetDateTime) -> String {
    OffsetDateTime::parse(then, &Rfc3339).map(|then| in_words(now - then)).unwrap_or_default()
}

/// A duration in its largest unit, rounded as Docker rounds it.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.whole_seconds();
    let hours = (duration.as_seconds_f64() / 3600.0 + 0.5) as i64;
    match (seconds, seconds / 60, hours) {
        (..1, _, _) => "Less than a second".to_owned(),
        (1, _, _) => "1 second".to_owned(),
        (..60, _, _) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes @ ..60, _) => format!("{minutes} minutes"),
        (_, _, ..=1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_worded_as_dockers() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60 + 59, "59 minutes"),
            (3600, "About an hour"),
            (90 * 60, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ];
        for (seconds, words) in cases {
            assert_eq!(in_words(Duration::seconds(seconds)), words, "{seconds} s");
        }
    }

    #[test]
    fn an_age_is_counted_from_an_rfc_3339_time() {
        let now = OffsetDateTime::parse("2026-01-01T00:05:00Z", &Rfc3339).unwrap();
        assert_eq!(since("2026-01-01T00:00:00.123456789Z", now), "4 minutes");
        assert_eq!(since("yesterday", now), "");
    }
}
