//! The capability `portMappings`: what CNI's portmap plugin takes.

use super::{
    error::{Error, Result},
    json::Object,
};
use crate::controller::model::{
    Binding,
    port_spec::{PortChoice, PortMapping},
};

/// The ports that are to be published, each once. Entries without a host port ask for nothing.
///
/// # Errors
/// [`super::error::Code::Decode`] and [`super::error::Code::Config`].
pub(super) fn mappings(runtime: &Object<'_>) -> Result<Vec<PortMapping>> {
    let mut mappings = Vec::new();
    for entry in runtime.list("portMappings")? {
        let entry = Object::of(entry, "portMappings")?;
        let host = entry.number("hostPort")?.unwrap_or_default();
        if host <= 0 {
            continue;
        }
        let bad = |what: &str, value: &dyn std::fmt::Display| {
            Error::config(format!("portMappings: {what} {value} is none"))
        };
        let container = entry.number("containerPort")?.unwrap_or_default();
        let container = u16::try_from(container)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| bad("containerPort", &container))?;
        let protocol = entry.text("protocol")?.unwrap_or("tcp");
        let host_ip = entry.text("hostIP")?;
        let mapping = PortMapping {
            host_ip: host_ip.map(|ip| ip.parse().map_err(|_| bad("hostIP", &ip))).transpose()?,
            host: PortChoice::Exactly(host.try_into().map_err(|_| bad("hostPort", &host))?),
            container,
            protocol: protocol.parse().map_err(|_| bad("protocol", &protocol))?,
        };
        if !mappings.contains(&mapping) {
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

/// Whether a published port is what was asked for.
pub(super) fn is_as_asked(mapping: &PortMapping, binding: &Binding) -> bool {
    // In gateway mode `routed` nothing of the host's is taken for it.
    let host = mapping.host == PortChoice::Exactly(binding.host.port)
        && mapping.host_ip.is_none_or(|ip| ip == binding.host.addr);
    (host || binding.is_routed())
        && mapping.protocol == binding.host.protocol
        && mapping.container == binding.port
}

/// A port as people write it.
pub(super) fn show(mapping: &PortMapping) -> String {
    let PortMapping { host_ip, host, container, protocol } = mapping;
    let host = if let PortChoice::Exactly(port) = host { port.to_string() } else { String::new() };
    match host_ip {
        Some(ip) => {
            format!("{}:{container}/{protocol}", std::net::SocketAddr::new(*ip, host.parse().unwrap_or(0)))
        }
        None => format!("{host}:{container}/{protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(list: Value) -> Result<Vec<String>> {
        let runtime = json!({ "portMappings": list });
        let read = mappings(&Object::of(&runtime, "runtimeConfig")?)?;
        Ok(read.iter().map(show).collect())
    }

    #[test]
    fn both_spellings_are_read_and_what_asks_for_nothing_is_left_out() {
        let ports = json!([
            { "hostPort": 8091, "containerPort": 80, "protocol": "tcp" },
            { "HostPort": 5395, "ContainerPort": 53, "Protocol": "UDP", "HostIP": "127.0.0.1" },
            { "HostPort": 8091, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
            { "hostPort": 7000, "containerPort": 7000, "protocol": "SCTP", "hostIP": "fd00::1" },
            { "hostPort": 0, "containerPort": 80 },
            { "containerPort": 80 },
            { "hostPort": 81, "containerPort": 81 },
        ]);
        let expected = ["8091:80/tcp", "127.0.0.1:5395:53/udp", "[fd00::1]:7000:7000/sctp", "81:81/tcp"]
            .map(String::from);
        assert_eq!(read(ports).unwrap(), expected);
        assert_eq!(read(Value::Null).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in [
            json!([{ "hostPort": 65536, "containerPort": 80 }]),
            json!([{ "hostPort": 80, "containerPort": 0 }]),
            json!([{ "hostPort": 80 }]),
            json!([{ "hostPort": 80, "containerPort": 80, "protocol": "icmp" }]),
            json!([{ "hostPort": 80, "containerPort": 80, "hostIP": "all" }]),
            json!([{ "hostPort": "80", "containerPort": 80 }]),
            json!([80]),
            json!({}),
        ] {
            read(bad).unwrap_err();
        }
    }
}
