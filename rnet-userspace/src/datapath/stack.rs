//! `to_uplink`: on every uplink as long as there is an endpoint whose network is delivered via the host's stack, and on
//! none otherwise, since it sees all that leaves.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use nix::net::if_::if_indextoname;
use rnet_common::EndpointFlags;

use super::{Ebpf, tables::Tables};

pub(super) const TO_UPLINK: &str = "to_uplink";

/// The veths of such endpoints that an earlier daemon left.
pub(super) fn adopt(tables: &Tables) -> Result<BTreeSet<u32>> {
    let veths = tables.veths.entries()?.into_iter();
    let via_stack = veths.filter(|(_, veth)| veth.flags & EndpointFlags::VIA_STACK != 0);
    Ok(via_stack.map(|(ifindex, _)| ifindex).collect())
}

impl Ebpf {
    /// Notes whether an endpoint is such a one, before it has entries: what its container sends is to be translated
    /// from the first packet on.
    pub(super) fn note_via_stack(&mut self, ifindex: u32, is_via_stack: bool) -> Result<()> {
        if !is_via_stack {
            return self.forget_via_stack(ifindex);
        }
        if self.via_stack.is_empty() {
            for (uplink, _) in self.tables.uplinks.entries()? {
                // It may be gone, and nobody has heard of it yet.
                let Ok(name) = if_indextoname(uplink) else { continue };
                let name = name.to_str().with_context(|| format!("the name of interface {uplink}"))?;
                self.links.attach(&mut self.programs, TO_UPLINK, name, uplink)?;
            }
        }
        self.via_stack.insert(ifindex);
        Ok(())
    }

    /// Notes that an endpoint is gone, with its entries.
    pub(super) fn forget_via_stack(&mut self, ifindex: u32) -> Result<()> {
        if self.via_stack.remove(&ifindex) { self.leave_uplinks() } else { Ok(()) }
    }

    /// Takes the program off the uplinks if nothing needs it.
    pub(super) fn leave_uplinks(&mut self) -> Result<()> {
        if self.via_stack.is_empty() { self.links.retain(TO_UPLINK, &self.via_stack) } else { Ok(()) }
    }
}
