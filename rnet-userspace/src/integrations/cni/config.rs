//! The network's configuration: the specification's keys, those of the `bridge` plugin, and rnet's own. Keys that nobody
//! knows here are for others in the chain.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::{
    call::{self, Call, Command},
    error::{Code, Error, Result},
    json::Object,
    ports,
    result::Outcome,
    version::Version,
};
use crate::{
    controller::{
        model::{MacAddr, name::check_name, port_spec::PortMapping},
        request::Subnet,
    },
    host::shaping::Limit,
};

/// `com.docker.network.bridge.name`.
pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
/// `com.docker.network.bridge.enable_ip_masquerade`.
pub(super) const ENABLE_IP_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const MTU: &str = "com.docker.network.driver.mtu";
/// `rnet.via_stack`.
pub(super) const VIA_STACK: &str = "rnet.via_stack";

/// What rnet is for on the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// It makes the bridge and the interfaces.
    #[default]
    Bridge,
    /// It publishes ports of interfaces that a plugin before it has made.
    Portmap,
}

/// What a container may send, and be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bandwidth {
    /// Towards the container.
    pub(super) incoming: Option<Limit>,
    /// From it.
    pub(super) outgoing: Option<Limit>,
}

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Config {
    /// The network's name.
    pub(super) name: String,
    /// The instance of rnet that is meant.
    pub(super) instance: Option<String>,
    /// What rnet is for.
    pub(super) mode: Mode,
    /// Subnets that are asked for.
    pub(super) subnets: Vec<Subnet>,
    /// The network has IPv6, whatever the subnets are.
    pub ipv6: bool,
    /// Nothing leads out of it.
    pub(super) internal: bool,
    /// Whether the container gets a default route; absent for what is usual.
    pub(super) default_route: Option<bool>,
    /// The bridge sends what comes from the interface back to it, where rules of the host's lead it there.
    pub(super) hairpin: bool,
    /// Driver options, those that other keys stand for included.
    pub(super) options: BTreeMap<String, String>,
    /// The specification's `dns`.
    pub(super) dns: Value,
    /// The result says that the gateways answer for names.
    pub(super) name_server: bool,
    /// The type of the plugin that gives addresses; rnet itself when absent.
    pub(super) ipam: Option<String>,
    /// Addresses that are asked for.
    pub(super) ips: Vec<IpAddr>,
    /// The Ethernet address that is asked for.
    pub(super) mac: Option<MacAddr>,
    /// Ports that are to be published.
    pub(super) ports: Vec<PortMapping>,
    /// Whether the engine keeps the host ports from other programs; absent for what is known of the engine.
    pub(super) engine_keeps_ports: Option<bool>,
    /// What it may send, and be sent.
    pub(super) bandwidth: Bandwidth,
    /// More names of the container on this network.
    pub(super) aliases: Vec<String>,
    /// What ADD has said, or the plugin before this one.
    pub(super) prev: Option<Outcome>,
    /// The same as it came.
    pub(super) prev_json: Value,
    /// Containers and interfaces that are still there, for GC.
    pub(super) valid: Option<Vec<(String, String)>>,
}

/// The configuration's version, which says how it is answered.
///
/// # Errors
/// [`Code::Decode`] and [`Code::Version`].
pub(super) fn version(json: &Value) -> Result<Version> {
    // Before there was the key, there was only 0.1.0.
    Version::of(Object::of(json, "configuration")?.text("cniVersion")?.unwrap_or("0.1.0"))
}

