//! Which addresses and subnets are given out: the lowest free one first, so that a freed address is used
//! again at once, as Docker does. Pure, and written over both address families.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv6Addr},
};

use ipnetwork::{IpNetwork, IpNetworkError};

use super::model::subnet::{bits, overlap};

/// Docker's pools, each with the prefix length of the subnets that are cut from it.
pub const DEFAULT_POOLS: [(&str, u8); 7] = [
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
];

/// The pool of IPv6 subnets: a /48 of the addresses that are everybody's own (RFC 4193), in which 40 bits come from
/// the machine and the instance, so that hosts that are joined one day do not clash. Its subnets are /64s.
///
/// # Errors
/// Never: a /48 is a network.
pub fn local_pool(machine: &str, instance: &str) -> Result<(IpNetwork, u8), IpNetworkError> {
    // Another Rust may hash otherwise: what has been given stays, and what comes then is as good.
    let mut hasher = DefaultHasher::new();
    (machine.trim(), instance).hash(&mut hasher);
    let global_id = hasher.finish() >> 24;
    let first = (0xfd << 40 | u128::from(global_id)) << 80;
    Ok((IpNetwork::new(Ipv6Addr::from(first).into(), 48)?, 64))
}

/// Why an address was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The subnet, or its range, has none left.
    #[error("no available addresses on this pool: {0} is full")]
    Full(IpNetwork),
    /// The fixed address is somebody's.
    #[error("Address already in use: {0}")]
    InUse(IpAddr),
    /// The fixed address is none of the subnet's hosts'.
    #[error("requested address is out of range: {0} is not a host address of subnet {1}")]
    OutOfRange(IpAddr, IpNetwork),
}

/// Whether an address of the subnet can be a host's: not the network's own, nor the broadcast address. In an
/// IPv6 subnet the first one belongs to all routers (RFC 4291 2.6.1). Both of a /31 can (RFC 3021), and both
/// of a /127 (RFC 6164).
pub fn is_usable(subnet: IpNetwork, addr: IpAddr) -> bool {
    let (first, last) = usable(subnet);
    subnet.is_ipv4() == addr.is_ipv4() && (first..=last).contains(&number(addr))
}

/// The address that the bridge has unless another is asked for: the first usable one.
pub fn default_gateway(subnet: IpNetwork) -> IpAddr {
    address(subnet, usable(subnet).0)
}

/// The lowest address of the subnet, or of its `range`, that is not `taken`.
///
/// # Errors
/// [`AddressError::Full`] when there is none.
pub fn lowest_free(
    subnet: IpNetwork,
    range: Option<IpNetwork>,
    taken: impl Fn(&IpAddr) -> bool,
) -> Result<IpAddr, AddressError> {
    let part = range.unwrap_or(subnet);
    let (mut first, mut last) = usable(subnet);
    first = first.max(number(part.network()));
    last = last.min(number(part.broadcast()));
    (first..=last).map(|n| address(subnet, n)).find(|addr| !taken(addr)).ok_or(AddressError::Full(part))
}

/// Checks a fixed address. One outside the subnet's range is fine, as with Docker.
///
/// # Errors
/// [`AddressError::OutOfRange`] or [`AddressError::InUse`].
pub fn check_fixed(
    subnet: IpNetwork,
    addr: IpAddr,
    taken: impl Fn(&IpAddr) -> bool,
) -> Result<(), AddressError> {
    if !is_usable(subnet, addr) {
        return Err(AddressError::OutOfRange(addr, subnet));
    }
    if taken(&addr) {
        return Err(AddressError::InUse(addr));
    }
    Ok(())
}

/// The first subnet of the pools that overlaps nothing in `taken`.
pub fn next_subnet(pools: &[(IpNetwork, u8)], taken: &[IpNetwork]) -> Option<IpNetwork> {
    pools.iter().find_map(|&(pool, prefix)| {
        let (last, step) = (number(pool.broadcast()), 1u128.checked_shl((bits(pool) - prefix).into())?);
        let mut start = number(pool.network());
        while start <= last {
            let subnet = IpNetwork::new(address(pool, start), prefix).ok()?;
            let Some(hit) = taken.iter().find(|&&t| overlap(t, subnet)) else {
                return Some(subnet);
            };
            // Past the whole of what is in the way: a /8 in the way of /24s is one step, not 65536.
            let behind = number(hit.broadcast()).max(number(subnet.broadcast())).checked_add(1)?;
            start = behind.checked_next_multiple_of(step)?;
        }
        None
    })
}

