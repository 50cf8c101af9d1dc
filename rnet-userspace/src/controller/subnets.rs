//! The subnets of a network: those that were asked for, or the next free ones.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{
    Controller,
    backend::{BridgeState, Datapath, Host},
    error::{Error, Result},
    ipam,
    model::{
        options::{GatewayMode, NetworkOptions},
        subnet::{check_gateway, check_ip_range, check_subnet, overlap},
    },
    request::{CreateNetwork, FreeSubnet, Subnet},
    view::SubnetView,
};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// The subnets of a network to be created: one of each address family that it is to have.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they cannot be had as asked, [`Error::Conflict`] when they are in use or there are
    /// none left.
    pub(super) fn subnets(
        &self,
        request: &CreateNetwork,
        options: &NetworkOptions,
        bridge: Option<&BridgeState>,
    ) -> Result<Vec<SubnetView>> {
        let (v6, v4): (Vec<&Subnet>, Vec<&Subnet>) = request.subnets.iter().partition(|s| is_ipv6(s));
        if let Some(asked) = v6.first().filter(|_| !request.ipv6) {
            return Err(Error::Invalid(format!(
                "{} is an IPv6 one, and network {} has no IPv6: add --ipv6, or leave it out",
                name(asked),
                request.name
            )));
        }
        let ipv4 = request.ipv4.unwrap_or(true);
        if !ipv4 && !request.ipv6 {
            return Err(Error::Invalid("IPv4 or IPv6 must be enabled".to_owned()));
        }
        if let Some(asked) = v4.first().filter(|_| !ipv4) {
            return Err(Error::Invalid(format!(
                "{} is an IPv4 one, and network {} has no IPv4: leave it out",
                name(asked),
                request.name
            )));
        }
        let mut subnets = Vec::new();
        if ipv4 {
            subnets.push(self.subnet(&v4, options.gateway_mode_v4, false, bridge)?);
        }
        if request.ipv6 {
            subnets.push(self.subnet(&v6, options.gateway_mode_v6, true, bridge)?);
        }
        Ok(subnets)
    }

    /// A subnet that a network can be made with.
    ///
    /// # Errors
    /// As [`Controller::subnets`].
    pub fn free_subnet(&self, asked: &FreeSubnet) -> Result<IpNetwork> {
        let promised = || asked.avoid.iter().map(|net| (*net, format!("pool {net}"))).collect();
        match asked.subnet {
            Some(subnet) => self.check_free(subnet, None, promised()),
            None => self.next_subnet(asked.ipv6, promised()),
        }
    }

    fn subnet(
        &self,
        asked: &[&Subnet],
        mode: GatewayMode,
        ipv6: bool,
        bridge: Option<&BridgeState>,
    ) -> Result<SubnetView> {
        let asked = match asked {
            [] => &Subnet::default(),
            [one] => one,
            _ => {
                return Err(Error::Invalid(
                    "bridge driver doesn't support multiple subnets of one address family".to_owned(),
                ));
            }
        };
        // An address that the bridge has already is the gateway.
        let mut known = bridge.into_iter().flat_map(|bridge| &bridge.addrs).filter(|a| a.is_ipv6() == ipv6);
        let known = known.find(|addr| asked.subnet.is_none_or(|subnet| subnet.contains(addr.ip())));
        let subnet = match asked.subnet {
            Some(subnet) => self.check_free(subnet, bridge, Vec::new())?,
            None if asked.ip_range.is_some() || asked.gateway.is_some() || !asked.aux.is_empty() => {
                return Err(Error::Invalid(
                    "every ip-range, gateway or aux-address must have a corresponding subnet".to_owned(),
                ));
            }
            None => match known {
                Some(addr) => self.check_free(subnet_of(*addr)?, bridge, Vec::new())?,
                None => self.next_subnet(ipv6, Vec::new())?,
            },
        };
        if let Some(range) = asked.ip_range {
            check_ip_range(subnet, range)?;
        }
        let gateway = match (mode, asked.gateway) {
            (GatewayMode::Isolated, None) => None,
            (GatewayMode::Isolated, Some(gateway)) => {
                return Err(Error::Invalid(format!(
                    "invalid gateway {gateway}: in gateway mode 'isolated' the bridge has no address: leave it out"
                )));
            }
            (_, gateway) => {
                let known = || known.map(|addr| addr.ip());
                Some(gateway.or_else(known).unwrap_or_else(|| ipam::default_gateway(subnet)))
            }
        };
        if let Some(gateway) = gateway {
            check_gateway(subnet, gateway)?;
        }
        for (name, addr) in &asked.aux {
            check_reserved(subnet, gateway, name, *addr)?;
        }
        Ok(SubnetView { subnet, ip_range: asked.ip_range, gateway, aux: asked.aux.clone() })
    }

    /// `promised` are in the way as well, each with its name.
    fn check_free(
        &self,
        subnet: IpNetwork,
        bridge: Option<&BridgeState>,
        mut promised: Vec<(IpNetwork, String)>,
    ) -> Result<IpNetwork> {
        check_subnet(subnet)?;
        promised.extend(self.in_use(bridge)?);
        match promised.iter().find(|(taken, _)| overlap(*taken, subnet)) {
            Some((_, what)) => Err(Error::Conflict(format!(
                "invalid pool request: Pool overlaps with other one on this address space: \
                 subnet {subnet} overlaps {what}: choose another subnet"
            ))),
            None => Ok(subnet),
        }
    }

    fn next_subnet(&self, ipv6: bool, promised: Vec<(IpNetwork, String)>) -> Result<IpNetwork> {
        let taken = self.in_use(None)?.into_iter().chain(promised);
        let taken: Vec<IpNetwork> = taken.map(|(net, _)| net).collect();
        let pools = self.config.pools.iter().filter(|(pool, _)| pool.is_ipv6() == ipv6);
        ipam::next_subnet(&pools.copied().collect::<Vec<_>>(), &taken).ok_or_else(|| {
            Error::Conflict(
                "all predefined address pools have been fully subnetted: remove a network, or name a --subnet"
                    .to_owned(),
            )
        })
    }

    /// What no subnet may overlap, each with its name. What leads to `bridge` is no obstacle.
    fn in_use(&self, bridge: Option<&BridgeState>) -> Result<Vec<(IpNetwork, String)>> {
        let own = bridge.map(|bridge| bridge.addrs.as_slice()).unwrap_or_default();
        let mut taken = Vec::new();
        for network in self.machine.state.networks.values() {
            taken.extend(
                network
                    .subnets
                    .iter()
                    .map(|s| (s.subnet, format!("network {} ({})", network.name, s.subnet))),
            );
        }
        for route in self.machine.host.routes()? {
            // 0.0.0.0/1 and 128.0.0.0/1 are how VPNs write a default route; no subnet could avoid both.
            let leads_to_it = own.iter().any(|a| a.network() == route.ip() && a.prefix() == route.prefix());
            if route.prefix() > 1 && !leads_to_it {
                taken.push((route, format!("route {route} of this host")));
            }
        }
        let mut addresses = self.machine.host.addresses()?;
        addresses.retain(|addr| !own.iter().any(|own| own.ip() == *addr));
        taken.extend(addresses.into_iter().map(|addr| (addr.into(), format!("address {addr} of this host"))));
        Ok(taken)
    }
}