impl Config {
    /// Reads a configuration for a call. What only matters to ADD is not looked at for DEL and GC, which must do with what
    /// ADD may have refused.
    ///
    /// # Errors
    /// [`Code::Decode`] for what is of the wrong kind, [`Code::Config`] for what cannot be served.
    pub(super) fn read(json: &Value, call: &Call) -> Result<Self> {
        let object = Object::of(json, "configuration")?;
        let name = object.text("name")?.ok_or_else(|| Error::config("name is missing"))?.to_owned();
        check_name("network", &name).map_err(|e| Error::config(e.to_string()))?;
        let instance = object.text("instance")?.map(str::to_owned);
        if let Some(instance) = &instance {
            check_name("instance", instance).map_err(|e| Error::config(e.to_string()))?;
        }
        let mode = match object.text("mode")? {
            None | Some("bridge") => Mode::Bridge,
            Some("portmap") => Mode::Portmap,
            Some(other) => {
                return Err(Error::config(format!("unknown mode {other:?}: bridge or portmap is allowed")));
            }
        };
        let ipam = object.object("ipam")?.map(|ipam| ipam.text("type")).transpose()?.flatten();
        if ipam.is_some() && ipam == object.text("type")? {
            return Err(Error::config("ipam: for addresses that rnet gives itself, leave ipam out"));
        }
        let config = Self { name, instance, mode, ipam: ipam.map(str::to_owned), ..Self::default() };
        match call.command {
            Command::Add | Command::Check | Command::Status => config.with_wishes(&object, call),
            Command::Gc => Ok(Self { valid: valid(&object)?, ..config }),
            Command::Del | Command::Version => Ok(config),
        }
    }

    fn with_wishes(self, object: &Object<'_>, call: &Call) -> Result<Self> {
        let nothing = Value::Object(Map::new());
        let empty = Object::of(&nothing, "")?;
        let runtime = object.object("runtimeConfig")?.unwrap_or(empty);
        let asked = object.object("args")?.map(|args| args.object("cni")).transpose()?.flatten();
        let asked = asked.unwrap_or(empty);
        let subnets = subnets(object)?;
        check_bridge_keys(object)?;
        if self.mode == Mode::Portmap && (self.ipam.is_some() || !subnets.is_empty()) {
            return Err(Error::config("mode portmap gives no addresses: leave out ipam, subnet and ranges"));
        }
        if self.ipam.is_some() && !subnets.is_empty() {
            return Err(Error::config(
                "subnet and ranges are for rnet's own addresses, and ipam names another plugin: leave out one of the two",
            ));
        }
        let bandwidth = bandwidth(&runtime.object("bandwidth")?.unwrap_or(*object))?;
        if self.mode == Mode::Portmap && bandwidth != Bandwidth::default() {
            return Err(Error::config(
                "bandwidth is limited by whoever makes the interface: in mode portmap that is not rnet",
            ));
        }
        Ok(Self {
            ipv6: object.flag("ipv6")?.unwrap_or_default(),
            subnets,
            internal: object.flag("internal")?.unwrap_or_default(),
            default_route: object.flag("isDefaultGateway")?,
            hairpin: object.flag("hairpinMode")?.unwrap_or_default(),
            options: options(object, self.mode)?,
            dns: object.get("dns").cloned().unwrap_or_default(),
            name_server: object.flag("nameServer")?.unwrap_or_default(),
            ips: ips(call, &asked, &runtime)?,
            mac: mac(call, &asked, &runtime)?,
            ports: ports::mappings(&runtime)?,
            bandwidth,
            engine_keeps_ports: object.flag("engineKeepsPorts")?,
            aliases: aliases(&runtime, &self.name)?,
            prev: object.get("prevResult").map(|prev| Outcome::read(prev, "prevResult")).transpose()?,
            prev_json: object.get("prevResult").cloned().unwrap_or_default(),
            ..self
        })
    }

    /// Whether the host ports are kept by the engine. Podman binds them itself; a kubelet leaves them to the plugin.
    pub(super) fn ports_are_kept(&self, call: &Call) -> bool {
        let is_podman =
            call.args.pod.is_some() && call.args.pod_namespace.is_none() && !call.args.has_sandbox;
        self.engine_keeps_ports.unwrap_or(is_podman)
    }
}

