//! Endpoints: entries of the programs' tables, and the program on each veth.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, bail};
use rnet_common::{Endpoint, EndpointFlags, Mac};

use super::{
    Ebpf,
    mappings::MappingId,
    tables::{Address, FamilyTables},
};
use crate::controller::backend::{Direct, EndpointAddr, EndpointSpec, Policy};

const PROGRAM: &str = "from_container";

impl Ebpf {
    pub(super) fn add(&mut self, spec: &EndpointSpec) -> Result<()> {
        for EndpointAddr { addr, .. } in &spec.addrs {
            if addr.is_ipv6() {
                bail!("add endpoint {addr}: the datapath does not carry IPv6");
            }
        }
        // Before the entry, because what a container sends is not to get past the program; until there is an
        // entry the program drops it.
        let was_attached = self.is_known(spec)?;
        self.links.attach(&mut self.programs, PROGRAM, &spec.host_name, spec.ifindex)?;
        let added = self.add_entries(spec);
        if added.is_err() && !was_attached {
            self.links.detach(PROGRAM, spec.ifindex)?;
        }
        added
    }

    pub(super) fn forget(&mut self, spec: &EndpointSpec) -> Result<()> {
        let tables = &mut self.tables.v4;
        for addr in spec.addrs.iter().filter_map(|a| Address::of(a.addr)) {
            let Some(entry) = tables.endpoints.get(&addr)? else { continue };
            // The address may be another endpoint's by now.
            if entry.mac == Mac(spec.mac.0) {
                self.tables.mappings.release(mapping(&entry));
                tables.endpoints.remove(&addr)?;
                self.links.detach(PROGRAM, entry.ifindex)?;
            }
        }
        if spec.ifindex != 0 {
            self.links.detach(PROGRAM, spec.ifindex)?;
        }
        Ok(())
    }

    /// Removes every endpoint that is not named.
    pub(super) fn retain_endpoints(&mut self, specs: &[EndpointSpec]) -> Result<()> {
        let wanted: BTreeSet<IpAddr> =
            specs.iter().flat_map(|spec| spec.addrs.iter().map(|a| a.addr)).collect();
        for (addr, entry) in self.tables.v4.endpoints.entries()? {
            if !wanted.contains(&addr.ip()) {
                self.tables.mappings.release(mapping(&entry));
                self.tables.v4.endpoints.remove(&addr)?;
            }
        }
        self.links.retain(PROGRAM, &specs.iter().map(|spec| spec.ifindex).collect())
    }

    fn is_known(&self, spec: &EndpointSpec) -> Result<bool> {
        for addr in spec.addrs.iter().filter_map(|a| Address::of(a.addr)) {
            if self.tables.v4.endpoints.get(&addr)?.is_some_and(|entry| entry.ifindex == spec.ifindex) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn add_entries(&mut self, spec: &EndpointSpec) -> Result<()> {
        for of in &spec.addrs {
            let Some(addr) = Address::of(of.addr) else { continue };
            let wanted = entry(spec, of);
            let there = self.tables.v4.endpoints.get(&addr)?;
            if there.is_some_and(|there| {
                self.tables.mappings.is_current(mapping(&there)) && without_mapping(there) == wanted
            }) {
                continue;
            }
            let id = self.tables.mappings.take()?;
            let value = Endpoint { mapping: id.slot, generation: id.generation, ..wanted };
            if let Err(error) = self.tables.v4.endpoints.insert(&addr, &value) {
                self.tables.mappings.release(id);
                return Err(error);
            }
            if let Some(there) = there {
                self.tables.mappings.release(mapping(&there));
                if there.ifindex != spec.ifindex {
                    self.links.detach(PROGRAM, there.ifindex)?;
                }
            }
        }
        Ok(())
    }
}

/// The mappings that endpoints hold.
pub(super) fn mappings_in_use<A: Address>(tables: &FamilyTables<A>) -> Result<Vec<MappingId>> {
    Ok(tables.endpoints.entries()?.iter().map(|(_, entry)| mapping(entry)).collect())
}

fn mapping<A: Address>(entry: &Endpoint<A>) -> MappingId {
    MappingId { slot: entry.mapping, generation: entry.generation }
}

/// An entry, but for its mapping.
fn entry<A: Address>(spec: &EndpointSpec, addr: &EndpointAddr) -> Endpoint<A> {
    Endpoint {
        gateway: addr.gateway.and_then(A::of).unwrap_or_default(),
        ifindex: spec.ifindex,
        bridge: spec.bridge.index,
        network: spec.network,
        flags: flags(spec.policy, addr),
        mtu: spec.mtu,
        mac: Mac(spec.mac.0),
        gateway_mac: Mac(spec.bridge.mac.0),
        ..Endpoint::default()
    }
}

fn without_mapping<A: Address>(entry: Endpoint<A>) -> Endpoint<A> {
    Endpoint { mapping: 0, generation: 0, ..entry }
}

fn flags(Policy { icc, internal }: Policy, addr: &EndpointAddr) -> u32 {
    let bits = [
        (icc, EndpointFlags::ICC),
        (internal, EndpointFlags::INTERNAL),
        (addr.masquerade, EndpointFlags::MASQUERADE),
        (addr.direct == Direct::Published, EndpointFlags::ROUTED),
        (addr.direct == Direct::All, EndpointFlags::UNPROTECTED),
    ];
    bits.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()
}
