//! Driver options of a network, by Docker's names, and rnet's own.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;

use super::{link::LinkKind, name::check_interface};
use crate::controller::{
    backend::{Direct, MOST_FLOWS, Policy},
    error::{Error, Result},
};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Containers of the network may talk to one another.
pub const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
/// What leaves the host gets the uplink's address.
pub const ENABLE_IP_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(in crate::controller) const MTU: &str = "com.docker.network.driver.mtu";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// What joins containers to the bridge.
pub const LINK: &str = "rnet.link";
const MAX_FLOWS: &str = "rnet.max_flows";
pub(in crate::controller) const VIA_STACK: &str = "rnet.via_stack";
pub(in crate::controller) const NON_MASQUERADE: &str = "rnet.non_masquerade";
const KNOWN: [&str; 11] = [
    BRIDGE_NAME,
    ENABLE_ICC,
    ENABLE_IP_MASQUERADE,
    GATEWAY_MODE_IPV4,
    GATEWAY_MODE_IPV6,
    HOST_BINDING,
    LINK,
    MAX_FLOWS,
    MTU,
    NON_MASQUERADE,
    VIA_STACK,
];

/// How containers of a network and the outside reach one another, in one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// By published ports of the host one way, masqueraded the other.
    #[default]
    Nat,
    /// The same, and every port of a container may be reached at its own address.
    NatUnprotected,
    /// Untranslated, and of a container's own ports those that are published may be reached.
    Routed,
    /// Not at all: the bridge has no address.
    Isolated,
}

impl GatewayMode {
    /// What may come from outside straight to a container's address.
    pub fn direct(self) -> Direct {
        match self {
            Self::Nat | Self::Isolated => Direct::None,
            Self::Routed => Direct::Published,
            Self::NatUnprotected => Direct::All,
        }
    }

    /// Whether addresses are translated.
    pub fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::NatUnprotected)
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
    /// Destinations outside towards which containers keep their addresses, although the network masquerades.
    pub non_masquerade: Vec<IpNetwork>,
    /// What joins containers to the bridge.
    pub link: LinkKind,
    /// MTU of the bridge and of both ends of every pair; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// Where ports are published that name no host address; the instance's default when absent.
    pub bind: Option<IpAddr>,
    /// For IPv4.
    pub gateway_mode_v4: GatewayMode,
    /// For IPv6.
    pub gateway_mode_v6: GatewayMode,
    /// What passes between containers and the outside takes the host's stack, so that its filter rules see it.
    pub via_stack: bool,
    /// How many flows a container may have opened, of each address family; 0 for no limit, absent for what holds for all.
    pub max_flows: Option<u32>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            bridge: None,
            icc: true,
            masquerade: true,
            non_masquerade: Vec::new(),
            link: LinkKind::Veth,
            mtu: None,
            bind: None,
            gateway_mode_v4: GatewayMode::Nat,
            gateway_mode_v6: GatewayMode::Nat,
            via_stack: false,
            max_flows: None,
        }
    }
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
                GATEWAY_MODE_IPV4 => parsed.gateway_mode_v4 = gateway_mode(key, value)?,
                GATEWAY_MODE_IPV6 => parsed.gateway_mode_v6 = gateway_mode(key, value)?,
                HOST_BINDING => parsed.bind = Some(host_address(key, value)?),
                LINK => parsed.link = link(value)?,
                MAX_FLOWS => parsed.max_flows = Some(max_flows(value)?),
                MTU => parsed.mtu = mtu(value)?,
                NON_MASQUERADE => parsed.non_masquerade = prefixes(key, value)?,
                VIA_STACK => parsed.via_stack = boolean(key, value)?,
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
            via_stack: self.via_stack,
            exempts: !self.non_masquerade.is_empty(),
            max_flows: self.max_flows,
        }
    }

    /// The gateway mode of one address family.
    pub fn gateway_mode(&self, ipv6: bool) -> GatewayMode {
        if ipv6 { self.gateway_mode_v6 } else { self.gateway_mode_v4 }
    }
}

/// Whether there is an option of this name.
pub fn is_known(key: &str) -> bool {
    KNOWN.contains(&key)
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

fn gateway_mode(key: &str, value: &str) -> Result<GatewayMode> {
    match value {
        "" | "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(Error::Invalid(format!(
            "unknown gateway mode {value:?} of network option {key}: nat, nat-unprotected, routed or isolated is \
             allowed"
        ))),
    }
}

fn link(value: &str) -> Result<LinkKind> {
    value.parse().map_err(|e| Error::Invalid(format!("network option {LINK}: {e}")))
}

