//! The programs' maps, typed.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
};

use anyhow::{Context, Error, Result, anyhow};
use aya::{
    Ebpf, Pod,
    maps::{self, Array, Map, MapData, MapError, PerCpuArray, xdp::DevMapHash},
};
use rnet_common::{
    Backend, Counter, Endpoint, Family, Flow, FlowKey, HeldKey, Ip4, Ip6, PortKey, Pressure, Program, Reason,
    Settings, Uplink, Veth, counter::counter_index, local,
};

use super::{
    batch,
    mappings::{MappingId, Mappings},
    sources::Sources,
};
use crate::controller::backend::ReasonCount;

/// All maps.
pub(super) struct Tables {
    /// IPv4's.
    pub(super) v4: FamilyTables<Ip4>,
    /// IPv6's.
    pub(super) v6: FamilyTables<Ip6>,
    /// Containers' interfaces by their host side's index.
    pub(super) veths: Table<u32, Veth>,
    /// Interfaces that carry `from_uplink`.
    pub(super) uplinks: Table<u32, Uplink>,
    /// Host sides of veths whose other end takes frames without a packet buffer.
    pub(super) frame_veths: FrameVeths,
    /// How many addresses each port is published on.
    pub(super) held: Table<HeldKey, u32>,
    /// What flows owe their existence to.
    pub(super) mappings: Mappings,
    settings: Array<MapData, Settings>,
    pressure: Array<MapData, Pressure>,
    counts: PerCpuArray<MapData, Counter>,
}

/// The maps of an address family.
pub(super) struct FamilyTables<A: Address> {
    /// Flows.
    pub(super) flows: Table<FlowKey<A>, Flow<A>>,
    /// Published ports.
    pub(super) ports: Table<PortKey<A>, Backend<A>>,
    /// Who may use ports that are not open to everyone.
    pub(super) sources: Sources<A>,
    /// Endpoints by address.
    pub(super) endpoints: Table<A, Endpoint<A>>,
    /// The host's own addresses.
    pub(super) locals: Table<A, u32>,
}

/// An address family as the maps know it.
pub(super) trait Address: Family + Pod + Hash + Send {
    /// What the names of its maps end in.
    const SUFFIX: &str;
    /// Whether it is the second family.
    const IS_V6: bool;
    /// The address, if it is of this family.
    fn of(addr: IpAddr) -> Option<Self>;
    /// The address.
    fn ip(self) -> IpAddr;
}

impl Address for Ip4 {
    const SUFFIX: &str = "4";
    const IS_V6: bool = false;

    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(addr) => Some(addr.into()),
            IpAddr::V6(_) => None,
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

impl Address for Ip6 {
    const SUFFIX: &str = "6";
    const IS_V6: bool = true;

    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(_) => None,
            IpAddr::V6(addr) => Some(addr.into()),
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
}

impl Tables {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let Map::Array(mappings) = take(ebpf, "MAPPINGS")? else { return Err(mismatch("MAPPINGS")) };
        let mappings = Mappings::open(&mappings)?;
        Ok(Self {
            v4: FamilyTables::take(ebpf)?,
            v6: FamilyTables::take(ebpf)?,
            veths: Table::take(ebpf, "VETHS")?,
            uplinks: Table::take(ebpf, "UPLINKS")?,
            frame_veths: FrameVeths::take(ebpf)?,
            held: Table::take(ebpf, "HELD")?,
            mappings,
            settings: take(ebpf, "SETTINGS")?.try_into().map_err(wrong("SETTINGS"))?,
            pressure: take(ebpf, "PRESSURE")?.try_into().map_err(wrong("PRESSURE"))?,
            counts: take(ebpf, "COUNTS")?.try_into().map_err(wrong("COUNTS"))?,
        })
    }

    /// Changes the settings.
    pub(super) fn set_settings(&mut self, settings: &Settings) -> Result<()> {
        self.settings.set(0, settings, 0).context("write the settings")
    }

    /// The settings.
    pub(super) fn settings(&self) -> Result<Settings> {
        self.settings.get(&0, 0).context("read the settings")
    }

    /// The mappings that endpoints hold, with the endpoints' addresses.
    pub(super) fn endpoint_mappings(&self) -> Result<Vec<(IpAddr, MappingId)>> {
        Ok([self.v4.endpoint_mappings()?, self.v6.endpoint_mappings()?].concat())
    }

    /// What the programs were told, and what they have taken from it.
    pub(super) fn pressure(&self) -> Result<Pressure> {
        self.pressure.get(&0, 0).context("read how full the tables are")
    }

    /// Tells the programs what the collector has found.
    pub(super) fn set_pressure(&mut self, pressure: &Pressure) -> Result<()> {
        self.pressure.set(0, pressure, 0).context("tell the programs how full the tables are")
    }

    /// Every counter that is not zero.
    pub(super) fn counters(&self) -> Result<Vec<ReasonCount>> {
        let mut counters = Vec::new();
        for program in Program::ALL {
            for reason in Reason::ALL {
                let index = counter_index(program, *reason);
                let cpus = self.counts.get(&index, 0).context("read a counter")?;
                let sum = |number: fn(&Counter) -> u64| cpus.iter().map(number).sum::<u64>();
                let (packets, bytes) = (sum(|c| c.packets), sum(|c| c.bytes));
                if packets != 0 {
                    counters.push(ReasonCount {
                        program: program.name().to_owned(),
                        verdict: reason.verdict().name().to_owned(),
                        reason: reason.name().to_owned(),
                        meaning: reason.meaning().to_owned(),
                        packets,
                        bytes,
                    });
                }
            }
        }
        Ok(counters)
    }
}