/// Keys of the `bridge` plugin that ask for what rnet does not do. What does not matter to rnet is let pass.
fn check_bridge_keys(object: &Object<'_>) -> Result<()> {
    let refuse = |key: &str, why: &str| Err(Error::config(format!("{key} is not served: {why}")));
    if object.flag("isGateway")? == Some(false) {
        return refuse(
            "isGateway false",
            "the bridge has the gateway's address on every network but an internal one: \
            say \"internal\": true",
        );
    }
    if object.number("vlan")?.is_some_and(|vlan| vlan != 0) || !object.list("vlanTrunk")?.is_empty() {
        return refuse("vlan", "rnet's bridges are no switches for VLANs");
    }
    if object.flag("forceAddress")? == Some(true) {
        return refuse("forceAddress", "rnet takes no addresses from a bridge that somebody else made");
    }
    if object.flag("disableContainerInterface")? == Some(true) {
        return refuse("disableContainerInterface", "rnet brings the interface up");
    }
    if object.flag("hairpinMode")? == Some(true) && object.flag("promiscMode")? == Some(true) {
        return Err(Error::config("cannot set hairpin mode and promiscuous mode at the same time"));
    }
    Ok(())
}

fn options(object: &Object<'_>, mode: Mode) -> Result<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    let written = object.object("options")?;
    for (key, value) in written.iter().flat_map(Object::entries) {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(Error::new(Code::Decode, format!("options: {key} should be a string")));
            }
        };
        options.insert(key.clone(), value);
    }
    let masquerade = match mode {
        Mode::Bridge => object.flag("ipMasq")?,
        // Whoever made the interface masquerades, or does not.
        Mode::Portmap => Some(object.flag("masquerade")?.unwrap_or_default()),
    };
    let mtu = object.number("mtu")?.filter(|mtu| *mtu != 0);
    let isolated = object.flag("portIsolation")?.filter(|isolated| *isolated);
    let others = [
        ("bridge", BRIDGE_NAME, object.text("bridge")?.map(str::to_owned)),
        ("ipMasq", ENABLE_IP_MASQUERADE, masquerade.map(|yes| yes.to_string())),
        ("mtu", MTU, mtu.map(|mtu| mtu.to_string())),
        ("portIsolation", ENABLE_ICC, isolated.map(|isolated| (!isolated).to_string())),
    ];
    for (key, option, value) in others {
        let Some(value) = value else { continue };
        let written = options.entry(option.to_owned()).or_insert_with(|| value.clone());
        if *written != value {
            return Err(Error::config(format!(
                "{key} says {value:?} and option {option} says {written:?}: leave out one of the two"
            )));
        }
    }
    if mode == Mode::Portmap {
        // Rules of those before it in the chain, to masquerade and to filter, go on seeing the packets.
        options.entry(VIA_STACK.to_owned()).or_insert_with(|| "true".to_owned());
    }
    Ok(options)
}

/// `subnet` and `gateway`, one or more of each, or `ranges` as of the `host-local` plugin.
fn subnets(object: &Object<'_>) -> Result<Vec<Subnet>> {
    let mut subnets = Vec::new();
    let gateways = object.one_or_more("gateway")?;
    let gateways: Vec<IpAddr> = gateways.iter().map(|text| addr("gateway", text)).collect::<Result<_>>()?;
    for text in object.one_or_more("subnet")? {
        let subnet = network("subnet", text)?;
        let gateway = gateways.iter().find(|gateway| subnet.contains(**gateway)).copied();
        subnets.push(Subnet { subnet: Some(subnet), gateway, ..Subnet::default() });
    }
    if let Some(gateway) =
        gateways.iter().find(|gateway| !subnets.iter().any(|subnet| subnet.gateway == Some(**gateway)))
    {
        return Err(Error::config(format!("gateway {gateway} is in none of the network's subnets")));
    }
    for set in object.list("ranges")? {
        // As of host-local, each set gives one address; a range of its own is one, too.
        let set = set.as_array().map_or(std::slice::from_ref(set), Vec::as_slice);
        let [range] = set else {
            return Err(Error::config(
                "ranges: rnet has one subnet of each address family: one range in each set",
            ));
        };
        let range = Object::of(range, "ranges")?;
        if range.get("rangeStart").is_some() || range.get("rangeEnd").is_some() {
            return Err(Error::config(
                "ranges: rangeStart and rangeEnd are not served: say \"ipRange\": a part of the subnet, as 10.1.0.64/26",
            ));
        }
        let text = range.text("subnet")?.ok_or_else(|| Error::config("ranges: subnet is missing"))?;
        subnets.push(Subnet {
            subnet: Some(network("ranges: subnet", text)?),
            ip_range: range.text("ipRange")?.map(|text| network("ranges: ipRange", text)).transpose()?,
            gateway: range.text("gateway")?.map(|text| addr("ranges: gateway", text)).transpose()?,
            ..Subnet::default()
        });
    }
    Ok(subnets)
}

