//! A container's interfaces and ports, as Docker shows and takes them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::null_is_default;
use crate::{
    api::error::{ApiError, ApiResult},
    controller::{
        model::{Binding, HostPort, MacAddr, name::short_id},
        request, view,
    },
};

/// A container's interface. Empty strings stand for what it does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    /// The addresses that were asked for.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<FixedAddresses>,
    /// Always absent: names take their place.
    pub links: Option<Vec<String>>,
    /// The names that were asked for.
    pub aliases: Option<Vec<String>>,
    /// Ethernet address.
    pub mac_address: String,
    /// Always absent.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// The network with the highest number has the default route.
    pub gw_priority: i64,
    /// The network's id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Prefix length of the IPv4 subnet.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Prefix length of the IPv6 subnet.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// The names under which the network's containers find it; absent where there are none.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// Addresses that were asked for. Empty strings stand for those that were not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FixedAddresses {
    /// IPv4 address.
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// IPv6 address.
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Addresses of the link alone.
    #[serde(
        rename = "LinkLocalIPs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub link_local_ips: Vec<String>,
}

/// A request to put a container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Connect {
    /// The container's name or id.
    pub container: String,
    /// How it is to be there.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoint_config: Endpoint,
}

/// A request to take a container off a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Disconnect {
    /// The container's name or id.
    pub container: String,
    /// As good as done when it is not on the network.
    pub force: bool,
}

/// The host's side of a published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    /// The host's address.
    pub host_ip: String,
    /// The host's port; empty where the container's own is reached.
    pub host_port: String,
}

impl From<&Binding> for PortBinding {
    fn from(binding: &Binding) -> Self {
        let HostPort { addr, port, .. } = binding.host;
        if !binding.is_routed() {
            return Self { host_ip: addr.to_string(), host_port: port.to_string() };
        }
        let any: IpAddr =
            if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self { host_ip: any.to_string(), host_port: String::new() }
    }
}

impl From<&view::Endpoint> for Endpoint {
    fn from(endpoint: &view::Endpoint) -> Self {
        let addr = |v6: bool| endpoint.addrs.iter().find(|a| a.is_ipv6() == v6);
        let ip = |v6: bool| addr(v6).map(|a| a.ip().to_string()).unwrap_or_default();
        let prefix = |v6: bool| addr(v6).map(|a| a.prefix()).unwrap_or_default();
        let first = |addrs: &[IpAddr], v6: bool| {
            addrs.iter().find(|a| a.is_ipv6() == v6).map(|a| a.to_string()).unwrap_or_default()
        };
        let some = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
        Self {
            ipam_config: (!endpoint.fixed.is_empty()).then(|| FixedAddresses {
                ipv4_address: first(&endpoint.fixed, false),
                ipv6_address: first(&endpoint.fixed, true),
                link_local_ips: Vec::new(),
            }),
            links: None,
            aliases: some(&endpoint.aliases),
            mac_address: endpoint.mac.to_string(),
            driver_opts: None,
            gw_priority: endpoint.gw_priority,
            network_id: endpoint.network_id.clone(),
            endpoint_id: endpoint.id.clone(),
            gateway: first(&endpoint.gateways, false),
            ip_address: ip(false),
            ip_prefix_len: prefix(false),
            ipv6_gateway: first(&endpoint.gateways, true),
            global_ipv6_address: ip(true),
            global_ipv6_prefix_len: prefix(true),
            dns_names: some(&endpoint.names),
        }
    }
}

