//! Results: what ADD says, what IPAM plugins say, and what comes back as `prevResult`. From 0.3.1 to 1.1.0 they differ
//! in what an address and an interface say of themselves.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::{
    error::{Code, Error, Result},
    json::Object,
    version::Version,
};

/// What a container has been given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Interfaces, in the container and on the host.
    pub(super) interfaces: Vec<Interface>,
    /// Addresses.
    pub(super) ips: Vec<Ip>,
    /// Routes inside.
    pub(super) routes: Vec<Route>,
    /// Name servers and the like, as the specification has them; `null` for nothing.
    pub(super) dns: Value,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its name.
    pub(super) name: String,
    /// Its Ethernet address.
    pub(super) mac: Option<String>,
    /// Its MTU, in bytes.
    pub(super) mtu: Option<u32>,
    /// The namespace that it is in; absent for the host's.
    pub(super) sandbox: Option<String>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ip {
    /// With the length of its subnet's prefix.
    pub(super) address: IpNetwork,
    /// The subnet's gateway.
    pub(super) gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    pub(super) interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Where to.
    pub(super) to: IpNetwork,
    /// By which way; the address's gateway when absent.
    pub(super) gateway: Option<IpAddr>,
    /// It has what rnet cannot set: an MTU, a priority, a table.
    pub(super) has_more: bool,
}

impl Route {
    /// Whether it leads everywhere.
    pub(super) fn is_default(&self) -> bool {
        self.to.prefix() == 0
    }
}

impl Outcome {
    /// Reads a result. `place` is where it stands.
    ///
    /// # Errors
    /// [`Code::Decode`].
    pub(super) fn read(value: &Value, place: &str) -> Result<Self> {
        let object = Object::of(value, place)?;
        let interfaces = object.list("interfaces")?.iter().map(|interface| {
            let interface = Object::of(interface, "interfaces")?;
            let owned = |key| Ok::<_, Error>(interface.text(key)?.map(str::to_owned));
            Ok(Interface {
                name: owned("name")?.unwrap_or_default(),
                mac: owned("mac")?,
                mtu: interface.number("mtu")?.and_then(|mtu| mtu.try_into().ok()),
                sandbox: owned("sandbox")?,
            })
        });
        let ips = object.list("ips")?.iter().map(|ip| {
            let ip = Object::of(ip, "ips")?;
            let address = ip.text("address")?.ok_or_else(|| decode(place, "an address is missing"))?;
            Ok(Ip {
                address: network(address, place)?,
                gateway: ip.text("gateway")?.map(|gateway| addr(gateway, place)).transpose()?,
                interface: ip.number("interface")?.and_then(|index| index.try_into().ok()),
            })
        });
        let routes = object.list("routes")?.iter().map(|route| {
            let route = Object::of(route, "routes")?;
            let to = route.text("dst")?.ok_or_else(|| decode(place, "a route's dst is missing"))?;
            let more = ["mtu", "advmss", "priority", "table", "scope"];
            Ok(Route {
                to: network(to, place)?,
                gateway: route.text("gw")?.map(|gateway| addr(gateway, place)).transpose()?,
                has_more: more.iter().any(|key| route.get(key).is_some_and(|value| *value != json!(0))),
            })
        });
        Ok(Self {
            interfaces: interfaces.collect::<Result<_>>()?,
            ips: ips.collect::<Result<_>>()?,
            routes: routes.collect::<Result<_>>()?,
            dns: object.get("dns").cloned().unwrap_or_default(),
        })
    }

