//! Lists of prefixes: sources that may use a published port, and destinations that a network does not masquerade
//! towards.

use crate::addr::Family;

/// The data of a key in the trie of lists: which list, and an address of it. Its first 32 bits, the list's number, are
/// part of every prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SourceKey<A> {
    /// The list's number; 0 is none.
    pub list: u32,
    /// An address, or the first of a prefix.
    pub addr: A,
}

/// Number of the list of destinations towards which what the network of this number sends keeps its address.
#[inline(always)]
pub const fn exempt(network: u32) -> u32 {
    // Ports' lists are numbered from 1 up, and are fewer.
    1 << 31 | network
}

impl<A: Family> SourceKey<A> {
    /// Length of a single source's prefix, in bits.
    pub const BITS: u32 = size_of::<Self>() as u32 * 8;

    /// A source of this list.
    #[inline(always)]
    pub fn new(list: u32, addr: A) -> Self {
        Self { list, addr }
    }
}

const _: () = {
    use crate::addr::{Ip4, Ip6};
    assert!(size_of::<SourceKey<Ip4>>() == 8);
    assert!(size_of::<SourceKey<Ip6>>() == 20);
    assert!(SourceKey::<Ip4>::BITS == 64 && SourceKey::<Ip6>::BITS == 160);
};
