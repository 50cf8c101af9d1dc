//! Docker's networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_is_default;
use crate::controller::view;

/// A network, as `docker network inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was created, as RFC 3339.
    pub created: String,
    /// Always `local`.
    pub scope: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Has IPv4 addresses.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Has IPv6 addresses.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its subnets.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// No way out.
    pub internal: bool,
    /// Docker's flag.
    pub attachable: bool,
    /// Always false: there is no swarm.
    pub ingress: bool,
    /// Always empty.
    pub config_from: ConfigFrom,
    /// Always false.
    pub config_only: bool,
    /// Containers on it, by id.
    pub containers: Option<BTreeMap<String, Member>>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Address management of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// Always `default`.
    pub driver: String,
    /// Always empty.
    #[serde(deserialize_with = "null_is_default")]
    pub options: BTreeMap<String, String>,
    /// Subnets.
    #[serde(deserialize_with = "null_is_default")]
    pub config: Vec<IpamConfig>,
}

/// A subnet. Empty strings stand for what is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// The subnet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// Addresses are given from this part of it.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// The bridge's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses never given to containers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// The network that a network's configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigFrom {
    /// Its name.
    pub network: String,
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The endpoint's id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Ethernet address.
    pub mac_address: String,
    /// Address with prefix length, or empty.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Address with prefix length, or empty.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

impl From<&view::Network> for Network {
    fn from(network: &view::Network) -> Self {
        Self {
            name: network.name.clone(),
            id: network.id.clone(),
            created: network.created.clone(),
            scope: "local".to_owned(),
            driver: network.driver.clone(),
            enable_ipv4: network.ipv4,
            enable_ipv6: network.ipv6,
            ipam: Ipam {
                driver: "default".to_owned(),
                options: BTreeMap::new(),
                config: network.subnets.iter().map(IpamConfig::from).collect(),
            },
            internal: network.internal,
            attachable: network.attachable,
            ingress: false,
            config_from: ConfigFrom::default(),
            config_only: false,
            containers: Some(
                network.containers.iter().map(|(id, member)| (id.clone(), member.into())).collect(),
            ),
            options: network.options.clone(),
            labels: network.labels.clone(),
        }
    }
}

impl From<&view::SubnetView> for IpamConfig {
    fn from(subnet: &view::SubnetView) -> Self {
        Self {
            subnet: subnet.subnet.to_string(),
            ip_range: subnet.ip_range.map(|range| range.to_string()).unwrap_or_default(),
            gateway: subnet.gateway.map(|addr| addr.to_string()).unwrap_or_default(),
            auxiliary_addresses: subnet
                .aux
                .iter()
                .map(|(name, addr)| (name.clone(), addr.to_string()))
                .collect(),
        }
    }
}

impl From<&view::NetworkMember> for Member {
    fn from(member: &view::NetworkMember) -> Self {
        let addr = |v6: bool| {
            member.addrs.iter().find(|a| a.is_ipv6() == v6).map(|a| a.to_string()).unwrap_or_default()
        };
        Self {
            name: member.name.clone(),
            endpoint_id: member.endpoint.clone(),
            mac_address: member.mac.to_string(),
            ipv4_address: addr(false),
            ipv6_address: addr(true),
        }
    }
}
