//! What dockerd says to a plugin, as Go writes it: `null` for what is empty, addresses as text, and keys of its own in
//! the options. Unknown keys are those of another version.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::controller::model::MacAddr;

#[derive(Debug, Deserialize)]
pub(super) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub(super) options: NetworkOptions,
    #[serde(rename = "IPv4Data", default, deserialize_with = "or_default")]
    pub(super) ipv4: Vec<AddressPool>,
    #[serde(rename = "IPv6Data", default, deserialize_with = "or_default")]
    pub(super) ipv6: Vec<AddressPool>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct NetworkOptions {
    /// Those of `docker network create -o`.
    #[serde(rename = "com.docker.network.generic", default, deserialize_with = "or_default")]
    pub(super) generic: BTreeMap<String, Value>,
    #[serde(rename = "com.docker.network.internal", default, deserialize_with = "or_default")]
    pub(super) internal: bool,
}

/// A subnet, from whoever manages the network's addresses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AddressPool {
    #[serde(default, deserialize_with = "text")]
    pub(super) pool: Option<IpNetwork>,
    #[serde(default, deserialize_with = "text")]
    pub(super) gateway: Option<IpNetwork>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) aux_addresses: BTreeMap<String, IpNetwork>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Network {
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: String,
    #[serde(rename = "Interface", default, deserialize_with = "or_default")]
    pub(super) interface: Interface,
}

/// What the interface is to be; empty for what the driver is to choose.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Interface {
    #[serde(rename = "Address", default, deserialize_with = "text")]
    pub(super) ipv4: Option<IpNetwork>,
    #[serde(rename = "AddressIPv6", default, deserialize_with = "text")]
    pub(super) ipv6: Option<IpNetwork>,
    /// Also among the options, in base64, from which libnetwork has it.
    #[serde(rename = "MacAddress", default, deserialize_with = "text")]
    pub(super) mac: Option<MacAddr>,
}

/// What all calls about an endpoint name it by.
#[derive(Debug, Deserialize)]
pub(super) struct Endpoint {
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Connectivity {
    #[serde(flatten)]
    pub(super) of: Endpoint,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub(super) options: ConnectivityOptions,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ConnectivityOptions {
    #[serde(rename = "com.docker.network.portmap", default, deserialize_with = "or_default")]
    pub(super) ports: Vec<PortBinding>,
}

/// A published port. Ranges that are as long inside as outside have been taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PortBinding {
    /// IP's number of the protocol.
    pub(super) proto: u8,
    /// The container's address, which dockerd leaves out.
    #[serde(rename = "IP", default, deserialize_with = "text", serialize_with = "as_text")]
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    #[serde(rename = "HostIP", default, deserialize_with = "text", serialize_with = "as_text")]
    pub(super) host_ip: Option<IpAddr>,
    /// 0 for any.
    #[serde(default)]
    pub(super) host_port: u16,
    #[serde(default)]
    pub(super) host_port_end: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RequestPool {
    #[serde(default, deserialize_with = "text")]
    pub(super) pool: Option<IpNetwork>,
    #[serde(default, deserialize_with = "text")]
    pub(super) sub_pool: Option<IpNetwork>,
    #[serde(rename = "V6", default)]
    pub(super) ipv6: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pool {
    #[serde(rename = "PoolID")]
    pub(super) pool: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct RequestAddress {
    #[serde(rename = "PoolID")]
    pub(super) pool: String,
    #[serde(rename = "Address", default, deserialize_with = "text")]
    pub(super) addr: Option<IpAddr>,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub(super) options: AddressOptions,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct AddressOptions {
    #[serde(rename = "RequestAddressType", default)]
    kind: String,
}

impl AddressOptions {
    /// It is the network's own.
    pub(super) fn is_gateway(&self) -> bool {
        self.kind == "com.docker.network.gateway"
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ReleaseAddress {
    #[serde(rename = "PoolID")]
    pub(super) pool: String,
    #[serde(rename = "Address")]
    pub(super) addr: IpAddr,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An empty text is nothing.
fn text<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<Option<T>, D::Error>
where
    T::Err: fmt::Display,
{
    match Option::<String>::deserialize(from)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|e| D::Error::custom(format!("{text:?}: {e}"))),
    }
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn as_text<S: serde::Serializer>(addr: &Option<IpAddr>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&addr.map(|addr| addr.to_string()).unwrap_or_default())
}
