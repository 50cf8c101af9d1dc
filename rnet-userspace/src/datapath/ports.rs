//! Published ports, and their hold on the host's own programs.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail};
use rnet_common::{Backend, Be16, HeldKey, Ip4, PortKey};

use super::{
    Ebpf,
    flows::Snapshot,
    mappings::MappingId,
    tables::{Address, FamilyTables, Table},
};
use crate::controller::{
    backend::PortCount,
    model::{Binding, HostPort},
};

/// A published port's key, and where it led before.
type Done = (PortKey<Ip4>, Option<Backend<Ip4>>);

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
                self.tables.mappings.release(mapping(&before));
            }
        }
        Ok(())
    }

    fn publish_one(&mut self, binding: &Binding, done: &mut Vec<Done>) -> Result<()> {
        let key = key(&binding.host)?;
        let addr: Ip4 = Address::of(binding.addr).context("the datapath does not carry IPv6")?;
        let port = Be16::new(binding.port);
        let there = self.tables.v4.ports.get(&key)?;
        if there.is_some_and(|there| {
            (there.addr, there.port) == (addr, port) && self.tables.mappings.is_current(mapping(&there))
        }) {
            return Ok(());
        }
        let id = self.tables.mappings.take()?;
        let backend = Backend::new(addr, port, id.slot, id.generation);
        let published = self
            .held
            .add(&mut self.tables.held, &key)
            .and_then(|()| self.tables.v4.ports.insert(&key, &backend));
        if let Err(error) = published {
            self.tables.mappings.release(id);
            if there.is_none() {
                self.held.remove(&mut self.tables.held, &key)?;
            }
            return Err(error);
        }
        done.push((key, there));
        Ok(())
    }

    fn withdraw(&mut self, done: Vec<Done>) -> Result<()> {
        for (key, before) in done.into_iter().rev() {
            match before {
                Some(before) => {
                    let mistaken = self.tables.v4.ports.get(&key)?;
                    self.tables.v4.ports.insert(&key, &before)?;
                    if let Some(mistaken) = mistaken {
                        self.tables.mappings.release(mapping(&mistaken));
                    }
                }
                None => self.remove_port(&key)?,
            }
        }
        Ok(())
    }

    pub(super) fn unpublish_all(&mut self, bindings: &[Binding]) -> Result<()> {
        for binding in bindings {
            if let Some((key, _)) = self.find(binding)? {
                self.remove_port(&key).with_context(|| format!("withdraw port {}", show(&binding.host)))?;
            }
        }
        Ok(())
    }

    /// Withdraws every port that is not named.
    pub(super) fn retain_ports(&mut self, bindings: &[Binding]) -> Result<()> {
        let mut wanted = HashMap::new();
        for binding in bindings {
            wanted.insert(key(&binding.host)?, (binding.addr, binding.port));
        }
        for (key, backend) in self.tables.v4.ports.entries()? {
            if wanted.get(&key) != Some(&(backend.addr.ip(), backend.port.get())) {
                self.remove_port(&key)?;
            }
        }
        Ok(())
    }

    /// The counts of ports, in their order.
    pub(super) fn counts(&self, bindings: &[Binding]) -> Result<Vec<PortCount>> {
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let live = Snapshot::take(&self.tables.v4.flows)?.traffic();
        let mut counts = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let Some((_, backend)) = self.find(binding)? else {
                bail!("port {} is not published", show(&binding.host));
            };
            let id = mapping(&backend);
            let (packets, bytes) = live.get(&id).copied().unwrap_or_default();
            let ended = self.tables.mappings.count(id);
            counts.push(PortCount { packets: ended.packets + packets, bytes: ended.bytes + bytes, ..ended });
        }
        Ok(counts)
    }

    /// A binding's entry, unless the port leads elsewhere.
    fn find(&self, binding: &Binding) -> Result<Option<(PortKey<Ip4>, Backend<Ip4>)>> {
        let key = key(&binding.host)?;
        let is_same =
            |backend: &Backend<Ip4>| (backend.addr.ip(), backend.port.get()) == (binding.addr, binding.port);
        Ok(self.tables.v4.ports.get(&key)?.filter(is_same).map(|backend| (key, backend)))
    }

    fn remove_port(&mut self, key: &PortKey<Ip4>) -> Result<()> {
        let Some(backend) = self.tables.v4.ports.get(key)? else { return Ok(()) };
        self.tables.mappings.release(mapping(&backend));
        self.tables.v4.ports.remove(key)?;
        self.held.remove(&mut self.tables.held, key)
    }
}

/// On which addresses each port is published: a host program that binds every address clashes with any.
#[derive(Default)]
pub(super) struct HeldPorts(BTreeMap<(u16, u8), HashSet<Ip4>>);

impl HeldPorts {
    /// What the pinned tables say is published, and the table of held ports made to agree.
    pub(super) fn adopt(ports: &FamilyTables<Ip4>, table: &mut Table<HeldKey, u32>) -> Result<Self> {
        let mut held = Self::default();
        for (key, _) in ports.ports.entries()? {
            held.add(table, &key)?;
        }
        for (key, _) in table.entries()? {
            if !held.0.contains_key(&(key.port.get(), key.proto)) {
                table.remove(&key)?;
            }
        }
        Ok(held)
    }

    fn add(&mut self, table: &mut Table<HeldKey, u32>, key: &PortKey<Ip4>) -> Result<()> {
        let addrs = self.0.entry((key.port.get(), key.proto)).or_default();
        addrs.insert(key.addr);
        table.insert(&held_key(key), &count(addrs))
    }

    fn remove(&mut self, table: &mut Table<HeldKey, u32>, key: &PortKey<Ip4>) -> Result<()> {
        let port = (key.port.get(), key.proto);
        let Some(addrs) = self.0.get_mut(&port) else { return Ok(()) };
        addrs.remove(&key.addr);
        if addrs.is_empty() {
            self.0.remove(&port);
            return table.remove(&held_key(key));
        }
        table.insert(&held_key(key), &count(addrs))
    }
}

fn count(addrs: &HashSet<Ip4>) -> u32 {
    u32::try_from(addrs.len()).unwrap_or(u32::MAX)
}

/// The mappings that published ports hold.
pub(super) fn mappings_in_use<A: Address>(tables: &FamilyTables<A>) -> Result<Vec<MappingId>> {
    Ok(tables.ports.entries()?.iter().map(|(_, backend)| mapping(backend)).collect())
}

fn mapping<A: Address>(backend: &Backend<A>) -> MappingId {
    MappingId { slot: backend.mapping, generation: backend.generation }
}

fn key(host: &HostPort) -> Result<PortKey<Ip4>> {
    let addr = Address::of(host.addr).context("the datapath does not carry IPv6")?;
    Ok(PortKey::new(addr, Be16::new(host.port), host.protocol.number()))
}

fn held_key(key: &PortKey<Ip4>) -> HeldKey {
    HeldKey { port: key.port, proto: key.proto, v6: 0 }
}

fn show(host: &HostPort) -> String {
    format!("{}/{}", std::net::SocketAddr::from((host.addr, host.port)), host.protocol)
}
