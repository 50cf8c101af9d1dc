//! Published ports, and their hold on the host's own programs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result, bail};
use rnet_common::{Backend, Be16, HeldKey, PortKey};

use super::{
    Ebpf,
    flows::Snapshot,
    mappings::MappingId,
    tables::{Address, FamilyTables, Table, Tables},
};
use crate::controller::{
    backend::PortCount,
    model::{Binding, HostPort, Protocol},
};

/// Where a published port leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lead {
    addr: IpAddr,
    port: u16,
    id: MappingId,
}

impl Lead {
    /// Whether it leads from a container's own address to itself: no port of the host.
    fn is_routed(&self, host: &HostPort) -> bool {
        self.addr == host.addr
    }

    fn is_to(&self, binding: &Binding) -> bool {
        (self.addr, self.port) == (binding.addr, binding.port)
    }
}

impl Ebpf {
    /// Publishes all or none.
    pub(super) fn publish_all(&mut self, bindings: &[Binding]) -> Result<()> {
        let mut done = Vec::new();
        for binding in bindings {
            if let Err(error) = self.publish_one(binding, &mut done) {
                let error = error.context(format!("publish port {}", show(&binding.host)));
                return Err(match self.withdraw(done) {
                    Ok(()) => error,
                    Err(undo) => error.context(format!("undoing what was done failed too: {undo:#}")),
                });
            }
        }
        for (_, before) in done {
            if let Some(before) = before {
                self.tables.mappings.release(before.id);
            }
        }
        Ok(())
    }

    /// Notes in `done` where the port led before.
    fn publish_one(&mut self, binding: &Binding, done: &mut Vec<(HostPort, Option<Lead>)>) -> Result<()> {
        let there = self.tables.port(&binding.host)?;
        if there.is_some_and(|there| there.is_to(binding) && self.tables.mappings.is_current(there.id)) {
            return Ok(());
        }
        let id = self.tables.mappings.take()?;
        let lead = Lead { addr: binding.addr, port: binding.port, id };
        let held = match lead.is_routed(&binding.host) {
            true => Ok(()),
            false => self.held.add(&mut self.tables.held, &binding.host),
        };
        if let Err(error) = held.and_then(|()| self.tables.set_port(&binding.host, &lead)) {
            self.tables.mappings.release(id);
            if there.is_none() {
                self.held.remove(&mut self.tables.held, &binding.host)?;
            }
            return Err(error);
        }
        done.push((binding.host, there));
        Ok(())
    }

    fn withdraw(&mut self, done: Vec<(HostPort, Option<Lead>)>) -> Result<()> {
        for (host, before) in done.into_iter().rev() {
            let mistaken = self.tables.port(&host)?;
            match before {
                Some(before) => self.tables.set_port(&host, &before)?,
                None => self.remove_port(&host)?,
            }
            if let Some(mistaken) = mistaken {
                self.tables.mappings.release(mistaken.id);
            }
        }
        Ok(())
    }

    pub(super) fn unpublish_all(&mut self, bindings: &[Binding]) -> Result<()> {
        for binding in bindings {
            if self.tables.port(&binding.host)?.is_some_and(|there| there.is_to(binding)) {
                self.remove_port(&binding.host)
                    .with_context(|| format!("withdraw port {}", show(&binding.host)))?;
            }
        }
        Ok(())
    }

    /// Withdraws every port that is not named.
    pub(super) fn retain_ports(&mut self, bindings: &[Binding]) -> Result<()> {
        let wanted: HashMap<HostPort, &Binding> = bindings.iter().map(|b| (b.host, b)).collect();
        for (host, lead) in self.tables.ports()? {
            if !wanted.get(&host).is_some_and(|binding| lead.is_to(binding)) {
                self.remove_port(&host)?;
            }
        }
        Ok(())
    }

    /// The counts of ports, in their order.
    pub(super) fn counts(&self, bindings: &[Binding]) -> Result<Vec<PortCount>> {
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let mut live = Snapshot::take(&self.tables.v4.flows)?.traffic();
        live.extend(Snapshot::take(&self.tables.v6.flows)?.traffic());
        let mut counts = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let Some(there) = self.tables.port(&binding.host)?.filter(|there| there.is_to(binding)) else {
                bail!("port {} is not published", show(&binding.host));
            };
            let (packets, bytes) = live.get(&there.id).copied().unwrap_or_default();
            let ended = self.tables.mappings.count(there.id);
            counts.push(PortCount { packets: ended.packets + packets, bytes: ended.bytes + bytes, ..ended });
        }
        Ok(counts)
    }

    fn remove_port(&mut self, host: &HostPort) -> Result<()> {
        let Some(there) = self.tables.port(host)? else { return Ok(()) };
        self.tables.mappings.release(there.id);
        self.tables.clear_port(host)?;
        self.held.remove(&mut self.tables.held, host)
    }
}