/// As the `host-local` plugin takes them: from all places that an engine may write them to.
fn ips(call: &Call, asked: &Object<'_>, runtime: &Object<'_>) -> Result<Vec<IpAddr>> {
    let mut ips = call.args.ips.clone();
    for text in asked.texts("ips")?.into_iter().chain(runtime.texts("ips")?) {
        ips.push(call::address(text).map_err(|e| Error::config(format!("ips: {e}")))?);
    }
    ips.sort_unstable();
    ips.dedup();
    for ipv6 in [false, true] {
        let mut of_family = ips.iter().filter(|ip| ip.is_ipv6() == ipv6);
        if let (Some(first), Some(second)) = (of_family.next(), of_family.next()) {
            return Err(Error::config(format!(
                "both {first} and {second} are asked for, and a container has one address of each family"
            )));
        }
    }
    Ok(ips)
}

/// As the `bridge` plugin takes it: the capability goes first, then `args`, then `CNI_ARGS`.
fn mac(call: &Call, asked: &Object<'_>, runtime: &Object<'_>) -> Result<Option<MacAddr>> {
    let Some(text) = runtime.text("mac")?.or(asked.text("mac")?) else {
        return Ok(call.args.mac);
    };
    text.parse().map(Some).map_err(|e| Error::config(format!("mac: {e}")))
}

fn aliases(runtime: &Object<'_>, network: &str) -> Result<Vec<String>> {
    let Some(aliases) = runtime.object("aliases")? else { return Ok(Vec::new()) };
    let mut names: Vec<String> = aliases.texts(network)?.into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The specification's name for the key is the first; its text once said the other.
fn valid(object: &Object<'_>) -> Result<Option<Vec<(String, String)>>> {
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    // `null` is an empty list of Go's.
    let names: Vec<&String> = object.entries().map(|(name, _)| name).collect();
    let Some(key) = keys.into_iter().find(|key| names.iter().any(|name| name == key)) else {
        return Ok(None);
    };
    let valid = object.list(key)?.iter().map(|attachment| {
        let attachment = Object::of(attachment, key)?;
        let text = |name| {
            let missing = || Error::new(Code::Decode, format!("{key}: {name} is missing"));
            Ok::<_, Error>(attachment.text(name)?.ok_or_else(missing)?.to_owned())
        };
        Ok((text("containerID")?, text("ifname")?))
    });
    valid.collect::<Result<_>>().map(Some)
}

/// As of the `bandwidth` plugin, in bits, and seen from the container: what comes in is `ingress`.
fn bandwidth(object: &Object<'_>) -> Result<Bandwidth> {
    let limit = |rate: &str, burst: &str| -> Result<Option<Limit>> {
        let (bits, burst_bits) =
            (object.number(rate)?.unwrap_or_default(), object.number(burst)?.unwrap_or_default());
        if bits == 0 {
            return Ok(None);
        }
        let bad = |key: &str, value: i64| Error::config(format!("bandwidth: {key} {value} is no limit"));
        let bytes = |bits: i64| u64::try_from(bits / 8).ok().filter(|bytes| *bytes > 0);
        // As with the plugin, no more than 2^32 bits at once.
        let burst_bytes = bytes(burst_bits).filter(|_| u32::try_from(burst_bits).is_ok());
        Ok(Some(Limit {
            rate: bytes(bits).ok_or_else(|| bad(rate, bits))?,
            burst: burst_bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| bad(burst, burst_bits))?,
        }))
    };
    Ok(Bandwidth {
        incoming: limit("ingressRate", "ingressBurst")?,
        outgoing: limit("egressRate", "egressBurst")?,
    })
}

fn network(key: &str, text: &str) -> Result<IpNetwork> {
    text.parse().map_err(|e| Error::config(format!("{key}: {text:?}: {e}")))
}

fn addr(key: &str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::config(format!("{key}: {text:?} is no IP address")))
}
