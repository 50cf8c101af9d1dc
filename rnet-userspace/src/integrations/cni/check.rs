//! CHECK: whether all that ADD has made is there and as it was. What is not is named.

use super::{
    call::Command,
    config::Bandwidth,
    error::{Code, Error, Result},
    ports,
    serve::Session,
};
use crate::{
    controller::view,
    host::{interfaces, shaping},
};

impl Session<'_> {
    pub(super) fn check(&self) -> Result<()> {
        let changed = |what: String| Err(Error::new(Code::Changed, what));
        let Some(prev) = &self.config.prev else {
            return Err(Error::config("prevResult is missing, which CHECK needs"));
        };
        let endpoint = self.checked_endpoint()?;
        let name = &self.call.interface;
        let failed = |e: anyhow::Error| Error::new(Code::Changed, format!("{e:#}"));
        let veth = interfaces::interface(&endpoint.host_interface).map_err(failed)?;
        let network = self.daemon.ask(|client| client.engine_network(&self.network))?;
        match veth {
            None => return changed(format!("veth {} is gone", endpoint.host_interface)),
            Some(veth) if veth.part_of != network.bridge => {
                let bridge = network.bridge.unwrap_or_default();
                return changed(format!("veth {} is not on bridge {bridge}", endpoint.host_interface));
            }
            Some(_) => {}
        }
        let inside = interfaces::inside(self.call.netns()?, name).map_err(failed)?;
        let Some(inside) = inside else {
            return changed(format!("interface {name} is gone from the container"));
        };
        if !inside.is_up {
            return changed(format!("interface {name} of the container is down"));
        }
        if inside.mac != endpoint.mac {
            return changed(format!(
                "interface {name} has {} as its address, not {}",
                inside.mac, endpoint.mac
            ));
        }
        let index = prev.inside(name).map(|(index, _)| index);
        let own = prev.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == index);
        let expected = own.map(|ip| ip.address).chain(endpoint.addrs.iter().copied());
        for addr in expected {
            if !inside.addrs.contains(&addr) {
                return changed(format!("interface {name} of the container lacks address {addr}"));
            }
        }
        for route in prev.routes.iter().filter(|route| route.is_default()) {
            if let Some(gateway) = route.gateway.filter(|gateway| !inside.gateways.contains(gateway)) {
                return changed(format!("the container lacks its default route through {gateway}"));
            }
        }
        self.check_bandwidth()?;
        self.ipam.as_ref().map_or(Ok(()), |ipam| ipam.tell(Command::Check))
    }

    fn check_bandwidth(&self) -> Result<()> {
        let Bandwidth { incoming, outgoing } = self.config.bandwidth;
        if incoming.is_none() && outgoing.is_none() {
            return Ok(());
        }
        let name = &self.call.interface;
        let (sends, receives) = shaping::is_limited(self.call.netns()?, name)
            .map_err(|e| Error::new(Code::Changed, format!("{e:#}")))?;
        for (limit, is_there, what) in [(outgoing, sends, "sends"), (incoming, receives, "receives")] {
            if limit.is_some() && !is_there {
                return Err(Error::new(Code::Changed, format!("nothing limits what {name} {what}")));
            }
        }
        Ok(())
    }

    /// The container's interface on the network as the daemon knows it, with all ports published.
    pub(super) fn checked_endpoint(&self) -> Result<view::Endpoint> {
        let changed = |what: String| Err(Error::new(Code::Changed, what));
        let Some(container) = self.daemon.find(|client| client.container(&self.container))? else {
            return Err(Error::new(
                Code::UnknownContainer,
                format!("the daemon knows no container {}", self.call.container),
            ));
        };
        let on_it = container.endpoints.iter().find(|endpoint| {
            endpoint.network_id == self.network && endpoint.interface == self.call.interface
        });
        let Some(endpoint) = on_it else {
            return changed(format!(
                "container {} has no interface {} on network {}",
                container.name, self.call.interface, self.config.name
            ));
        };
        let leads_out = container.endpoints.iter().any(|endpoint| !endpoint.gateways.is_empty());
        for port in self.config.ports.iter().filter(|_| leads_out) {
            if !container.ports.iter().any(|binding| ports::is_as_asked(port, binding)) {
                return changed(format!("port {} is not published", ports::show(port)));
            }
        }
        Ok(endpoint.clone())
    }
}
