//! Published ports, and their hold on the host's own programs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result, bail};
use rnet_common::{Backend, Be16, HeldKey, PortKey};

use super::{
    Ebpf, flows,
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
    /// Number of the list of sources; 0 for anyone.
    sources: u32,
    /// Somebody else keeps the port from the host's programs.
    unheld: bool,
}

/// A port of the host, and where it is to lead instead.
#[derive(Clone, Copy, Debug)]
struct Change {
    host: HostPort,
    before: Option<Lead>,
    after: Lead,
}

impl Lead {
    /// Whether it leads from a container's own address to itself: no port of the host.
    fn is_routed(&self, host: &HostPort) -> bool {
        self.addr == host.addr
    }

    /// Whether the port is to be kept from the host's programs.
    fn is_held(&self, host: &HostPort) -> bool {
        !self.unheld && !self.is_routed(host)
    }

    fn is_to(&self, binding: &Binding) -> bool {
        (self.addr, self.port) == (binding.addr, binding.port)
    }
}

impl Change {
    /// A port of the host's that was not kept from its programs.
    fn holds_anew(&self) -> bool {
        self.after.is_held(&self.host) && !self.before.is_some_and(|before| before.is_held(&self.host))
    }

    /// A port that was kept from the host's programs and is to be no more.
    fn lets_go(&self) -> bool {
        !self.after.is_held(&self.host) && self.before.is_some_and(|before| before.is_held(&self.host))
    }

    /// The mapping that it is for: taken for it, or kept.
    fn has_new_mapping(&self) -> bool {
        self.before.is_none_or(|before| before.id != self.after.id)
    }
}

impl Ebpf {
    /// Publishes all or none. However many there are, each table is written once.
    pub(super) fn publish_all(&mut self, bindings: &[Binding]) -> Result<()> {
        let changes = self.changes(bindings)?;
        let what = || match bindings {
            [one] => format!("publish port {}", show(&one.host)),
            many => format!("publish {} ports", many.len()),
        };
        if let Err(error) = self.write_ports(&changes).with_context(what) {
            return Err(match self.take_back(&changes) {
                Ok(()) => error,
                Err(undo) => error.context(format!("undoing what was done failed too: {undo:#}")),
            });
        }
        for change in changes.iter().filter(|change| change.has_new_mapping()) {
            if let Some(before) = change.before {
                self.tables.mappings.release(before.id);
            }
        }
        Ok(())
    }

    /// What is not as it should be, each with a mapping. A port that leads where it should keeps its own, and so its
    /// flows.
    fn changes(&mut self, bindings: &[Binding]) -> Result<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::new();
        for binding in bindings {
            match self.change(binding) {
                Ok(change) => changes.extend(change),
                Err(error) => {
                    self.release_new(&changes);
                    return Err(error.context(format!("publish port {}", show(&binding.host))));
                }
            }
        }
        Ok(changes)
    }

    fn change(&mut self, binding: &Binding) -> Result<Option<Change>> {
        if binding.addr.is_ipv4() != binding.host.addr.is_ipv4() {
            bail!("it cannot lead to {}, which is of the other address family", binding.addr);
        }
        let before = self.tables.port(&binding.host)?;
        let kept = before.filter(|there| there.is_to(binding) && self.tables.mappings.is_current(there.id));
        if kept.is_some_and(|there| (there.sources, there.unheld) == (binding.sources, binding.unheld)) {
            return Ok(None);
        }
        let id = match kept {
            Some(there) => there.id,
            None => self.tables.mappings.take()?,
        };
        let Binding { addr, port, sources, unheld, .. } = *binding;
        let after = Lead { addr, port, id, sources, unheld };
        Ok(Some(Change { host: binding.host, before, after }))
    }

    fn write_ports(&mut self, changes: &[Change]) -> Result<()> {
        let held: Vec<_> = changes.iter().filter(|c| c.after.is_held(&c.host)).map(|c| c.host).collect();
        let free: Vec<_> = changes.iter().filter(|c| c.lets_go()).map(|c| c.host).collect();
        self.held.add(&mut self.tables.held, &held)?;
        self.tables.set_ports(&changes.iter().map(|c| (c.host, c.after)).collect::<Vec<_>>())?;
        self.held.remove(&mut self.tables.held, &free)
    }

    /// Undoes [`Ebpf::write_ports`], however far that has come.
    fn take_back(&mut self, changes: &[Change]) -> Result<()> {
        let before: Vec<_> = changes.iter().filter_map(|c| Some((c.host, c.before?))).collect();
        let new: Vec<_> = changes.iter().filter(|c| c.before.is_none()).map(|c| c.host).collect();
        let held: Vec<_> = changes.iter().filter(|c| c.holds_anew()).map(|c| c.host).collect();
        let free: Vec<_> = changes.iter().filter(|c| c.lets_go()).map(|c| c.host).collect();
        self.release_new(changes);
        let ports = self.tables.set_ports(&before).and_then(|()| self.tables.clear_ports(&new));
        let taken = self.held.remove(&mut self.tables.held, &held);
        ports.and(taken).and(self.held.add(&mut self.tables.held, &free))
    }

    fn release_new(&self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.has_new_mapping()) {
            self.tables.mappings.release(change.after.id);
        }
    }

    pub(super) fn unpublish_all(&mut self, bindings: &[Binding]) -> Result<()> {
        let mut gone = Vec::new();
        for binding in bindings {
            let there = self.tables.port(&binding.host)?;
            gone.extend(there.filter(|there| there.is_to(binding)).map(|there| (binding.host, there)));
        }
        self.withdraw(&gone)
    }

    /// Withdraws every port that is not named.
    pub(super) fn retain_ports(&mut self, bindings: &[Binding]) -> Result<()> {
        let wanted: HashMap<HostPort, &Binding> = bindings.iter().map(|b| (b.host, b)).collect();
        let is_wanted = |(host, lead): &(HostPort, Lead)| wanted.get(host).is_some_and(|b| lead.is_to(b));
        let mut stale = self.tables.ports()?;
        stale.retain(|port| !is_wanted(port));
        self.withdraw(&stale)
    }

    fn withdraw(&mut self, ports: &[(HostPort, Lead)]) -> Result<()> {
        for (_, lead) in ports {
            self.tables.mappings.release(lead.id);
        }
        let hosts: Vec<HostPort> = ports.iter().map(|(host, _)| *host).collect();
        let what = || match hosts.as_slice() {
            [one] => format!("withdraw port {}", show(one)),
            many => format!("withdraw {} ports", many.len()),
        };
        // A port is known by its entry, which goes last: whoever withdraws again what failed halfway finds it.
        self.held.remove(&mut self.tables.held, &hosts).with_context(what)?;
        self.tables.clear_ports(&hosts).with_context(what)
    }

    /// The counts of ports, in their order.
    pub(super) fn counts(&self, bindings: &[Binding]) -> Result<Vec<PortCount>> {
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let mut live = HashMap::new();
        flows::walk(&self.tables.v4.flows, |some| some.add_traffic(&mut live))?;
        flows::walk(&self.tables.v6.flows, |some| some.add_traffic(&mut live))?;
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

    /// How many flows these ports have opened.
    pub(super) fn opened_by(&self, bindings: &[Binding]) -> Result<Vec<u64>> {
        let opened = |binding: &Binding| {
            let lead = self.tables.port(&binding.host)?.filter(|there| there.is_to(binding));
            Ok(lead.map_or(0, |lead| self.tables.mappings.count(lead.id).flows))
        };
        bindings.iter().map(opened).collect()
    }
}

