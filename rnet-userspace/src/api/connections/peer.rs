//! Whose a connection is.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// Prefix of IPv6 that one site has at the least (RFC 6177): its hosts choose among the addresses as they like.
const SITE_V6: u32 = 64;

/// Who is counted as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// Root, by a socket in the file system.
    Root,
    /// Another user, by its id.
    User(u32),
    /// A host.
    Host(IpAddr),
}

impl Peer {
    pub(super) fn user(id: u32) -> Self {
        if id == 0 { Self::Root } else { Self::User(id) }
    }

    /// All addresses of a /64 are one host's: it has them for the asking.
    pub(super) fn host(addr: IpAddr) -> Self {
        Self::Host(match addr.to_canonical() {
            IpAddr::V6(addr) => {
                let mask = u128::MAX << (128 - SITE_V6);
                Ipv6Addr::from_bits(addr.to_bits() & mask).into()
            }
            addr @ IpAddr::V4(_) => addr,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::User(id) => write!(f, "user {id}"),
            Self::Host(addr @ IpAddr::V4(_)) => write!(f, "{addr}"),
            Self::Host(addr @ IpAddr::V6(_)) => write!(f, "{addr}/{SITE_V6}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_mapped_addresses_nor_a_sites_many_make_another_host() {
        let of = |addr: &str| Peer::host(addr.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!((Peer::user(0), Peer::user(7).to_string()), (Peer::Root, "user 7".to_owned()));
    }
}
