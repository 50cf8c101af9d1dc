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

/// A duration as Go writes it: `90s`, `1h30m`, `1.5h`, `-10ms`. Nothing when it is none.
pub fn parse(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) =
            after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::checked_seconds_f64(if negative { -sum } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, milliseconds) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("-10ms", -10),
            ("+1m.5s", 60_500),
            ("2000us", 2),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::milliseconds(milliseconds)), "{text}");
        }
        for text in ["", "-", "10", "m", "1d", "1.2.3s", "10 s", "1e400h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

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
