//! Networks that are delivered via the host's stack, which has to forward for that. Whether it does is the host's affair:
//! it is asked for when such a network is made, and missed aloud when it has gone since.

use std::collections::BTreeSet;

use super::{
    Controller,
    backend::{Datapath, Host, Uplink},
    error::{Error, Result},
    model::options::{NetworkOptions, VIA_STACK},
};
use crate::store::schema::Network;

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Refuses such a network where the stack would forward nothing of it.
    pub(super) fn check_forwarding(&self, network: &Network) -> Result<()> {
        let off = self.forwarding_off(network, &self.wanted_uplinks()?)?;
        if off.is_empty() {
            return Ok(());
        }
        let name = &network.name;
        Err(Error::Invalid(format!(
            "network {name} with option {VIA_STACK} needs the host to forward between its uplinks and the network, \
             which it does not: set {}",
            settings(&off)
        )))
    }

    /// Warns of such networks that the stack forwards nothing of.
    pub(super) fn warn_of_forwarding(&self) -> Result<()> {
        let Some(uplinks) = &self.uplinks else { return Ok(()) };
        for network in self.machine.state.networks.values() {
            // Options that cannot be understood are told of elsewhere.
            if !NetworkOptions::parse(&network.options).is_ok_and(|options| options.via_stack) {
                continue;
            }
            let off = self.forwarding_off(network, uplinks)?;
            if !off.is_empty() {
                tracing::warn!(
                    network = network.name,
                    "{VIA_STACK} is on, and the host does not forward between its uplinks and the network: set {}",
                    settings(&off)
                );
            }
        }
        Ok(())
    }

    fn forwarding_off(&self, network: &Network, uplinks: &[Uplink]) -> Result<BTreeSet<String>> {
        let mut off = BTreeSet::new();
        for ipv6 in [false, true] {
            if network.subnets.iter().any(|subnet| subnet.subnet.is_ipv6() == ipv6) {
                off.extend(self.machine.host.forwarding_off(uplinks, ipv6)?);
            }
        }
        Ok(off)
    }
}

fn settings(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| format!("{name}=1")).collect::<Vec<_>>().join(", ")
}