impl Connect {
    /// The container, and the rest in the controller's terms.
    pub(super) fn into_request(self, network: String) -> ApiResult<(String, request::Connect)> {
        let container = named(self.container)?;
        let asked = self.endpoint_config;
        let fixed = asked.ipam_config.unwrap_or_default();
        let refuse = |what: &str| {
            let id = short_id(&container);
            Err(ApiError::bad_request(format!("connect container {id} to network {network}: {what}")))
        };
        if asked.links.is_some_and(|links| !links.is_empty()) {
            return refuse(
                "links are not supported: containers of a network find one another by name and alias",
            );
        }
        if asked.driver_opts.is_some_and(|options| !options.is_empty()) {
            return refuse("the bridge driver has no options for an endpoint");
        }
        if !fixed.link_local_ips.is_empty() {
            return refuse(
                "link-local addresses are not supported: the kernel gives every interface one of its own",
            );
        }
        let request = request::Connect {
            ip: address("IPv4", &fixed.ipv4_address)?,
            ip6: address("IPv6", &fixed.ipv6_address)?,
            mac: match asked.mac_address.as_str() {
                "" => None,
                mac => Some(
                    mac.parse::<MacAddr>()
                        .map_err(|e| ApiError::bad_request(format!("invalid MAC address {mac}: {e}")))?,
                ),
            },
            aliases: asked.aliases.unwrap_or_default(),
            gw_priority: asked.gw_priority,
            network,
        };
        Ok((container, request))
    }
}

impl Disconnect {
    /// The container, and whether it is as good as done when it is not there.
    pub(super) fn into_request(self) -> ApiResult<(String, bool)> {
        Ok((named(self.container)?, self.force))
    }
}

fn named(container: String) -> ApiResult<String> {
    if container.is_empty() {
        return Err(ApiError::bad_request("invalid container name or ID: value is empty"));
    }
    Ok(container)
}

fn address<T: FromStr>(family: &str, text: &str) -> ApiResult<Option<T>> {
    match text {
        "" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("invalid {family} address: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Result<(String, request::Connect), String> {
        let connect: Connect = serde_json::from_str(json).map_err(|e| e.to_string())?;
        connect.into_request("n1".into()).map_err(|e| e.message)
    }

    #[test]
    fn what_dockers_client_sends_is_understood() {
        let sent = r#"{"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.1.0.9","IPv6Address":"fd00::9"},
            "Links":null,"Aliases":["db","store"],"MacAddress":"02:42:0A:01:00:09","DriverOpts":{},"GwPriority":-7,
            "NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"",
            "GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}"#;
        let expected = request::Connect {
            network: "n1".into(),
            ip: "10.1.0.9".parse().ok(),
            ip6: "fd00::9".parse().ok(),
            mac: "02:42:0a:01:00:09".parse().ok(),
            aliases: vec!["db".into(), "store".into()],
            gw_priority: -7,
        };
        assert_eq!(request(sent), Ok(("web".into(), expected)));
        let plain = Ok(("web".into(), request::Connect::to("n1")));
        assert_eq!(request(r#"{"Container":"web"}"#), plain);
        assert_eq!(request(r#"{"Container":"web","EndpointConfig":null}"#), plain);
        assert_eq!(
            request(r#"{"Container":"web","EndpointConfig":{"IPAMConfig":null,"Aliases":null}}"#),
            plain
        );
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_the_reason() {
        let with = |config: &str| request(&format!(r#"{{"Container":"web","EndpointConfig":{{{config}}}}}"#));
        for (config, reason) in [
            (r#""Links":["db:db"]"#, "connect container web to network n1: links are not supported"),
            (r#""DriverOpts":{"a":"b"}"#, "no options for an endpoint"),
            (r#""IPAMConfig":{"LinkLocalIPs":["169.254.1.1"]}"#, "link-local addresses"),
            (r#""IPAMConfig":{"IPv4Address":"10.0.0.300"}"#, "invalid IPv4 address: 10.0.0.300"),
            (r#""IPAMConfig":{"IPv6Address":"10.0.0.3"}"#, "invalid IPv6 address: 10.0.0.3"),
            (r#""MacAddress":"1""#, "invalid MAC address 1"),
        ] {
            let refused = with(config).unwrap_err();
            assert!(refused.contains(reason), "{config}: {refused}");
        }
        assert_eq!(request("{}").unwrap_err(), "invalid container name or ID: value is empty");
    }
}