impl Tables {
    fn port(&self, host: &HostPort) -> Result<Option<Lead>> {
        match host.addr {
            IpAddr::V4(_) => self.v4.port(host),
            IpAddr::V6(_) => self.v6.port(host),
        }
    }

    fn set_ports(&mut self, ports: &[(HostPort, Lead)]) -> Result<()> {
        self.v4.set_ports(ports)?;
        self.v6.set_ports(ports)
    }

    fn clear_ports(&mut self, hosts: &[HostPort]) -> Result<()> {
        self.v4.clear_ports(hosts)?;
        self.v6.clear_ports(hosts)
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

    /// Those of this family.
    fn set_ports(&mut self, ports: &[(HostPort, Lead)]) -> Result<()> {
        let of_family = ports.iter().filter(|(host, _)| A::of(host.addr).is_some());
        let entries = of_family.map(|(host, lead)| {
            let addr = A::of(lead.addr).context("a port leads to an address of its own family")?;
            let MappingId { slot, generation } = lead.id;
            let backend = Backend::new(addr, Be16::new(lead.port), slot, generation, lead.sources);
            Ok((key(host)?, backend.unheld_if(lead.unheld)))
        });
        self.ports.insert_all(&entries.collect::<Result<Vec<_>>>()?)
    }

    /// Those of this family.
    fn clear_ports(&mut self, hosts: &[HostPort]) -> Result<()> {
        let of_family = hosts.iter().filter(|host| A::of(host.addr).is_some());
        self.ports.remove_all(&of_family.map(key).collect::<Result<Vec<_>>>()?)
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
    let (addr, port) = (backend.addr.ip(), backend.port.get());
    Lead { addr, port, id, sources: backend.sources, unheld: backend.unheld != 0 }
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
        let mut hosts = tables.ports()?;
        hosts.retain(|(host, lead)| lead.is_held(host));
        held.add(&mut tables.held, &hosts.iter().map(|(host, _)| *host).collect::<Vec<_>>())?;
        let is_stale = |key: &HeldKey| !held.0.contains_key(&(key.port.get(), key.proto, key.v6 != 0));
        let mut stale: Vec<_> = tables.held.entries()?.into_iter().map(|(key, _)| key).collect();
        stale.retain(is_stale);
        tables.held.remove_all(&stale)?;
        Ok(held)
    }

    fn add(&mut self, table: &mut Table<HeldKey, u32>, hosts: &[HostPort]) -> Result<()> {
        for host in hosts {
            self.0.entry(Self::index(host)).or_default().insert(host.addr);
        }
        self.write(table, hosts)
    }

    fn remove(&mut self, table: &mut Table<HeldKey, u32>, hosts: &[HostPort]) -> Result<()> {
        for host in hosts {
            let Some(addrs) = self.0.get_mut(&Self::index(host)) else { continue };
            addrs.remove(&host.addr);
            if addrs.is_empty() {
                self.0.remove(&Self::index(host));
            }
        }
        self.write(table, hosts)
    }

    /// Brings what is known of these ports to the table.
    fn write(&self, table: &mut Table<HeldKey, u32>, hosts: &[HostPort]) -> Result<()> {
        let (mut held, mut free) = (Vec::new(), Vec::new());
        for host in hosts {
            match self.0.get(&Self::index(host)) {
                Some(addrs) => held.push((held_key(host), count(addrs))),
                None => free.push(held_key(host)),
            }
        }
        table.insert_all(&held)?;
        table.remove_all(&free)
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