impl<A: Address> FamilyTables<A> {
    fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let name = |table: &str| format!("{table}{}", A::SUFFIX);
        Ok(Self {
            flows: Table::take(ebpf, &name("FLOWS"))?,
            ports: Table::take(ebpf, &name("PORTS"))?,
            sources: Sources::take(ebpf)?,
            endpoints: Table::take(ebpf, &name("ENDPOINTS"))?,
            locals: Table::take(ebpf, &name("LOCALS"))?,
        })
    }
}

impl<A: Address> FamilyTables<A> {
    /// Says which addresses of this family are the host's own, exactly. None is missing meanwhile.
    pub(super) fn set_locals(&mut self, addrs: &[IpAddr], named: &BTreeSet<IpAddr>) -> Result<()> {
        let value = |addr| if named.contains(addr) { local::NAME_SERVER } else { local::PLAIN };
        let wanted: HashMap<A, u32> =
            addrs.iter().filter_map(|addr| Some((A::of(*addr)?, value(addr)))).collect();
        for (addr, value) in &wanted {
            self.locals.insert(addr, value)?;
        }
        for (addr, _) in self.locals.entries()? {
            if !wanted.contains_key(&addr) {
                self.locals.remove(&addr)?;
            }
        }
        Ok(())
    }
}

/// The table of interfaces that frames are sent to. The kernel takes out those that are gone.
pub(super) struct FrameVeths(DevMapHash<MapData>);

impl FrameVeths {
    const NAME: &str = "FRAME_VETHS";

    fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self(take(ebpf, Self::NAME)?.try_into().map_err(wrong(Self::NAME))?))
    }

    /// Adds an interface, or removes it.
    pub(super) fn set(&mut self, ifindex: u32, takes_frames: bool) -> Result<()> {
        if takes_frames {
            let added = self.0.insert(ifindex, ifindex, None, 0);
            return added.with_context(|| format!("write to map {}", Self::NAME));
        }
        match self.0.remove(ifindex) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            done => done.with_context(|| format!("remove from map {}", Self::NAME)),
        }
    }
}

/// A hash map.
pub(super) struct Table<K, V> {
    name: String,
    map: maps::HashMap<MapData, K, V>,
    /// The same map, to be read whole.
    data: MapData,
}

impl<K: Pod, V: Pod> Table<K, V> {
    fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self> {
        let map = take(ebpf, name)?;
        let Map::HashMap(data) = &map else { return Err(mismatch(name)) };
        // Keys and values are checked against the map's sizes here, which reading it whole relies on.
        let info = data.info().with_context(|| format!("ask for the shape of map {name}"))?;
        if info.key_size() as usize != size_of::<K>() || info.value_size() as usize != size_of::<V>() {
            return Err(mismatch(name));
        }
        let id = info.id();
        let data = MapData::from_id(id).with_context(|| format!("open map {name}"))?;
        Ok(Self { name: name.to_owned(), map: map.try_into().map_err(wrong(name))?, data })
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read map {}", self.name)),
        }
    }

    /// Every entry.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>> {
        batch::entries(&self.data).with_context(|| format!("map {}", self.name))
    }

    /// Some entries, from a bucket on, and the bucket to go on from: each that stays is seen once on the way.
    pub(super) fn some(&self, from: Option<u32>) -> Result<batch::Stretch<K, V>> {
        batch::some(&self.data, from).with_context(|| format!("map {}", self.name))
    }

    /// Its name, and how many entries it has room for.
    pub(super) fn capacity(&self) -> Result<(String, u32)> {
        let info = self.data.info().with_context(|| format!("ask for the size of map {}", self.name))?;
        Ok((self.name.clone(), info.max_entries()))
    }

    /// Adds entries, or replaces them whole. A failure may leave some of them.
    pub(super) fn insert_all(&mut self, entries: &[(K, V)]) -> Result<()> {
        batch::insert(&self.data, entries).with_context(|| format!("write to map {}", self.name))
    }

    /// Removes entries, those that are there. A failure may leave some of them.
    pub(super) fn remove_all(&mut self, keys: &[K]) -> Result<()> {
        batch::remove(&self.data, keys).with_context(|| format!("remove from map {}", self.name))
    }

    /// Adds an entry, or replaces one whole.
    pub(super) fn insert(&mut self, key: &K, value: &V) -> Result<()> {
        self.map.insert(key, value, 0).with_context(|| format!("write to map {}", self.name))
    }

    /// Removes an entry, if it is there.
    pub(super) fn remove(&mut self, key: &K) -> Result<()> {
        match self.map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("remove from map {}", self.name)),
        }
    }
}

/// Takes a map out of a loaded object.
pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the datapath has no map {name}"))
}

/// Says that a map is not what it should be.
pub(super) fn wrong(name: &str) -> impl FnOnce(MapError) -> Error {
    move |error| mismatch(name).context(error)
}

fn mismatch(name: &str) -> Error {
    anyhow!("map {name} has another shape than this rnet expects")
}
