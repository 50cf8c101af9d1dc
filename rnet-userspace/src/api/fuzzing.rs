//! Bodies of the native API, and what is in every request's path and query.

use axum::http::Uri;

use super::{native::Unpublish, server::without_version};
use crate::{
    controller::{
        fuzzing::{container, publish},
        model::{flow_filter::FlowFilter, timeouts},
        request::{
            CreateContainer, CreateNetwork, EngineContainer, EngineInterface, EngineNetwork, FreeSubnet,
            Publish,
        },
    },
    fuzzing::{Shape, Target, refused, round_trip, text},
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "native-container", shape: Shape::Json, run: create_container, words: CONTAINER },
    Target { name: "native-engines", shape: Shape::Json, run: engines, words: ENGINES },
    Target { name: "native-others", shape: Shape::Json, run: others, words: OTHERS },
    Target { name: "request-path", shape: Shape::Text, run: path, words: PATHS },
];
const CONTAINER: &[&str] = &[
    "name",
    "networks",
    "network",
    "bridge",
    "none",
    "host",
    "container:web",
    "hostname",
    "publish",
    "8080:80",
    "0-65535:0-65535",
    "from",
    "expose",
    "1-65535/udp",
    "publish_all",
    "dns",
    "dns_search",
    "dns_options",
    "extra_hosts",
    "db:host-gateway",
    "db:[fd00::9]",
    "sysctls",
    "net.ipv4.ip_forward",
    "net.//.kernel.x",
    "kernel.sem",
    "namespace",
    "path",
    "pid",
    "command",
    "detach",
    "rootfs",
    "\\n",
    "ip",
    "ip6",
    "mac",
    "aliases",
    "gw_priority",
];
const ENGINES: &[&str] = &[
    "engine",
    "docker",
    "cni",
    "netavark",
    "plugin",
    "id",
    "name",
    "netns",
    "interfaces",
    "network",
    "interface",
    "veth",
    "mac",
    "addrs",
    "ips",
    "gateways",
    "aliases",
    "gw_priority",
    "ports",
    "host_ip",
    "host",
    "exactly",
    "oneof",
    "ephemeral",
    "container",
    "protocol",
    "tcp",
    "keeps_ports",
    "bridge",
    "subnets",
    "subnet",
    "avoid",
    "ipv6",
    "first",
    "last",
];
const OTHERS: &[&str] = &[
    "ports",
    "from",
    "8000-8010:80",
    "10.0.0.0/8",
    "protocol",
    "src",
    "dst",
    "addr",
    "sport",
    "dport",
    "udp",
    "tcp-established",
    "subnets",
    "options",
    "labels",
    "internal",
    "ipv4",
    "ipv6",
];
const PATHS: &[&str] =
    &["/v1.48/", "/v1.24", "/v99.1/", "/networks", "?filters=", "%7B", "//", "*", "http://x/", "/v1.40/?"];

fn create_container(input: &[u8]) {
    if let Some(asked) = round_trip::<CreateContainer>(input) {
        container(&asked, input);
    }
}

fn engines(input: &[u8]) {
    round_trip::<EngineContainer>(input);
    round_trip::<EngineInterface>(input);
    round_trip::<EngineNetwork>(input);
    round_trip::<FreeSubnet>(input);
}

fn others(input: &[u8]) {
    round_trip::<CreateNetwork>(input);
    round_trip::<FlowFilter>(input);
    if let Some(asked) = round_trip::<Publish>(input) {
        publish(&asked.ports, &asked.from, input);
    }
    if let Ok(Unpublish { ports }) = serde_json::from_slice(input) {
        publish(&ports, &[], input);
    }
    if let Some(seconds) = round_trip::<timeouts::Seconds>(input) {
        match timeouts::changed(rnet_common::settings::Timeouts::default(), &seconds) {
            Ok(changed) => {
                let by_name = timeouts::by_name(&changed);
                assert!(seconds.iter().all(|(name, time)| by_name.get(name) == Some(time)));
            }
            Err(e) => refused(e, input),
        }
    }
}

fn path(input: &[u8]) {
    let Some(uri) = text(input).and_then(|text| text.parse::<Uri>().ok()) else { return };
    match without_version(&uri) {
        Ok(Some(stripped)) => {
            assert!(stripped.path().starts_with('/') && uri.path().ends_with(stripped.path()));
            assert_eq!(stripped.query(), uri.query());
        }
        Ok(None) => {}
        Err(e) => refused(e.message, input),
    }
    if let Err(e) = axum::extract::Query::<FlowFilter>::try_from_uri(&uri) {
        refused(e.body_text(), input);
    }
}
