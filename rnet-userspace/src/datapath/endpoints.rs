//! Endpoints: entries of the programs' tables, and the program on each veth.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use anyhow::Result;
use rnet_common::{Endpoint, EndpointFlags, Mac, Veth};

use super::{
    Ebpf,
    mappings::{MappingId, Mappings},
    tables::{Address, FamilyTables},
};
use crate::controller::backend::{Direct, EndpointAddr, EndpointSpec};

const PROGRAM: &str = "from_container";

impl Ebpf {
    pub(super) fn add(&mut self, spec: &EndpointSpec) -> Result<()> {
        let before = self.tables.veths.get(&spec.ifindex)?;
        self.note_via_stack(spec.ifindex, spec.policy.via_stack)?;
        // Before the entries, because what a container sends is not to get past the program; until there are
        // entries the program drops it.
        self.links.attach(&mut self.programs, PROGRAM, &spec.host_name, spec.ifindex)?;
        let added = self.add_entries(spec);
        if added.is_err() && before.is_none() {
            self.drop_veth(spec.ifindex)?;
        }
        added
    }

    pub(super) fn forget(&mut self, spec: &EndpointSpec) -> Result<()> {
        for EndpointAddr { addr, .. } in &spec.addrs {
            let mappings = &self.tables.mappings;
            let ifindex = match addr {
                IpAddr::V4(_) => self.tables.v4.forget_endpoint(mappings, spec, *addr)?,
                IpAddr::V6(_) => self.tables.v6.forget_endpoint(mappings, spec, *addr)?,
            };
            if let Some(ifindex) = ifindex {
                self.quotas.forget(addr);
                self.drop_veth(ifindex)?;
            }
        }
        if spec.ifindex != 0 {
            self.drop_veth(spec.ifindex)?;
        }
        Ok(())
    }

    /// Removes every endpoint that is not named.
    pub(super) fn retain_endpoints(&mut self, specs: &[EndpointSpec]) -> Result<()> {
        let addrs: HashSet<IpAddr> =
            specs.iter().flat_map(|spec| spec.addrs.iter().map(|a| a.addr)).collect();
        self.quotas.retain(&addrs);
        self.tables.v4.retain_endpoints(&self.tables.mappings, &addrs)?;
        self.tables.v6.retain_endpoints(&self.tables.mappings, &addrs)?;
        let ifindexes: BTreeSet<u32> = specs.iter().map(|spec| spec.ifindex).collect();
        for (ifindex, _) in self.tables.veths.entries()? {
            if !ifindexes.contains(&ifindex) {
                self.tables.veths.remove(&ifindex)?;
            }
        }
        self.via_stack.retain(|ifindex| ifindexes.contains(ifindex));
        self.leave_uplinks()?;
        self.links.retain(PROGRAM, &ifindexes)
    }

    fn add_entries(&mut self, spec: &EndpointSpec) -> Result<()> {
        let has_v6 = spec.addrs.iter().any(|a| a.addr.is_ipv6());
        let bits = [(has_v6, EndpointFlags::IPV6), (spec.policy.via_stack, EndpointFlags::VIA_STACK)];
        let flags = bits.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum();
        self.tables.veths.insert(&spec.ifindex, &Veth::new(Mac(spec.mac.0), flags))?;
        self.tables.frame_veths.set(spec.ifindex, spec.takes_frames)?;
        for addr in &spec.addrs {
            let room = self.quotas.note(addr.addr, spec.policy.max_flows);
            let mappings = &mut self.tables.mappings;
            let before = match addr.addr {
                IpAddr::V4(_) => self.tables.v4.add_endpoint(mappings, spec, addr, room)?,
                IpAddr::V6(_) => self.tables.v6.add_endpoint(mappings, spec, addr, room)?,
            };
            if let Some(ifindex) = before.filter(|before| *before != spec.ifindex) {
                self.drop_veth(ifindex)?;
            }
        }
        Ok(())
    }

    fn drop_veth(&mut self, ifindex: u32) -> Result<()> {
        self.tables.veths.remove(&ifindex)?;
        self.tables.frame_veths.set(ifindex, false)?;
        self.forget_via_stack(ifindex)?;
        self.links.detach(PROGRAM, ifindex)
    }
}

impl<A: Address> FamilyTables<A> {
    /// Adds an endpoint under an address of this family, or replaces one. Says on which interface that was. The container of
    /// a new one may open as many flows as there is `room` for.
    fn add_endpoint(
        &mut self,
        mappings: &mut Mappings,
        spec: &EndpointSpec,
        addr: &EndpointAddr,
        room: i32,
    ) -> Result<Option<u32>> {
        let Some(key) = A::of(addr.addr) else { return Ok(None) };
        let wanted = entry(spec, addr);
        let there = self.endpoints.get(&key)?;
        if there.is_some_and(|there| mappings.is_current(mapping(&there)) && without_mapping(there) == wanted)
        {
            return Ok(None);
        }
        let id = mappings.take()?;
        mappings.give_room(id, room.wrapping_sub(mappings.room(id)));
        let value = Endpoint { mapping: id.slot, generation: id.generation, ..wanted };
        if let Err(error) = self.endpoints.insert(&key, &value) {
            mappings.release(id);
            return Err(error);
        }
        Ok(there.map(|there| {
            mappings.release(mapping(&there));
            there.ifindex
        }))
    }

    /// Forgets an endpoint, and says on which interface it was.
    fn forget_endpoint(
        &mut self,
        mappings: &Mappings,
        spec: &EndpointSpec,
        addr: IpAddr,
    ) -> Result<Option<u32>> {
        let Some(key) = A::of(addr) else { return Ok(None) };
        // The address may be another endpoint's by now.
        let Some(there) = self.endpoints.get(&key)?.filter(|there| there.mac == Mac(spec.mac.0)) else {
            return Ok(None);
        };
        mappings.release(mapping(&there));
        self.endpoints.remove(&key)?;
        Ok(Some(there.ifindex))
    }

    fn retain_endpoints(&mut self, mappings: &Mappings, addrs: &HashSet<IpAddr>) -> Result<()> {
        for (addr, there) in self.endpoints.entries()? {
            if !addrs.contains(&addr.ip()) {
                mappings.release(mapping(&there));
                self.endpoints.remove(&addr)?;
            }
        }
        Ok(())
    }

    /// The mappings that endpoints hold, with the endpoints' addresses.
    pub(super) fn endpoint_mappings(&self) -> Result<Vec<(IpAddr, MappingId)>> {
        Ok(self.endpoints.entries()?.iter().map(|(addr, entry)| (addr.ip(), mapping(entry))).collect())
    }
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
        flags: flags(spec, addr),
        mtu: spec.mtu,
        mac: Mac(spec.mac.0),
        gateway_mac: Mac(spec.bridge.mac.0),
        ..Endpoint::default()
    }
}

fn without_mapping<A: Address>(entry: Endpoint<A>) -> Endpoint<A> {
    Endpoint { mapping: 0, generation: 0, ..entry }
}

fn flags(spec: &EndpointSpec, addr: &EndpointAddr) -> u32 {
    let bits = [
        (spec.policy.icc, EndpointFlags::ICC),
        (spec.policy.internal, EndpointFlags::INTERNAL),
        (spec.policy.via_stack, EndpointFlags::VIA_STACK),
        (spec.policy.exempts, EndpointFlags::EXEMPTS),
        (addr.masquerade, EndpointFlags::MASQUERADE),
        (addr.direct == Direct::Published, EndpointFlags::ROUTED),
        (addr.direct == Direct::All, EndpointFlags::UNPROTECTED),
    ];
    bits.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()
}