fn subnet_of(addr: IpNetwork) -> Result<IpNetwork> {
    IpNetwork::new(addr.network(), addr.prefix())
        .map_err(|e| Error::Invalid(format!("address {addr} of the bridge is in no subnet: {e}")))
}

/// An address that no container is to be given.
fn check_reserved(subnet: IpNetwork, gateway: Option<IpAddr>, name: &str, addr: IpAddr) -> Result<()> {
    if !ipam::is_usable(subnet, addr) {
        return Err(Error::Invalid(format!("no matching subnet for aux-address {name}={addr}")));
    }
    if gateway == Some(addr) {
        return Err(Error::Conflict(format!(
            "failed to allocate secondary ip address ({name}:{addr}): Address already in use: it is the gateway's"
        )));
    }
    Ok(())
}

fn name(asked: &Subnet) -> String {
    match (asked.subnet, asked.gateway, asked.ip_range) {
        (Some(subnet), ..) => format!("subnet {subnet}"),
        (None, Some(gateway), _) => format!("gateway {gateway}"),
        (None, None, Some(range)) => format!("ip-range {range}"),
        (None, None, None) => "an address".to_owned(),
    }
}

fn is_ipv6(subnet: &Subnet) -> bool {
    // A gateway or a range without a subnet is refused later, but for what it is.
    subnet
        .subnet
        .or(subnet.ip_range)
        .map(|net| net.is_ipv6())
        .unwrap_or_else(|| subnet.gateway.is_some_and(|addr| addr.is_ipv6()))
}
