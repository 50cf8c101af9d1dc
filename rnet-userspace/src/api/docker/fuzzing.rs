//! Bodies and queries of Docker's API.

use time::OffsetDateTime;

use super::{
    containers,
    create::Create,
    duration,
    endpoint::{Connect, Disconnect},
    events::Wanted,
    filters::Filters,
    networks, timestamp,
};
use crate::{
    controller::{model::options::NetworkOptions, request},
    fuzzing::{Shape, Target, first_line, refused, round_trip, text},
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "docker-create-network", shape: Shape::Json, run: create_network, words: NETWORK },
    Target { name: "docker-connect", shape: Shape::Json, run: connect, words: CONNECT },
    Target { name: "docker-filters", shape: Shape::Json, run: filters, words: FILTERS },
    Target { name: "docker-events-query", shape: Shape::Json, run: events, words: FILTERS },
    Target { name: "times", shape: Shape::Text, run: times, words: TIMES },
];
const NETWORK: &[&str] = &[
    "Name",
    "Driver",
    "bridge",
    "EnableIPv4",
    "EnableIPv6",
    "IPAM",
    "Config",
    "Subnet",
    "IPRange",
    "Gateway",
    "AuxiliaryAddresses",
    "Options",
    "Labels",
    "Internal",
    "ConfigFrom",
    "10.1.0.0/24",
    "fd00::/64",
    "10.1.0.1",
    "com.docker.network.driver.mtu",
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "routed",
    "rnet.via_stack",
    "true",
    "1500",
    "rnet.non_masquerade",
    "rnet.max_flows",
];
const CONNECT: &[&str] = &[
    "Container",
    "EndpointConfig",
    "IPAMConfig",
    "IPv4Address",
    "IPv6Address",
    "LinkLocalIPs",
    "Aliases",
    "MacAddress",
    "GwPriority",
    "Links",
    "DriverOpts",
    "Force",
    "10.1.0.9",
    "fd00::9",
    "02:00:00:00:00:09",
];
const FILTERS: &[&str] = &[
    "name",
    "label",
    "label!",
    "id",
    "dangling",
    "driver",
    "type",
    "custom",
    "builtin",
    "until",
    "status",
    "running",
    "exited",
    "publish",
    "80/tcp",
    "1-65535/udp",
    "expose",
    "health",
    "none",
    "is-task",
    "before",
    "since",
    "network",
    "event",
    "scope",
    "^web$",
    "(",
    "[a-z]{1,9}",
    "(a{99}){99}",
    "true",
    "false",
    "10m",
    "1767323045.000000001",
];
const TIMES: &[&str] = &[
    "1h30m",
    "-10ms",
    "+",
    "0",
    "1.5h",
    "ns",
    "us",
    "µs",
    "2026-01-02",
    "T15:04:05",
    ".25",
    "Z",
    "+02:00",
    "1e400",
    "9999-12-31",
];

fn create_network(input: &[u8]) {
    let create = match serde_json::from_slice::<Create>(input) {
        Ok(create) => create,
        Err(e) => return refused(e, input),
    };
    match create.into_request() {
        Ok(asked) => {
            // What the daemon's own clients say means the same.
            let written = serde_json::to_vec(&asked).unwrap_or_default();
            assert_eq!(round_trip::<request::CreateNetwork>(&written), Some(asked.clone()));
            if let Err(e) = NetworkOptions::parse(&asked.options) {
                refused(e, input);
            }
        }
        Err(e) => refused(e.message, input),
    }
}

fn connect(input: &[u8]) {
    if let Some(connect) = round_trip::<Connect>(input) {
        match connect.clone().into_request("n1".to_owned()) {
            Ok((container, asked)) => {
                assert!(!container.is_empty() && asked.network == "n1");
                let fixed = connect.endpoint_config.ipam_config.unwrap_or_default();
                assert_eq!(asked.ip.is_some(), !fixed.ipv4_address.is_empty());
                assert_eq!(asked.ip6.is_some(), !fixed.ipv6_address.is_empty());
                assert!(fixed.link_local_ips.is_empty());
                let written = serde_json::to_vec(&asked).unwrap_or_default();
                assert_eq!(round_trip::<request::Connect>(&written), Some(asked));
            }
            Err(e) => refused(e.message, input),
        }
    }
    if let Some(disconnect) = round_trip::<Disconnect>(input)
        && let Err(e) = disconnect.into_request()
    {
        refused(e.message, input);
    }
}

fn filters(input: &[u8]) {
    const KNOWN: [&str; 5] = ["name", "label", "id", "dangling", "type"];
    let Some(text) = text(input) else { return };
    match Filters::parse(text, &KNOWN) {
        Ok(filters) => {
            let lists: std::collections::BTreeMap<_, Vec<_>> =
                KNOWN.iter().map(|field| (*field, filters.values(field).collect())).collect();
            let written = serde_json::to_string(&lists).unwrap_or_default();
            let again =
                Filters::parse(&written, &KNOWN).unwrap_or_else(|e| panic!("{written}: {}", e.message));
            for field in KNOWN {
                assert!(filters.values(field).eq(again.values(field)), "{field} of {text}");
                assert_eq!(filters.contains(field), again.contains(field));
                // As a whole each fits.
                let patterns = filters.patterns(field);
                assert!(filters.values(field).all(|value| patterns.fit(value)));
                patterns.fit("an-ordinary-name");
            }
            let labels = filters.values("label").filter_map(|label| label.split_once('='));
            let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            filters.has_labels("label", &labels);
            if let Err(e) = filters.flag("dangling") {
                refused(e.message, input);
            }
        }
        Err(e) => refused(e.message, input),
    }
    if let Err(e) = containers::Listed::parse(text, false, 0) {
        refused(e.message, input);
    }
    if let Err(e) = networks::Listed::parse(text) {
        refused(e.message, input);
    }
    if let Err(e) = networks::Pruned::parse(text, OffsetDateTime::UNIX_EPOCH) {
        refused(e.message, input);
    }
}

/// Two lines, `since` and `until`, and the filters.
fn events(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (since, rest) = first_line(text);
    let (until, filters) = first_line(rest);
    let wanted = Wanted::new(since, until, filters);
    if let Err(e) = wanted.parse(OffsetDateTime::UNIX_EPOCH) {
        refused(e.message, input);
    }
}

fn times(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
    match timestamp::parse(text, now) {
        Ok(time) => {
            let seconds = timestamp::to_unix(time);
            assert_eq!(timestamp::parse(&seconds, now), Ok(time), "{text:?} is {seconds}");
        }
        Err(e) => refused(e, input),
    }
    if let Some(duration) = duration::parse(text) {
        assert!(!duration::in_words(duration).is_empty());
    }
    duration::since(text, now);
}
