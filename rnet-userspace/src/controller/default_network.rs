//! What the default network is to be like, and whether it is.

use std::collections::BTreeMap;

use super::{
    ipam,
    model::options,
    request::{CreateNetwork, Subnet},
    view::SubnetView,
};
use crate::store::schema::Network;

/// The default network's interface.
const BRIDGE: &str = "rnet0";

/// What an instance is told about its default network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultNetwork {
    /// Its IPv4 subnet, with the bridge's address and the part that containers' addresses come from; absent for
    /// what it has, or the next free pool.
    pub subnet: Option<Subnet>,
    /// It has IPv6.
    pub ipv6: bool,
    /// Its IPv6 subnet likewise.
    pub subnet_v6: Option<Subnet>,
    /// MTU; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// Its containers may talk to one another.
    pub icc: bool,
    /// What leaves the host gets the uplink's address.
    pub masquerade: bool,
}

impl Default for DefaultNetwork {
    fn default() -> Self {
        Self { subnet: None, ipv6: false, subnet_v6: None, mtu: None, icc: true, masquerade: true }
    }
}

impl DefaultNetwork {
    /// The request that makes it. Where nothing is said about addresses it keeps those that it has (`there`).
    pub(super) fn request(&self, name: &str, there: Option<&Network>) -> CreateNetwork {
        let subnet = |asked: &Option<Subnet>, ipv6: bool| {
            let there = there.iter().flat_map(|n| &n.subnets).find(|s| s.subnet.is_ipv6() == ipv6);
            asked.clone().or_else(|| there.map(kept))
        };
        let v6 = if self.ipv6 { subnet(&self.subnet_v6, true) } else { None };
        CreateNetwork {
            name: name.to_owned(),
            ipv6: self.ipv6,
            subnets: subnet(&self.subnet, false).into_iter().chain(v6).collect(),
            options: self.options(),
            ..CreateNetwork::default()
        }
    }

    fn options(&self) -> BTreeMap<String, String> {
        let said = [
            (options::ENABLE_ICC, (!self.icc).then(|| false.to_string())),
            (options::ENABLE_IP_MASQUERADE, (!self.masquerade).then(|| false.to_string())),
            (options::MTU, self.mtu.map(|mtu| mtu.to_string())),
        ];
        let said = said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        options::with_bridge(BRIDGE).into_iter().chain(said).collect()
    }
}

/// Whether the network is what the request would make.
pub(super) fn is_as_asked(network: &Network, request: &CreateNetwork) -> bool {
    let families = 1 + usize::from(request.ipv6);
    network.options == request.options
        && network.subnets.len() == families
        && request.subnets.iter().all(|asked| network.subnets.iter().any(|there| is_same(there, asked)))
}

fn is_same(there: &SubnetView, asked: &Subnet) -> bool {
    let gateway = asked.gateway.unwrap_or_else(|| ipam::default_gateway(there.subnet));
    asked.subnet == Some(there.subnet) && asked.ip_range == there.ip_range && there.gateway == Some(gateway)
}

/// A subnet without what only the configuration gives it.
fn kept(there: &SubnetView) -> Subnet {
    Subnet { subnet: Some(there.subnet), gateway: there.gateway, ..Subnet::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::model::options::NetworkOptions;

    #[test]
    fn only_what_is_not_the_default_becomes_an_option() {
        let plain = DefaultNetwork::default().request("bridge", None);
        assert_eq!((plain.options, plain.subnets), (options::with_bridge("rnet0"), Vec::new()));
        let other =
            DefaultNetwork { icc: false, masquerade: false, mtu: Some(1400), ..DefaultNetwork::default() };
        let parsed = NetworkOptions::parse(&other.request("bridge", None).options).unwrap();
        assert_eq!((parsed.icc, parsed.masquerade, parsed.mtu), (false, false, Some(1400)));
        assert_eq!(parsed.bridge.as_deref(), Some("rnet0"));
    }
}
