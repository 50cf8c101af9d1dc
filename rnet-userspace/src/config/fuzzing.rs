//! The daemon's configuration file.

use super::{DaemonConfig, Flags, file::File, json::Source, resolve};
use crate::fuzzing::{Shape, Target, refused, text};

pub(crate) const TARGETS: &[Target] =
    &[Target { name: "daemon-json", shape: Shape::Json, run: daemon_json, words: WORDS }];
const WORDS: &[&str] = &[
    "bip",
    "default-address-pools",
    "base",
    "size",
    "default-gateway",
    "default-gateway-v6",
    "dns",
    "dns-opts",
    "dns-search",
    "fixed-cidr",
    "fixed-cidr-v6",
    "hosts",
    "icc",
    "ip",
    "ip-masq",
    "ipv6",
    "log-level",
    "mtu",
    "rnet",
    "rnet.timeouts",
    "uplinks",
    "snat-port-range",
    "max-flows",
    "max-flows-per-container",
    "source-rate",
    "max-ports",
    "docker",
    "xdp",
    "tlsverify",
    "tcp://127.0.0.1:2376",
    "unix:///run/x.sock",
    "10.1.0.1/16",
    "fd00:1::/64",
    "1024-32767",
    "tcp-established",
    "2h",
    "\\\"",
    "\\\\",
    "\\u00e9",
    "é",
];

fn daemon_json(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Some((said, config)) = read(text) else { return };
    // The same, with nothing but what counts.
    let plain = serde_json::to_string(&said).unwrap_or_default();
    let (again, same) = read(&plain).unwrap_or_else(|| panic!("{plain} is refused, which {text} says"));
    assert_eq!(again, said);
    assert_eq!(format!("{same:?}"), format!("{config:?}"));
}

type Said = std::collections::BTreeMap<&'static str, serde_json::Value>;

fn read(text: &str) -> Option<(Said, DaemonConfig)> {
    let check = |error: &super::Error| {
        refused(error, text.as_bytes());
        let lines = text.split('\n').count();
        assert!((1..=lines).contains(&error.line), "line {} of {lines}", error.line);
        let line = text.split('\n').nth(error.line - 1).unwrap_or_default();
        assert!(
            (1..=line.chars().count() + 1).contains(&error.column),
            "column {} of {line:?}",
            error.column
        );
    };
    let file = File::parse(Source { file: "daemon.json", text }).inspect_err(check).ok()?;
    let said = file.said();
    // Certificates are files of the host's.
    if said.keys().any(|key| key.starts_with("tls")) {
        return None;
    }
    let mut config = DaemonConfig::from_flags("rnet", &Flags::default()).ok()?;
    resolve::add(&file, &mut config).inspect_err(check).ok()?;
    assert!(config.instance.pools.len() <= 64 + text.len(), "pools out of nothing");
    Some((said, config))
}
