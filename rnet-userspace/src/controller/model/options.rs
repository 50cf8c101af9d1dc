//! Driver options of a network, by Docker's names.

use std::{collections::BTreeMap, net::IpAddr};

use super::name::check_interface;
use crate::controller::{
    backend::{Direct, FamilyPolicy, Policy},
    error::{Error, Result},
};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const ENABLE_IP_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const MTU: &str = "com.docker.network.driver.mtu";
const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const KNOWN: [&str; 6] =
    [BRIDGE_NAME, ENABLE_ICC, ENABLE_IP_MASQUERADE, MTU, GATEWAY_MODE_IPV4, GATEWAY_MODE_IPV6];

/// How a network is connected to the outside, for one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Published ports and masquerade.
    #[default]
    Nat,
    /// The same, and containers' own addresses are open to whoever has a route to them.
    NatUnprotected,
    /// No translation: published ports are open at the containers' own addresses.
    Routed,
}

impl GatewayMode {
    fn policy(self, masquerade: bool) -> FamilyPolicy {
        match self {
            Self::Nat => FamilyPolicy { masquerade, direct: Direct::Nothing },
            Self::NatUnprotected => FamilyPolicy { masquerade, direct: Direct::Everything },
            Self::Routed => FamilyPolicy { masquerade: false, direct: Direct::Published },
        }
    }
}

/// What a network's driver options mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Name of the bridge; one is made from the network's id when absent.
    pub bridge: Option<String>,
    /// Containers of the network may talk to one another.
    pub icc: bool,
    /// What leaves the host gets the uplink's address.
    pub masquerade: bool,
    /// MTU of the bridge and of both ends of every veth; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// Connection to the outside over IPv4.
    pub gateway_mode_v4: GatewayMode,
    /// Connection to the outside over IPv6.
    pub gateway_mode_v6: GatewayMode,
}

impl NetworkOptions {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown option or a value that it cannot have.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self> {
        let mut parsed = Self::default();
        for (key, value) in options {
            match key.as_str() {
                BRIDGE_NAME => {
                    check_interface(value)?;
                    parsed.bridge = Some(value.clone());
                }
                ENABLE_ICC => parsed.icc = boolean(key, value)?,
                ENABLE_IP_MASQUERADE => parsed.masquerade = boolean(key, value)?,
                MTU => parsed.mtu = mtu(value)?,
                GATEWAY_MODE_IPV4 => parsed.gateway_mode_v4 = gateway_mode(key, value)?,
                GATEWAY_MODE_IPV6 => parsed.gateway_mode_v6 = gateway_mode(key, value)?,
                _ => {
                    return Err(Error::Invalid(format!(
                        "unknown network option {key:?}: known are {}",
                        KNOWN.join(", ")
                    )));
                }
            }
        }
        Ok(parsed)
    }

    /// The policy that they and `internal` make.
    pub fn policy(&self, internal: bool) -> Policy {
        Policy {
            icc: self.icc,
            internal,
            v4: self.gateway_mode_v4.policy(self.masquerade),
            v6: self.gateway_mode_v6.policy(self.masquerade),
        }
    }

    /// The mode of the family of an address.
    pub fn gateway_mode(&self, addr: IpAddr) -> GatewayMode {
        if addr.is_ipv4() { self.gateway_mode_v4 } else { self.gateway_mode_v6 }
    }
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            bridge: None,
            icc: true,
            masquerade: true,
            mtu: None,
            gateway_mode_v4: GatewayMode::default(),
            gateway_mode_v6: GatewayMode::default(),
        }
    }
}

fn gateway_mode(key: &str, value: &str) -> Result<GatewayMode> {
    match value {
        "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Err(Error::Invalid(format!(
            "network option {key}=isolated is not supported: --internal keeps a network from the outside"
        ))),
        _ => Err(Error::Invalid(format!(
            "unknown gateway mode {value} for {key}: nat, nat-unprotected or routed is allowed"
        ))),
    }
}

/// The options of a network whose bridge is called `bridge`.
pub fn with_bridge(bridge: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(BRIDGE_NAME.to_owned(), bridge.to_owned())])
}

/// The spellings that Docker takes.
fn boolean(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::Invalid(format!(
            "invalid value {value:?} of network option {key}: true or false is allowed"
        ))),
    }
}

/// As with Docker, 0 is the kernel's default.
fn mtu(value: &str) -> Result<Option<u32>> {
    // RFC 791: every link carries 68 bytes. Links of Ethernet kind take 65535 at most.
    match value.parse() {
        Ok(0) => Ok(None),
        Ok(mtu @ 68..=65535) => Ok(Some(mtu)),
        _ => Err(Error::Invalid(format!("invalid MTU number: {value}: 68 to 65535 is allowed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<NetworkOptions> {
        NetworkOptions::parse(&options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn options_are_read_by_dockers_names() {
        let parsed = parse(&[
            (BRIDGE_NAME, "web0"),
            (ENABLE_ICC, "false"),
            (ENABLE_IP_MASQUERADE, "0"),
            (MTU, "1400"),
        ]);
        let expected = NetworkOptions {
            bridge: Some("web0".into()),
            icc: false,
            masquerade: false,
            mtu: Some(1400),
            ..NetworkOptions::default()
        };
        assert_eq!(parsed.unwrap(), expected);
        assert_eq!(parse(&[(MTU, "0")]).unwrap(), NetworkOptions::default());
    }

    #[test]
    fn a_routed_family_is_not_masqueraded() {
        let options =
            parse(&[(GATEWAY_MODE_IPV6, "routed"), (GATEWAY_MODE_IPV4, "nat-unprotected")]).unwrap();
        let policy = options.policy(false);
        assert_eq!(policy.v4, FamilyPolicy { masquerade: true, direct: Direct::Everything });
        assert_eq!(policy.v6, FamilyPolicy { masquerade: false, direct: Direct::Published });
    }

    #[test]
    fn refusals_say_what_is_allowed() {
        let error = |key, value| parse(&[(key, value)]).unwrap_err().to_string();
        assert_eq!(error(MTU, "-1"), "invalid MTU number: -1: 68 to 65535 is allowed");
        assert!(error(MTU, "67").starts_with("invalid MTU number: 67"));
        assert!(error(BRIDGE_NAME, "sixteen-letters-").contains("1 to 15 characters"));
        assert!(error(ENABLE_ICC, "maybe").contains("true or false"));
        let unknown = error("com.docker.network.bridge.nonsense", "1");
        assert!(
            unknown.contains("nonsense") && KNOWN.iter().all(|known| unknown.contains(known)),
            "{unknown}"
        );
    }
}
