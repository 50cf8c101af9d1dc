//! How long flows may be idle, by name and in seconds.

use std::collections::BTreeMap;

use rnet_common::settings::{SECOND, Timeouts};

use crate::controller::error::{Error, Result};

/// Idle times by name, in seconds.
pub type Seconds = BTreeMap<String, u64>;

/// A year: longer than anything stays idle.
const MAX: u64 = 365 * 24 * 3600;

type Field = fn(&mut Timeouts) -> &mut u64;

const FIELDS: [(&str, Field); 8] = [
    ("tcp-established", |t| &mut t.tcp_established),
    ("tcp-opening", |t| &mut t.tcp_opening),
    ("tcp-half-closed", |t| &mut t.tcp_half_closed),
    ("tcp-closing", |t| &mut t.tcp_closing),
    ("tcp-reset", |t| &mut t.tcp_reset),
    ("udp", |t| &mut t.udp),
    ("udp-replied", |t| &mut t.udp_replied),
    ("icmp", |t| &mut t.icmp),
];

/// All of them by name.
pub fn by_name(timeouts: &Timeouts) -> Seconds {
    let mut timeouts = *timeouts;
    FIELDS.iter().map(|(name, field)| ((*name).to_owned(), *field(&mut timeouts) / SECOND)).collect()
}

/// `timeouts` with those of `changes` changed.
///
/// # Errors
/// [`Error::Invalid`] for a name that there is not, or a time that is none or over a year.
pub fn changed(mut timeouts: Timeouts, changes: &Seconds) -> Result<Timeouts> {
    for (name, seconds) in changes {
        let Some((_, field)) = FIELDS.iter().find(|(known, _)| known == name) else {
            let known = FIELDS.map(|(name, _)| name).join(", ");
            return Err(Error::Invalid(format!("unknown timeout {name:?}: known are {known}")));
        };
        if !(1..=MAX).contains(seconds) {
            return Err(Error::Invalid(format!(
                "invalid timeout {name} of {seconds}s: 1s to {MAX}s is allowed"
            )));
        }
        *field(&mut timeouts) = seconds * SECOND;
    }
    Ok(timeouts)
}

/// Reads `NAME=TIME`, the time in seconds or as `90s`, `30m`, `2h` or `5d`. Whether there is such a timeout is left
/// to [`changed`].
///
/// # Errors
/// Says what it should be like.
pub fn parse(text: &str) -> std::result::Result<(String, u64), String> {
    let wrong = || "it should be as udp=30s, tcp-established=2h or icmp=30".to_owned();
    let (name, time) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let (number, unit) = match time.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &time[number.len()..]),
        None => (time, "s"),
    };
    let seconds = match unit {
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        _ => 1,
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    Ok((name.to_owned(), number.checked_mul(seconds).ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timeout_has_a_name() {
        let named = by_name(&Timeouts::default());
        assert_eq!((named.len(), named["tcp-established"], named["udp-replied"]), (FIELDS.len(), 7440, 180));
        // As many as there are fields.
        assert_eq!(FIELDS.len() * size_of::<u64>(), size_of::<Timeouts>());
        let other: Seconds = named.iter().map(|(name, seconds)| (name.clone(), seconds + 1)).collect();
        assert_eq!(by_name(&changed(Timeouts::default(), &other).unwrap()), other);
    }

    #[test]
    fn only_what_is_named_is_changed() {
        let changes = Seconds::from([("udp".to_owned(), 5)]);
        let expected = Timeouts { udp: 5 * SECOND, ..Timeouts::default() };
        assert_eq!(changed(Timeouts::default(), &changes).unwrap(), expected);
        let error = |name: &str, seconds| {
            changed(Timeouts::default(), &Seconds::from([(name.to_owned(), seconds)]))
                .unwrap_err()
                .to_string()
        };
        assert!(error("sctp", 5).starts_with("unknown timeout \"sctp\": known are tcp-established, "));
        assert_eq!(error("udp", 0), "invalid timeout udp of 0s: 1s to 31536000s is allowed");
        assert!(error("udp", u64::MAX).contains("is allowed"));
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in
            [("udp=30", 30), ("udp=30s", 30), ("udp=3m", 180), ("udp=2h", 7200), ("udp=1d", 86400)]
        {
            assert_eq!(parse(text), Ok(("udp".to_owned(), seconds)), "{text}");
        }
        for wrong in
            ["udp", "=3", "udp=", "udp=s", "udp=-1", "udp=3w", "udp=9999999999999999999d", "udp=1.5s"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