impl Tables {
    fn port(&self, host: &HostPort) -> Result<Option<Lead>> {
        match host.addr {
            IpAddr::V4(_) => self.v4.port(host),
            IpAddr::V6(_) => self.v6.port(host),
        }
    }

    fn set_port(&mut self, host: &HostPort, lead: &Lead) -> Result<()> {
        match host.addr {
            IpAddr::V4(_) => self.v4.set_port(host, lead),
            IpAddr::V6(_) => self.v6.set_port(host, lead),
        }
    }

    fn clear_port(&mut self, host: &HostPort) -> Result<()> {
        match host.addr {
            IpAddr::V4(_) => self.v4.clear_port(host),
            IpAddr::V6(_) => self.v6.clear_port(host),
        }
    }

    fn ports(&self) -> Result<Vec<(HostPort, Lead)>> {
        let mut ports = self.v4.ports()?;
        ports.extend(self.v6.ports()?);
        Ok(ports)
    }

    /// The mappings that published ports hold.
    pub(super) fn port_mappings(&self) -> Result<Vec<MappingId>> {
        Ok(self.ports()?.iter().map(|(_, lead)| lead.id).collect())
    }
}

impl<A: Address> FamilyTables<A> {
    fn port(&self, host: &HostPort) -> Result<Option<Lead>> {
        Ok(self.ports.get(&key::<A>(host)?)?.as_ref().map(lead))
    }

    fn set_port(&mut self, host: &HostPort, lead: &Lead) -> Result<()> {
        let addr = A::of(lead.addr).context("a port leads to an address of its own family")?;
        let backend = Backend::new(addr, Be16::new(lead.port), lead.id.slot, lead.id.generation);
        self.ports.insert(&key(host)?, &backend)
    }

    fn clear_port(&mut self, host: &HostPort) -> Result<()> {
        self.ports.remove(&key(host)?)
    }

    fn ports(&self) -> Result<Vec<(HostPort, Lead)>> {
        let named = |(key, backend): &(PortKey<A>, Backend<A>)| {
            let protocol = Protocol::from_number(key.proto)?;
            Some((HostPort { addr: key.addr.ip(), port: key.port.get(), protocol }, lead(backend)))
        };
        Ok(self.ports.entries()?.iter().filter_map(named).collect())
    }
}

fn lead<A: Address>(backend: &Backend<A>) -> Lead {
    let id = MappingId { slot: backend.mapping, generation: backend.generation };
    Lead { addr: backend.addr.ip(), port: backend.port.get(), id }
}

fn key<A: Address>(host: &HostPort) -> Result<PortKey<A>> {
    let addr = A::of(host.addr).context("a port is kept in the table of its family")?;
    Ok(PortKey::new(addr, Be16::new(host.port), host.protocol.number()))
}

/// On which addresses each port is published: a host program that binds every address clashes with any.
#[derive(Default)]
pub(super) struct HeldPorts(BTreeMap<(u16, u8, bool), BTreeSet<IpAddr>>);

impl HeldPorts {
    /// What the pinned tables say is published, and the table of held ports made to agree.
    pub(super) fn adopt(tables: &mut Tables) -> Result<Self> {
        let mut held = Self::default();
        for (host, lead) in tables.ports()? {
            if !lead.is_routed(&host) {
                held.add(&mut tables.held, &host)?;
            }
        }
        for (key, _) in tables.held.entries()? {
            if !held.0.contains_key(&(key.port.get(), key.proto, key.v6 != 0)) {
                tables.held.remove(&key)?;
            }
        }
        Ok(held)
    }

    fn add(&mut self, table: &mut Table<HeldKey, u32>, host: &HostPort) -> Result<()> {
        let addrs = self.0.entry(Self::index(host)).or_default();
        addrs.insert(host.addr);
        table.insert(&held_key(host), &count(addrs))
    }

    fn remove(&mut self, table: &mut Table<HeldKey, u32>, host: &HostPort) -> Result<()> {
        let index = Self::index(host);
        let Some(addrs) = self.0.get_mut(&index) else { return Ok(()) };
        addrs.remove(&host.addr);
        if addrs.is_empty() {
            self.0.remove(&index);
            return table.remove(&held_key(host));
        }
        table.insert(&held_key(host), &count(addrs))
    }

    fn index(host: &HostPort) -> (u16, u8, bool) {
        (host.port, host.protocol.number(), host.addr.is_ipv6())
    }
}

fn count(addrs: &BTreeSet<IpAddr>) -> u32 {
    u32::try_from(addrs.len()).unwrap_or(u32::MAX)
}

fn held_key(host: &HostPort) -> HeldKey {
    HeldKey { port: Be16::new(host.port), proto: host.protocol.number(), v6: host.addr.is_ipv6().into() }
}

fn show(host: &HostPort) -> String {
    format!("{}/{}", SocketAddr::from((host.addr, host.port)), host.protocol)
}
