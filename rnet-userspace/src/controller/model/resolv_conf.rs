//! What resolv.conf(5) says.

use std::net::IpAddr;

/// The addresses of the `nameserver` lines, in their order. A zone, as in `fe80::1%eth0`, is an interface of the host:
/// no use to anybody else.
pub fn nameservers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    })
}