fn host_address(key: &str, value: &str) -> Result<IpAddr> {
    value.parse().map_err(|_| {
        Error::Invalid(format!(
            "invalid value {value:?} of network option {key}: an address of the host is allowed"
        ))
    })
}

/// Separated by commas.
fn prefixes(key: &str, value: &str) -> Result<Vec<IpNetwork>> {
    let prefix = |text: &str| {
        let prefix = text.trim().parse::<IpNetwork>();
        prefix.ok().filter(|prefix| prefix.network() == prefix.ip()).ok_or_else(|| {
            Error::Invalid(format!(
                "invalid value {value:?} of network option {key}: subnets are allowed, as 10.0.0.0/8,fd00::/8"
            ))
        })
    };
    value.split(',').map(prefix).collect()
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

/// As the key `rnet.max-flows-per-container`, 0 is no limit.
fn max_flows(value: &str) -> Result<u32> {
    value.parse().ok().filter(|flows| *flows <= MOST_FLOWS).ok_or_else(|| {
        Error::Invalid(format!(
            "invalid value {value:?} of network option {MAX_FLOWS}: a number of flows up to {MOST_FLOWS}, or 0 for no \
             limit, is allowed"
        ))
    })
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
            (HOST_BINDING, "192.0.2.1"),
            (GATEWAY_MODE_IPV4, "nat-unprotected"),
            (GATEWAY_MODE_IPV6, "routed"),
            (LINK, "netkit"),
            (NON_MASQUERADE, "10.0.0.0/8, fd00::/8"),
            (MAX_FLOWS, "100"),
            (VIA_STACK, "true"),
        ]);
        let expected = NetworkOptions {
            bridge: Some("web0".into()),
            icc: false,
            masquerade: false,
            non_masquerade: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            link: LinkKind::Netkit,
            mtu: Some(1400),
            bind: Some("192.0.2.1".parse().unwrap()),
            gateway_mode_v4: GatewayMode::NatUnprotected,
            gateway_mode_v6: GatewayMode::Routed,
            via_stack: true,
            max_flows: Some(100),
        };
        assert_eq!(parsed.unwrap(), expected);
        assert_eq!(parse(&[(MAX_FLOWS, "0")]).unwrap().policy(false).max_flows, Some(0), "no limit");
        for default in [(MTU, "0"), (LINK, "veth")] {
            assert_eq!(parse(&[default]).unwrap(), NetworkOptions::default());
        }
    }

    #[test]
    fn each_gateway_mode_says_what_may_come_in() {
        let expected = [
            ("nat", Direct::None, true),
            ("nat-unprotected", Direct::All, true),
            ("routed", Direct::Published, false),
            ("isolated", Direct::None, false),
        ];
        for (value, direct, translates) in expected {
            let parsed = parse(&[(GATEWAY_MODE_IPV6, value)]).unwrap();
            let mode = parsed.gateway_mode(true);
            assert_eq!((mode.direct(), mode.translates()), (direct, translates), "{value}");
            assert_eq!(parsed.gateway_mode(false), GatewayMode::Nat);
        }
    }

    #[test]
    fn refusals_say_what_is_allowed() {
        let error = |key, value| parse(&[(key, value)]).unwrap_err().to_string();
        assert_eq!(error(MTU, "-1"), "invalid MTU number: -1: 68 to 65535 is allowed");
        assert!(error(MTU, "67").starts_with("invalid MTU number: 67"));
        assert!(error(BRIDGE_NAME, "sixteen-letters-").contains("1 to 15 characters"));
        for key in [ENABLE_ICC, VIA_STACK] {
            assert!(error(key, "maybe").contains("true or false"));
        }
        assert!(error(GATEWAY_MODE_IPV4, "open").contains("unknown gateway mode \"open\""));
        for bad in ["", "-1", "many", "16777217"] {
            assert!(error(MAX_FLOWS, bad).contains("a number of flows up to 16777216, or 0"), "{bad}");
        }
        for bad in ["", "10.0.0.1/8", "10.0.0.0/8,", "ten"] {
            assert!(error(NON_MASQUERADE, bad).contains("subnets are allowed"), "{bad}");
        }
        assert_eq!(
            error(LINK, "macvlan"),
            "network option rnet.link: unknown kind of link \"macvlan\": veth or netkit is allowed"
        );
        for bad in ["", "Netkit", "veth "] {
            assert!(error(LINK, bad).contains("veth or netkit is allowed"), "{bad}");
        }
        assert!(error(HOST_BINDING, "eth0").contains("an address of the host is allowed"));
        let unknown = error("com.docker.network.bridge.nonsense", "1");
        assert!(
            unknown.contains("nonsense") && KNOWN.iter().all(|known| unknown.contains(known)),
            "{unknown}"
        );
    }
}
