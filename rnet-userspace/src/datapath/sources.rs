//! Lists of sources that may use published ports.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{
        MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnetwork::IpNetwork;
use rnet_common::SourceKey;

use super::tables::{Address, take, wrong};

/// The lists of an address family.
pub(super) struct Sources<A: Address> {
    name: String,
    trie: LpmTrie<MapData, SourceKey<A>, u32>,
    /// What the trie has, by list: addresses with the length of their prefix in bits.
    lists: BTreeMap<u32, HashSet<(A, u8)>>,
}

impl<A: Address> Sources<A> {
    /// Takes the map out of a loaded object, with what an earlier daemon left in it.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let name = format!("SOURCES{}", A::SUFFIX);
        let trie: LpmTrie<MapData, SourceKey<A>, u32> =
            take(ebpf, &name)?.try_into().map_err(wrong(&name))?;
        let mut lists = BTreeMap::<_, HashSet<_>>::new();
        for key in trie.keys() {
            let key = key.with_context(|| format!("read map {name}"))?;
            let SourceKey { list, addr } = key.data();
            // Nothing else is ever written there: the number is part of every prefix.
            let prefix = key.prefix_len().saturating_sub(u32::BITS);
            lists.entry(list).or_default().insert((addr, u8::try_from(prefix).unwrap_or(u8::MAX)));
        }
        Ok(Self { name, trie, lists })
    }

    /// Makes a list to be exactly what is of this family in `sources`. What stays never stops being a source.
    pub(super) fn set(&mut self, list: u32, sources: &[IpNetwork]) -> Result<()> {
        let of_family = |net: &IpNetwork| Some((A::of(net.network())?, net.prefix()));
        let wanted: HashSet<(A, u8)> = sources.iter().filter_map(of_family).collect();
        let there = self.lists.get(&list).cloned().unwrap_or_default();
        for source in wanted.difference(&there) {
            self.trie
                .insert(&key(list, *source), 0, 0)
                .with_context(|| format!("write to map {}", self.name))?;
            self.lists.entry(list).or_default().insert(*source);
        }
        for source in there.difference(&wanted) {
            self.trie
                .remove(&key(list, *source))
                .with_context(|| format!("remove from map {}", self.name))?;
            if let Some(known) = self.lists.get_mut(&list) {
                known.remove(source);
            }
        }
        self.lists.retain(|_, known| !known.is_empty());
        Ok(())
    }

    /// Removes every list but these.
    pub(super) fn retain(&mut self, used: &BTreeSet<u32>) -> Result<()> {
        let stale: Vec<u32> = self.lists.keys().filter(|list| !used.contains(list)).copied().collect();
        stale.into_iter().try_for_each(|list| self.set(list, &[]))
    }

    /// How many prefixes the trie has.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.trie.keys().map(Result::unwrap).count()
    }
}

fn key<A: Address>(list: u32, (addr, prefix): (A, u8)) -> Key<SourceKey<A>> {
    Key::new(u32::BITS + u32::from(prefix), SourceKey::new(list, addr))
}
