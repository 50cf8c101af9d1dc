//! What others need not see: secrets, and on request addresses.

use std::{collections::HashMap, net::IpAddr};

use serde_json::{Map, Value};

/// Parts of the names of keys whose values are kept back, wherever they are.
const SECRETS: [&str; 5] = ["password", "passwd", "secret", "token", "credential"];
/// What stands in their place.
const KEPT_BACK: &str = "(kept back)";

/// A configuration without secrets. rnet's own keys have none, but the file may be shared with Docker.
pub(super) fn secrets(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = |(key, value): (String, Value)| {
                let is_secret = SECRETS.iter().any(|word| key.to_ascii_lowercase().contains(word));
                let value = if is_secret { KEPT_BACK.into() } else { secrets(value) };
                (key, value)
            };
            Value::Object(fields.into_iter().map(kept).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(secrets).collect()),
        // A private key or certificate may stand where its path should.
        Value::String(text) if text.contains("-----BEGIN") => KEPT_BACK.into(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

/// Puts numbers in the place of addresses, the same for the same one.
#[derive(Debug, Default)]
pub(super) struct Redact(HashMap<IpAddr, usize>);

impl Redact {
    /// The text without addresses of IPv4 and IPv6, and of Ethernet. Loopback and unspecified ones tell nothing and stay.
    pub(super) fn addresses(&mut self, text: &str) -> String {
        let mut plain = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if !is_part(first) {
                plain.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            plain.push_str(&self.word(word));
            rest = after;
        }
        plain
    }

    /// A run of what addresses are written with: one, one with a port behind it, or anything else.
    fn word(&mut self, word: &str) -> String {
        if let Ok(addr) = word.parse::<IpAddr>() {
            return self.addr(addr).unwrap_or_else(|| word.to_owned());
        }
        if let Some((addr, port)) = word.rsplit_once(':')
            && let Ok(addr) = addr.parse::<std::net::Ipv4Addr>()
        {
            return self.addr(addr.into()).map_or_else(|| word.to_owned(), |addr| format!("{addr}:{port}"));
        }
        let is_mac =
            word.len() == 17 && word.split(':').count() == 6 && word.split(':').all(|p| p.len() == 2);
        if is_mac { "(mac)".to_owned() } else { word.to_owned() }
    }

    fn addr(&mut self, addr: IpAddr) -> Option<String> {
        if addr.is_loopback() || addr.is_unspecified() {
            return None;
        }
        let next = self.0.len() + 1;
        let number = self.0.entry(addr).or_insert(next);
        Some(format!("(ip{} {number})", if addr.is_ipv4() { 4 } else { 6 }))
    }
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.' || c == ':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_numbers_that_stay_the_same() {
        let mut redact = Redact::default();
        let text =
            "10.0.0.1:80 -> [fd00::1]:53, 10.0.0.1/24 127.0.0.1 0.0.0.0:8080 02:42:ac:11:00:02 v1.2.3 web";
        let plain = redact.addresses(text);
        let expected = "(ip4 1):80 -> [(ip6 2)]:53, (ip4 1)/24 127.0.0.1 0.0.0.0:8080 (mac) v1.2.3 web";
        assert_eq!(plain, expected);
        assert_eq!(redact.addresses("fd00::1 10.0.0.2"), "(ip6 2) (ip4 3)");
    }

    #[test]
    fn secrets_are_kept_back_and_paths_are_not() {
        let config = serde_json::json!({
            "tlskey": "/etc/key.pem", "hosts": ["unix:///x"],
            "registry": {"Password": "hunter2", "api-token": ["x"]}, "odd": ["-----BEGIN PRIVATE KEY-----"]
        });
        let text = secrets(config).to_string();
        assert!(text.contains("/etc/key.pem") && text.contains("unix:///x"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("[\"x\"]") && !text.contains("BEGIN"), "{text}");
    }
}
