//! What makes a subnet fit for a network. Written over both address families.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::controller::error::{Error, Result};

/// Whether two networks have an address in common.
pub fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// Checks one subnet for itself: canonical, unicast, and with room for a gateway and a container.
///
/// # Errors
/// [`Error::Invalid`] says what would be right.
pub fn check_subnet(subnet: IpNetwork) -> Result<()> {
    check_canonical("subnet", subnet)?;
    let bits = bits(subnet);
    if subnet.prefix() >= bits {
        return Err(Error::Invalid(format!(
            "invalid subnet {subnet}: it has no room for a gateway and a container: a /{} has",
            bits - 2
        )));
    }
    let special = match subnet.ip() {
        IpAddr::V4(a) => a.is_loopback() || a.is_multicast() || a.octets()[0] == 0 || a.octets()[0] >= 240,
        IpAddr::V6(a) => a.is_loopback() || a.is_multicast() || a.is_unicast_link_local(),
    };
    if special || subnet.prefix() == 0 {
        return Err(Error::Invalid(format!(
            "invalid subnet {subnet}: its addresses are not for containers: take one of a private range, such as 10.0.0.0/24"
        )));
    }
    Ok(())
}

/// Checks the part of a subnet that addresses are given from.
///
/// # Errors
/// [`Error::Invalid`] when it is not a part of the subnet.
pub fn check_ip_range(subnet: IpNetwork, range: IpNetwork) -> Result<()> {
    check_canonical("ip-range", range)?;
    if range.is_ipv4() == subnet.is_ipv4() && range.prefix() < subnet.prefix() {
        return Err(Error::Invalid(format!(
            "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
        )));
    }
    if !subnet.contains(range.network()) {
        return Err(Error::Invalid(format!(
            "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
        )));
    }
    Ok(())
}

/// Checks the address that the bridge is to have.
///
/// # Errors
/// [`Error::Invalid`] when it is not a host's address in the subnet.
pub fn check_gateway(subnet: IpNetwork, gateway: IpAddr) -> Result<()> {
    if !subnet.contains(gateway) {
        return Err(Error::Invalid(format!("invalid gateway {gateway}: it is not in subnet {subnet}")));
    }
    if !crate::controller::ipam::is_usable(subnet, gateway) {
        return Err(Error::Invalid(format!(
            "invalid gateway {gateway}: it is the network or broadcast address of subnet {subnet}"
        )));
    }
    Ok(())
}

/// Bits of an address of this family.
pub fn bits(net: IpNetwork) -> u8 {
    if net.is_ipv4() { 32 } else { 128 }
}

fn check_canonical(what: &str, net: IpNetwork) -> Result<()> {
    if net.ip() == net.network() {
        return Ok(());
    }
    Err(Error::Invalid(format!("invalid {what} {net}: it should be {}/{}", net.network(), net.prefix())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(overlap(net("10.0.0.0/8"), net("10.1.0.0/16")));
        assert!(overlap(net("10.1.0.0/16"), net("10.0.0.0/8")));
        assert!(!overlap(net("10.0.0.0/24"), net("10.0.1.0/24")));
        assert!(!overlap(net("0.0.0.0/0"), net("fd00::/8")));
    }

    #[test]
    fn subnets_are_refused_with_what_would_be_right() {
        let error = |subnet| check_subnet(net(subnet)).unwrap_err().to_string();
        assert_eq!(error("10.0.0.1/24"), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24");
        assert!(error("10.0.0.1/32").contains("a /30 has"));
        assert!(error("fd00::1/128").contains("a /126 has"));
        for special in
            ["127.1.0.0/16", "224.0.0.0/8", "0.0.0.0/8", "0.0.0.0/0", "240.0.0.0/8", "fe80::/64", "ff00::/8"]
        {
            assert!(error(special).contains("not for containers"), "{special}");
        }
        for good in ["10.0.0.0/31", "10.0.0.0/8", "198.51.100.0/24", "fd00::/64"] {
            check_subnet(net(good)).unwrap();
        }
    }

    #[test]
    fn range_and_gateway_lie_inside() {
        let subnet = net("10.9.0.0/24");
        check_ip_range(subnet, net("10.9.0.64/30")).unwrap();
        let range = |r| check_ip_range(subnet, net(r)).unwrap_err().to_string();
        assert!(range("10.9.0.0/16").contains("CIDR block is bigger than its parent subnet"));
        assert!(range("10.8.0.0/30").contains("parent subnet 10.9.0.0/24 doesn't contain ip-range"));
        assert_eq!(range("10.9.0.65/30"), "invalid ip-range 10.9.0.65/30: it should be 10.9.0.64/30");
        check_gateway(subnet, "10.9.0.254".parse().unwrap()).unwrap();
        let gateway = |g: &str| check_gateway(subnet, g.parse().unwrap()).unwrap_err().to_string();
        assert_eq!(gateway("10.8.0.1"), "invalid gateway 10.8.0.1: it is not in subnet 10.9.0.0/24");
        assert!(gateway("10.9.0.255").contains("network or broadcast address"));
        assert!(gateway("10.9.0.0").contains("network or broadcast address"));
    }
}