    /// As a version has it.
    pub(super) fn to_json(&self, version: Version) -> Value {
        let interfaces = self.interfaces.iter().map(|interface| {
            let mut json = Map::new();
            json.insert("name".into(), json!(interface.name));
            json.extend(interface.mac.as_ref().map(|mac| ("mac".into(), json!(mac))));
            let mtu = interface.mtu.filter(|_| version >= Version::V1_1_0);
            json.extend(mtu.map(|mtu| ("mtu".into(), json!(mtu))));
            json.extend(interface.sandbox.as_ref().map(|path| ("sandbox".into(), json!(path))));
            Value::from(json)
        });
        let ips = self.ips.iter().map(|ip| {
            let mut json = Map::new();
            if version < Version::V1_0_0 {
                json.insert("version".into(), json!(if ip.address.is_ipv4() { "4" } else { "6" }));
            }
            json.extend(ip.interface.map(|index| ("interface".into(), json!(index))));
            json.insert("address".into(), json!(ip.address));
            json.extend(ip.gateway.map(|gateway| ("gateway".into(), json!(gateway))));
            Value::from(json)
        });
        let routes = self.routes.iter().map(|route| {
            let mut json = Map::new();
            json.insert("dst".into(), json!(route.to));
            json.extend(route.gateway.map(|gateway| ("gw".into(), json!(gateway))));
            Value::from(json)
        });
        let mut json = json!({
            "cniVersion": version.to_string(),
            "interfaces": interfaces.collect::<Vec<_>>(),
            "ips": ips.collect::<Vec<_>>(),
            "dns": if self.dns.is_null() { json!({}) } else { self.dns.clone() },
        });
        if !self.routes.is_empty() {
            json["routes"] = routes.collect();
        }
        json
    }

    /// The interface inside the container called so, or the first one inside, and its place in the list.
    pub(super) fn inside(&self, name: &str) -> Option<(usize, &Interface)> {
        let inside =
            || self.interfaces.iter().enumerate().filter(|(_, interface)| interface.sandbox.is_some());
        inside().find(|(_, interface)| interface.name == name).or_else(|| inside().next())
    }
}

/// A network, or an address with the length of a prefix.
fn network(text: &str, place: &str) -> Result<IpNetwork> {
    text.parse().map_err(|e| decode(place, &format!("{text:?}: {e}")))
}

fn addr(text: &str, place: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| decode(place, &format!("{text:?} is no IP address")))
}

fn decode(place: &str, why: &str) -> Error {
    Error::new(Code::Decode, format!("{place}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn podman() -> Value {
        json!({
            "cniVersion": "0.4.0", "dns": {},
            "interfaces": [
                { "mac": "5e:8e:d7:b5:ff:2d", "name": "ecopod0" },
                { "mac": "c6:0b:be:aa:36:4b", "name": "veth75431506" },
                { "mac": "fe:38:12:03:b3:27", "name": "eth0", "sandbox": "/run/netns/x" },
            ],
            "ips": [{ "address": "10.90.1.77/24", "gateway": "10.90.1.1", "interface": 2, "version": "4" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
        })
    }

    #[test]
    fn what_a_plugin_has_said_is_read_and_said_again() {
        let read = Outcome::read(&podman(), "prevResult").unwrap();
        assert_eq!(read.inside("eth0").unwrap().0, 2);
        assert_eq!(read.inside("net1").unwrap().0, 2);
        assert!(read.routes[0].is_default() && !read.routes[0].has_more);
        assert_eq!(read.to_json(Version::V0_4_0), podman());
    }

    #[test]
    fn each_version_says_what_it_has() {
        let mut outcome = Outcome::read(&podman(), "prevResult").unwrap();
        outcome.interfaces[0].mtu = Some(1400);
        let versions = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
        let said = versions.map(|version| outcome.to_json(version));
        assert_eq!(
            said.each_ref().map(|json| json["ips"][0].get("version").is_some()),
            [true, true, false, false]
        );
        let mtus = said.each_ref().map(|json| json["interfaces"][0].get("mtu").is_some());
        assert_eq!(mtus, [false, false, false, true]);
        assert_eq!(said[3]["cniVersion"], "1.1.0");
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for bad in [
            json!([]),
            json!({ "ips": {} }),
            json!({ "ips": [{}] }),
            json!({ "ips": [{ "address": "10.1.0.2/33" }] }),
            json!({ "ips": [{ "address": "10.1.0.2/24", "gateway": "x" }] }),
            json!({ "routes": [{ "dst": 7 }] }),
            json!({ "interfaces": [7] }),
        ] {
            assert_eq!(Outcome::read(&bad, "prevResult").unwrap_err().code, Code::Decode, "{bad}");
        }
    }
}