/// The first and last address that a host can have.
fn usable(subnet: IpNetwork) -> (u128, u128) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    match (subnet.is_ipv4(), bits(subnet) - subnet.prefix()) {
        (_, 0 | 1) => (first, last),
        (true, _) => (first + 1, last - 1),
        (false, _) => (first + 1, last),
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

/// The inverse of [`number`], in the family of `like`.
fn address(like: IpNetwork, number: u128) -> IpAddr {
    match like {
        // An address of an IPv4 network is below 2^32.
        IpNetwork::V4(_) => IpAddr::V4((number as u32).into()),
        IpNetwork::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Takes addresses until there are none left.
    fn all(subnet: &str, range: Option<&str>, gateway: &str) -> Vec<String> {
        let mut taken = BTreeSet::from([ip(gateway)]);
        let mut given = Vec::new();
        while let Ok(addr) = lowest_free(net(subnet), range.map(net), |addr| taken.contains(addr)) {
            taken.insert(addr);
            given.push(addr.to_string());
        }
        given
    }

    #[test]
    fn addresses_are_given_lowest_first_and_reserved_ones_never() {
        assert_eq!(
            all("10.0.0.0/29", None, "10.0.0.1"),
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        assert_eq!(all("10.0.0.0/30", None, "10.0.0.2"), ["10.0.0.1"]);
        assert_eq!(all("10.0.0.0/31", None, "10.0.0.0"), ["10.0.0.1"]);
        assert_eq!(all("fd00::/126", None, "fd00::1"), ["fd00::2", "fd00::3"]);
    }

    #[test]
    fn a_range_is_kept_to_and_so_are_the_subnets_edges() {
        let four = ["10.9.0.64", "10.9.0.65", "10.9.0.66", "10.9.0.67"];
        assert_eq!(all("10.9.0.0/24", Some("10.9.0.64/30"), "10.9.0.254"), four);
        assert_eq!(all("10.9.0.0/24", Some("10.9.0.0/30"), "10.9.0.1"), ["10.9.0.2", "10.9.0.3"]);
        assert_eq!(
            lowest_free(net("10.9.0.0/24"), Some(net("10.9.0.254/31")), |addr| *addr == ip("10.9.0.254")),
            Err(AddressError::Full(net("10.9.0.254/31")))
        );
    }

    #[test]
    fn a_freed_address_is_given_again_at_once() {
        let mut taken: BTreeSet<_> = (1..=5).map(|n| ip(&format!("10.0.0.{n}"))).collect();
        taken.remove(&ip("10.0.0.3"));
        assert_eq!(lowest_free(net("10.0.0.0/24"), None, |addr| taken.contains(addr)), Ok(ip("10.0.0.3")));
    }

    #[test]
    fn fixed_addresses_are_checked_but_may_leave_the_range() {
        let taken = [ip("10.9.0.1")];
        let check = |addr| check_fixed(net("10.9.0.0/24"), ip(addr), |addr| taken.contains(addr));
        assert_eq!(check("10.9.0.200"), Ok(()));
        assert_eq!(check("10.9.0.1"), Err(AddressError::InUse(ip("10.9.0.1"))));
        for out in ["10.9.1.1", "10.9.0.0", "10.9.0.255", "fd00::1"] {
            assert_eq!(check(out), Err(AddressError::OutOfRange(ip(out), net("10.9.0.0/24"))), "{out}");
        }
    }

    #[test]
    fn default_pools_are_dockers_in_dockers_order() {
        let pools = DEFAULT_POOLS.map(|(pool, prefix)| (net(pool), prefix));
        let mut taken = Vec::new();
        while let Some(subnet) = next_subnet(&pools, &taken) {
            taken.push(subnet);
        }
        let text: Vec<String> = taken.iter().map(ToString::to_string).collect();
        assert_eq!(text[0], "172.17.0.0/16");
        assert_eq!(text[14], "172.31.0.0/16");
        assert_eq!(text[15], "192.168.0.0/20");
        assert_eq!(text[30], "192.168.240.0/20");
        assert_eq!(text.len(), 31);
    }

    #[test]
    fn every_instance_of_every_machine_has_its_own_local_pool() {
        let pools = [("a", "rnet"), ("a", "lab"), ("b", "rnet")].map(|(m, i)| local_pool(m, i).unwrap());
        for (pool, prefix) in pools {
            assert_eq!((pool.ip(), pool.prefix(), prefix), (pool.network(), 48, 64));
            assert!(overlap(net("fd00::/8"), pool), "{pool}");
        }
        assert!(pools[0] != pools[1] && pools[0] != pools[2]);
        assert_eq!(pools[0], local_pool("a\n", "rnet").unwrap());
    }

    #[test]
    fn what_is_taken_is_stepped_over() {
        let pools = [(net("10.0.0.0/8"), 24), (net("192.168.0.0/16"), 20)];
        assert_eq!(next_subnet(&pools, &[net("10.0.0.128/25")]), Some(net("10.0.1.0/24")));
        assert_eq!(
            next_subnet(&pools, &[net("10.0.0.0/9"), net("10.128.0.5/32")]),
            Some(net("10.128.1.0/24"))
        );
        assert_eq!(next_subnet(&pools, &[net("10.0.0.0/7")]), Some(net("192.168.0.0/20")));
        assert_eq!(next_subnet(&pools, &[net("0.0.0.0/0")]), None);
        assert_eq!(next_subnet(&[(net("fd00::/8"), 64)], &[net("fd00::/64")]), Some(net("fd00:0:0:1::/64")));
    }

    proptest! {
        #[test]
        fn the_next_subnet_lies_in_its_pool_and_overlaps_nothing(
            taken in proptest::collection::vec((any::<[u8; 2]>(), 16u8..=32), 0..40), prefix in 16u8..=28
        ) {
            let pools = [(net("10.1.0.0/16"), prefix)];
            let taken: Vec<IpNetwork> = taken
                .into_iter()
                .map(|([a, b], p)| IpNetwork::new(IpAddr::from([10, 1 + (a & 1), a, b]), p).unwrap())
                .collect();
            if let Some(subnet) = next_subnet(&pools, &taken) {
                prop_assert!(pools[0].0.contains(subnet.network()) && subnet.prefix() == prefix);
                prop_assert_eq!(subnet.ip(), subnet.network());
                prop_assert!(!taken.iter().any(|&t| overlap(t, subnet)));
            } else {
                let step = 1u32 << (32 - prefix);
                for start in (0..65536u32).step_by(step as usize) {
                    let subnet = IpNetwork::new(IpAddr::from([10, 1, (start >> 8) as u8, start as u8]), prefix).unwrap();
                    prop_assert!(taken.iter().any(|&t| overlap(t, subnet)), "{} is free", subnet);
                }
            }
        }
    }
}
