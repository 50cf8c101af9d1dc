//! Networks as Docker's clients ask for them.

use std::{
    collections::BTreeMap,
    net::{AddrParseError, IpAddr},
};

use axum::http::StatusCode;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{
    network::{ConfigFrom, Ipam, IpamConfig},
    null_is_default,
};
use crate::{
    api::error::{ApiError, ApiResult},
    controller::request,
};

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

impl Create {
    /// The same in the controller's terms.
    pub(super) fn into_request(self) -> ApiResult<request::CreateNetwork> {
        let Self { name, driver, scope, ipam, .. } = &self;
        let refuse = |what: String| Err(ApiError::bad_request(format!("create network {name}: {what}")));
        match driver.as_str() {
            "" | "bridge" | "default" => {}
            "host" | "null" => {
                let words = format!("only one instance of \"{driver}\" network is allowed");
                return Err(ApiError::new(StatusCode::FORBIDDEN, words));
            }
            // Docker looks for a plugin of this name.
            _ => {
                let words = format!("create network {name}: there is no driver {driver}; there is bridge");
                return Err(ApiError::new(StatusCode::NOT_FOUND, words));
            }
        }
        if !matches!(scope.as_str(), "" | "local") {
            return refuse(format!("scope {scope} is not supported; there is local"));
        }
        if self.ingress {
            return refuse("ingress networks belong to a swarm, and there is none".to_owned());
        }
        if self.config_only || !self.config_from.network.is_empty() {
            return refuse("config-only and config-from networks are not supported".to_owned());
        }
        if !matches!(ipam.driver.as_str(), "" | "default") || !ipam.options.is_empty() {
            return refuse("address management by a driver with options is not supported".to_owned());
        }
        let subnets = ipam.config.iter().map(IpamConfig::to_request).collect::<ApiResult<_>>()?;
        Ok(request::CreateNetwork {
            subnets,
            ipv4: self.enable_ipv4,
            ipv6: self.enable_ipv6.unwrap_or_default(),
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
        let cidr = |what: &str, text: &str| -> ApiResult<Option<IpNetwork>> {
            let wrong = |why: &str| ApiError::bad_request(format!("invalid {what} {text}: {why}"));
            match text {
                "" => Ok(None),
                _ if !text.contains('/') => Err(wrong("it should have a prefix length, as 10.0.0.0/24")),
                _ => text.parse().map(Some).map_err(|_| wrong("it should be as 10.0.0.0/24")),
            }
        };
        let address = |what: &str, text: &str| -> ApiResult<IpAddr> {
            text.parse().map_err(|_: AddrParseError| {
                ApiError::bad_request(format!("invalid {what} {text}: it should be an address, as 10.0.0.1"))
            })
        };
        let gateway = match self.gateway.as_str() {
            "" => None,
            text => Some(address("gateway", text)?),
        };
        let aux = self
            .auxiliary_addresses
            .iter()
            .map(|(name, text)| Ok((name.clone(), address(&format!("auxiliary address {name}"), text)?)));
        Ok(request::Subnet {
            subnet: cidr("subnet", &self.subnet)?,
            ip_range: cidr("ip-range", &self.ip_range)?,
            gateway,
            aux: aux.collect::<ApiResult<_>>()?,
        })
    }
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
        let sent = r#"{"Name":"n1","Driver":"bridge","Scope":"","EnableIPv4":null,"EnableIPv6":true,"IPAM":{"Driver":"default","Options":{},
            "Config":[{"Subnet":"10.1.0.0/24","IPRange":"10.1.0.128/25","Gateway":"10.1.0.9",
            "AuxiliaryAddresses":{"printer":"10.1.0.200"}},{"Subnet":"fd00::/64","AuxiliaryAddresses":null}]},"Internal":true,
            "Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,"Options":{"a":"b"},"Labels":null}"#;
        let expected = request::CreateNetwork {
            name: "n1".into(),
            subnets: vec![
                request::Subnet {
                    subnet: "10.1.0.0/24".parse().ok(),
                    ip_range: "10.1.0.128/25".parse().ok(),
                    gateway: "10.1.0.9".parse().ok(),
                    aux: [("printer".to_owned(), "10.1.0.200".parse().unwrap())].into(),
                },
                request::Subnet { subnet: "fd00::/64".parse().ok(), ..Default::default() },
            ],
            ipv6: true,
            internal: true,
            options: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(request(sent), Ok(expected));
        let only = request(r#"{"Name":"n","EnableIPv4":false,"EnableIPv6":true}"#).unwrap();
        assert_eq!((only.ipv4, only.ipv6), (Some(false), true));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_the_reason() {
        for (json, reason) in [
            (r#"{"Name":"n","Driver":"overlay"}"#, "no driver overlay"),
            (r#"{"Name":"n","Scope":"swarm"}"#, "scope swarm"),
            (r#"{"Name":"n","Driver":"host"}"#, "only one instance of \"host\" network is allowed"),
            (r#"{"Name":"n","Ingress":true}"#, "there is none"),
            (r#"{"Name":"n","ConfigFrom":{"Network":"x"}}"#, "config-from"),
            (r#"{"Name":"n","ConfigOnly":true}"#, "config-only"),
            (r#"{"Name":"n","IPAM":{"Driver":"x"}}"#, "address management"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.1"}]}}"#, "prefix length"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/33"}]}}"#, "invalid subnet 10.0.0.0/33"),
            (r#"{"Name":"n","IPAM":{"Config":[{"Gateway":"x"}]}}"#, "invalid gateway x"),
            (
                r#"{"Name":"n","IPAM":{"Config":[{"AuxiliaryAddresses":{"a":"x"}}]}}"#,
                "invalid auxiliary address a x",
            ),
        ] {
            let refused = request(json).unwrap_err();
            assert!(refused.contains(reason), "{json}: {refused}");
        }
    }
}
