//! Calls of container engines: the environment, and the configuration on standard input.

use serde_json::{Value, json};

use super::{
    call::{Call, Command},
    config::{self, Config},
    container_id, network_id,
    result::Outcome,
    version::Version,
};
use crate::fuzzing::{Shape, Target, refused};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "cni-call", shape: Shape::Json, run: call, words: WORDS },
    Target { name: "cni-result", shape: Shape::Json, run: result, words: WORDS },
];
const WORDS: &[&str] = &[
    "env",
    "stdin",
    "CNI_COMMAND",
    "ADD",
    "DEL",
    "CHECK",
    "GC",
    "STATUS",
    "VERSION",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "IgnoreUnknown=1;",
    "K8S_POD_NAME=p;",
    "IP=10.1.0.7/24;",
    "MAC=02:00:00:00:00:07;",
    "cniVersion",
    "1.0.0",
    "1.1.0",
    "0.3.1",
    "name",
    "type",
    "rnet",
    "mode",
    "portmap",
    "ipam",
    "host-local",
    "subnet",
    "gateway",
    "ranges",
    "ipRange",
    "10.1.0.0/24",
    "fd00::/64",
    "runtimeConfig",
    "portMappings",
    "hostPort",
    "containerPort",
    "protocol",
    "hostIP",
    "bandwidth",
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "egressBurst",
    "aliases",
    "ips",
    "mac",
    "args",
    "cni",
    "prevResult",
    "interfaces",
    "sandbox",
    "routes",
    "dst",
    "gw",
    "mtu",
    "dns",
    "options",
    "cni.dev/valid-attachments",
    "containerID",
    "ifname",
    "isDefaultGateway",
    "hairpinMode",
    "promiscMode",
    "vlan",
];

/// An object with the environment and the configuration.
fn call(input: &[u8]) {
    let Ok(said) = serde_json::from_slice::<Value>(input) else { return };
    let variable =
        |name: &str| said["env"][name].as_str().filter(|value| !value.contains('\0')).map(str::to_owned);
    let call = match Call::read(variable) {
        Ok(call) => call,
        Err(e) => return refusal(&e, input),
    };
    if !matches!(call.command, Command::Gc | Command::Status | Command::Version) {
        assert!(!call.container.contains('/') && (1..16).contains(&call.interface.len()));
        assert!(call.netns.as_ref().is_none_or(|path| path.is_absolute()));
        assert!(call.netns.is_some() || call.command == Command::Del);
        assert_eq!(container_id(&call.container).len(), 64);
    }
    let stdin = &said["stdin"];
    let version =
        match config::version(stdin).and_then(|version| version.check(call.command).map(|()| version)) {
            Ok(version) => version,
            Err(e) => return refusal(&e, input),
        };
    let config = match Config::read(stdin, &call) {
        Ok(config) => config,
        Err(e) => return refusal(&e, input),
    };
    assert_eq!(network_id(&config.name, config.mode).len(), 64);
    assert!(config.ips.len() <= 2, "one of each family");
    assert!(
        config
            .ports
            .iter()
            .enumerate()
            .all(|(n, port)| port.container != 0 && !config.ports[..n].contains(port))
    );
    for limit in [config.bandwidth.incoming, config.bandwidth.outgoing].into_iter().flatten() {
        assert!(limit.rate > 0 && limit.burst > 0);
    }
    config.ports_are_kept(&call);
    if let Some(prev) = config.prev {
        written(&prev, version);
    }
}

fn result(input: &[u8]) {
    let Ok(said) = serde_json::from_slice::<Value>(input) else { return };
    match Outcome::read(&said, "result") {
        Ok(outcome) => Version::ALL.into_iter().for_each(|version| written(&outcome, version)),
        Err(e) => refusal(&e, input),
    }
}

/// What is said of a result is read as the same, but for what that version has no words for.
fn written(outcome: &Outcome, version: Version) {
    let json = outcome.to_json(version);
    let mut again =
        Outcome::read(&json, "what was written").unwrap_or_else(|e| panic!("{json}: {}", e.message));
    let mut expected = outcome.clone();
    expected.routes.iter_mut().for_each(|route| route.has_more = false);
    if version < Version::V1_1_0 {
        expected.interfaces.iter_mut().for_each(|interface| interface.mtu = None);
    }
    if expected.dns.is_null() {
        expected.dns = json!({});
    }
    again.routes.iter_mut().for_each(|route| route.has_more = false);
    assert_eq!(again, expected, "{json}");
    assert!(outcome.inside("eth0").is_none_or(|(at, interface)| outcome.interfaces[at] == *interface));
}

fn refusal(error: &super::error::Error, input: &[u8]) {
    let json = error.to_json(Version::LATEST);
    assert!(json["code"].as_u64().is_some_and(|code| code > 0), "{json}");
    refused(json["msg"].as_str().unwrap_or_default(), input);
}
