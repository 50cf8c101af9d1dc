//! Containers, whoever has made them.

use std::net::{Ipv4Addr, SocketAddr};

use crate::Netns;

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub ns: Netns,
    /// Its IPv4 address on `eth0`.
    pub addr: Ipv4Addr,
}

impl Container {
    /// The container that has this namespace.
    ///
    /// # Panics
    /// When it has no IPv4 address on `eth0`.
    pub fn of(name: &str, ns: Netns) -> Self {
        let addrs = ns.output_of("ip", &["-4", "-o", "addr", "show", "dev", "eth0"]).unwrap_or_default();
        let addr = addrs.split_whitespace().skip_while(|w| *w != "inet").nth(1);
        let addr = addr.and_then(|a| a.split('/').next()?.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{name} has no IPv4 address on eth0: {addrs:?}"));
        Self { name: name.to_owned(), ns, addr }
    }

    /// A port of it.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.addr, port).into()
    }
}
