//! Driver options of a network, by Docker's names.

use std::collections::BTreeMap;

use super::name::check_interface;
use crate::controller::{
    backend::Policy,
    error::{Error, Result},
};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const ENABLE_IP_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const MTU: &str = "com.docker.network.driver.mtu";
const KNOWN: [&str; 4] = [BRIDGE_NAME, ENABLE_ICC, ENABLE_IP_MASQUERADE, MTU];

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
}

impl NetworkOptions {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown option or a value that it cannot have.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self> {
        let mut parsed = Self { bridge: None, icc: true, masquerade: true, mtu: None };
        for (key, value) in options {
            match key.as_str() {
                BRIDGE_NAME => {
                    check_interface(value)?;
                    parsed.bridge = Some(value.clone());
                }
                ENABLE_ICC => parsed.icc = boolean(key, value)?,
                ENABLE_IP_MASQUERADE => parsed.masquerade = boolean(key, value)?,
                MTU => parsed.mtu = mtu(value)?,
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
        Policy { icc: self.icc, internal }
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
        let expected =
            NetworkOptions { bridge: Some("web0".into()), icc: false, masquerade: false, mtu: Some(1400) };
        assert_eq!(parsed.unwrap(), expected);
        let defaults = NetworkOptions { bridge: None, icc: true, masquerade: true, mtu: None };
        assert_eq!(parse(&[(MTU, "0")]).unwrap(), defaults);
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
