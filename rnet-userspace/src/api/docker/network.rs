//! Docker's networks.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    api::error::{ApiError, ApiResult},
    controller::{request, view},
};

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

/// The answer to a request for a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// The network's id.
    pub id: String,
    /// Always empty.
    pub warning: String,
}

/// A request for a network. Fields of Docker's that are not here change nothing there either.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Create {
    name: String,
    driver: String,
    scope: String,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM", deserialize_with = "null_is_default")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    #[serde(deserialize_with = "null_is_default")]
    config_from: ConfigFrom,
    #[serde(deserialize_with = "null_is_default")]
    options: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

impl From<&view::Network> for Network {
    fn from(network: &view::Network) -> Self {
        Self {
            name: network.name.clone(),
            id: network.id.clone(),
            created: network.created.clone(),
            scope: "local".to_owned(),
            driver: network.driver.clone(),
            enable_ipv4: network.subnets.is_empty() || network.subnets.iter().any(|s| s.subnet.is_ipv4()),
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
            auxiliary_addresses: BTreeMap::new(),
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

impl Create {
    /// The same in the controller's terms.
    pub(super) fn into_request(self) -> ApiResult<request::CreateNetwork> {
        let Self { name, driver, scope, enable_ipv4, enable_ipv6, ipam, .. } = &self;
        let refuse = |what: String| Err(ApiError::bad_request(format!("create network {name}: {what}")));
        if !matches!(driver.as_str(), "" | "bridge" | "default") {
            // Docker looks for a plugin of this name.
            return Err(ApiError::new(
                axum::http::StatusCode::NOT_FOUND,
                format!("create network {name}: there is no driver {driver}; there is bridge"),
            ));
        }
        if !matches!(scope.as_str(), "" | "local") {
            return refuse(format!("scope {scope} is not supported; there is local"));
        }
        if *enable_ipv4 == Some(false) {
            return refuse("a network without IPv4 is not supported".to_owned());
        }
        if self.ingress || self.config_only || !self.config_from.network.is_empty() {
            return refuse("ingress, config-only and config-from networks are not supported".to_owned());
        }
        if !matches!(ipam.driver.as_str(), "" | "default") || !ipam.options.is_empty() {
            return refuse("address management by a driver with options is not supported".to_owned());
        }
        let subnets = ipam.config.iter().map(IpamConfig::to_request).collect::<ApiResult<_>>()?;
        Ok(request::CreateNetwork {
            subnets,
            ipv4: *enable_ipv4,
            ipv6: enable_ipv6.unwrap_or_default(),
            name: self.name,
            internal: self.internal,
            attachable: self.attachable,
            options: self.options,
            labels: self.labels,
        })
    }
}

impl IpamConfig {
    fn to_request(&self) -> ApiResult<request::Subnet> {
        if !self.auxiliary_addresses.is_empty() {
            return Err(ApiError::bad_request("auxiliary addresses are not supported"));
        }
        let cidr = |what: &str, text: &str| -> ApiResult<Option<IpNetwork>> {
            let wrong = |why: &str| ApiError::bad_request(format!("invalid {what} {text}: {why}"));
            match text {
                "" => Ok(None),
                _ if !text.contains('/') => Err(wrong("it should have a prefix length, as 10.0.0.0/24")),
                _ => text.parse().map(Some).map_err(|_| wrong("it should be as 10.0.0.0/24")),
            }
        };
        let gateway = match self.gateway.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| {
                ApiError::bad_request(format!("invalid gateway {text}: it should be an address, as 10.0.0.1"))
            })?),
        };
        Ok(request::Subnet {
            subnet: cidr("subnet", &self.subnet)?,
            ip_range: cidr("ip-range", &self.ip_range)?,
            gateway,
            aux: BTreeMap::new(),
        })
    }
}

/// Go's encoder writes `null` for maps, lists and pointers that are not set.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Result<request::CreateNetwork, String> {
        let create: Create = serde_json::from_str(json).map_err(|e| e.to_string())?;
        create.into_request().map_err(|e| e.message)
    }

    #[test]
    fn what_dockers_client_sends_is_understood() {
        let sent = r#"{"Name":"n1","Driver":"bridge","Scope":"","EnableIPv4":null,"IPAM":{"Driver":"default","Options":{},
            "Config":[{"Subnet":"10.1.0.0/24","IPRange":"10.1.0.128/25","Gateway":"10.1.0.9"}]},"Internal":true,
            "Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,"Options":{"a":"b"},"Labels":null}"#;
        let expected = request::CreateNetwork {
            name: "n1".into(),
            subnets: vec![request::Subnet {
                subnet: Some("10.1.0.0/24".parse().unwrap()),
                ip_range: Some("10.1.0.128/25".parse().unwrap()),
                gateway: Some("10.1.0.9".parse().unwrap()),
                aux: BTreeMap::new(),
            }],
            internal: true,
            options: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(request(sent), Ok(expected));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_the_reason() {
        for (json, reason) in [
            (r#"{"Name":"n","Driver":"overlay"}"#, "no driver overlay"),
            (r#"{"Name":"n","Scope":"swarm"}"#, "scope swarm"),
            (r#"{"Name":"n","EnableIPv4":false}"#, "without IPv4"),
            (r#"{"Name":"n","ConfigOnly":true}"#, "config-only"),
            (r#"{"Name":"n","IPAM":{"Driver":"x"}}"#, "address management"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.1"}]}}"#, "prefix length"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/33"}]}}"#, "invalid subnet 10.0.0.0/33"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Gateway":"x"}]}}"#, "invalid gateway x"),
            (r#"{"Name":"n","IPAM":{"Config":[{"AuxiliaryAddresses":{"a":"10.0.0.2"}}]}}"#, "auxiliary"),
        ] {
            let refused = request(json).unwrap_err();
            assert!(refused.contains(reason), "{json}: {refused}");
        }
    }
}
