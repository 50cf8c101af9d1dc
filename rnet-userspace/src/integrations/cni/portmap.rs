//! Ports of an interface that a plugin before this one has made: rnet serves its veth as it is.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{
    error::{Code, Error, Result},
    result::{Interface, Ip, Outcome},
    serve::Session,
};
use crate::{
    controller::{
        model::engine::Engine,
        request::{EngineContainer, EngineInterface, EngineNetwork},
        view::SubnetView,
    },
    host::interfaces,
};

/// What was made.
struct Made<'a> {
    inside: &'a Interface,
    ips: Vec<&'a Ip>,
    veth: &'a str,
    bridge: String,
}

impl Session<'_> {
    /// Publishes the ports, and says what was said before.
    pub(super) fn add_ports(&self) -> Result<Value> {
        let prev = self.config.prev.as_ref().ok_or_else(|| {
            Error::config(
                "prevResult is missing: in mode portmap rnet stands behind a plugin that makes the interface",
            )
        })?;
        if !self.config.ports.is_empty() {
            self.check_netns()?;
            let made = self.made(prev)?;
            self.other_interfaces()?;
            let wanted = self.borrowed(&made)?;
            self.follow(&made)?;
            if let Err(error) = self.daemon.ask(|client| client.add_to_engine_container(&wanted)) {
                let error = Error::from(error);
                return Err(match self.forget_network() {
                    Ok(()) => error,
                    Err(left) => error.with_details(format!("forgetting the network failed, too: {left}")),
                });
            }
        }
        let mut said = self.config.prev_json.clone();
        said["cniVersion"] = self.version.to_string().into();
        Ok(said)
    }

    fn made<'a>(&self, prev: &'a Outcome) -> Result<Made<'a>> {
        let (index, inside) = prev.inside(&self.call.interface).ok_or_else(|| {
            Error::config("prevResult names no interface in the container, whose ports could be published")
        })?;
        let ips: Vec<&Ip> = prev.ips.iter().filter(|ip| ip.interface.is_none_or(|of| of == index)).collect();
        if ips.is_empty() {
            return Err(Error::config(format!("prevResult gives {} no address", inside.name)));
        }
        for interface in prev.interfaces.iter().filter(|interface| interface.sandbox.is_none()) {
            let seen = interfaces::interface(&interface.name);
            let seen = seen.map_err(|e| Error::new(Code::Failed, format!("{e:#}")))?;
            let bridge = seen.filter(|seen| !seen.is_bridge).and_then(|seen| seen.part_of);
            if let Some(bridge) = bridge {
                return Ok(Made { inside, ips, veth: &interface.name, bridge });
            }
        }
        Err(Error::config(
            "prevResult names no veth on a bridge of this host: rnet publishes ports of what the bridge plugin makes",
        ))
    }

    fn follow(&self, made: &Made<'_>) -> Result<()> {
        let known = self.daemon.find(|client| client.engine_network(&self.network))?;
        let mut subnets = known.map(|known| known.subnets).unwrap_or_default();
        for ip in &made.ips {
            let subnet = IpNetwork::new(ip.address.network(), ip.address.prefix());
            let subnet = subnet.map_err(|e| Error::config(format!("prevResult: {}: {e}", ip.address)))?;
            if ip.gateway.is_none() {
                return Err(Error::config(format!(
                    "prevResult gives {} no gateway, through which {} could answer",
                    ip.address, made.inside.name
                )));
            }
            let view = SubnetView { subnet, ip_range: None, gateway: ip.gateway, aux: Default::default() };
            match subnets.iter_mut().find(|known| known.subnet == subnet) {
                Some(known) => *known = view,
                None => subnets.push(view),
            }
        }
        let network = EngineNetwork {
            engine: Engine::Cni,
            id: self.network.clone(),
            name: self.config.name.clone(),
            bridge: made.bridge.clone(),
            subnets,
            internal: false,
            options: self.config.options.clone(),
            labels: Default::default(),
        };
        self.daemon.ask(|client| client.follow_network(&network))?;
        Ok(())
    }

    fn borrowed(&self, made: &Made<'_>) -> Result<EngineContainer> {
        let mac = made.inside.mac.as_deref().map(str::parse).transpose();
        let mac = mac.map_err(|e: String| Error::config(format!("prevResult: {e}")))?;
        let mac =
            mac.ok_or_else(|| Error::config(format!("prevResult gives {} no mac", made.inside.name)))?;
        let interface = EngineInterface {
            network: self.network.clone(),
            interface: made.inside.name.clone(),
            veth: Some(made.veth.to_owned()),
            mac: Some(mac),
            addrs: made.ips.iter().map(|ip| ip.address).collect(),
            gateways: Some(made.ips.iter().filter_map(|ip| ip.gateway).collect()),
            aliases: self.config.aliases.clone(),
            gw_priority: self.priority(),
            ..EngineInterface::default()
        };
        Ok(self.with_interface(interface, self.config.ports.clone()))
    }

    pub(super) fn check_ports(&self) -> Result<()> {
        if self.config.ports.is_empty() {
            return Ok(());
        }
        let Some(prev) = &self.config.prev else {
            return Err(Error::config("prevResult is missing, which CHECK needs"));
        };
        let made = self.made(prev)?;
        let endpoint = self.checked_endpoint()?;
        let changed = |what: String| Err(Error::new(Code::Changed, what));
        if endpoint.host_interface != made.veth {
            return changed(format!("ports lead to veth {}, not {}", endpoint.host_interface, made.veth));
        }
        if let Some(ip) = made.ips.iter().find(|ip| !endpoint.addrs.contains(&ip.address)) {
            return changed(format!("ports do not lead to address {}", ip.address));
        }
        Ok(())
    }
}
