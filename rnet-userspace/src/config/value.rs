//! Values of keys, from their text.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

use ipnetwork::IpNetwork;

use super::json::{Result, Value};
use crate::{
    controller::{
        Error as Refusal,
        model::{
            resolv_conf,
            subnet::{bits, overlap},
            timeouts::{self, Seconds},
        },
    },
    integrations::docker,
};

/// Where subnets come from: a network, and the prefix length of the subnets that are cut from it.
pub(super) type Pool = (IpNetwork, u8);

/// How much the daemon says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// All that helps to find a fault.
    Debug,
    /// What somebody asked for.
    #[default]
    Info,
    /// What works, but should be looked at.
    Warn,
    /// What failed.
    Error,
}

/// Docker's levels. Nothing is fatal here that is not an error.
pub(super) fn level(text: &str) -> std::result::Result<Level, String> {
    match text {
        "debug" => Ok(Level::Debug),
        "info" => Ok(Level::Info),
        "warn" => Ok(Level::Warn),
        "error" | "fatal" => Ok(Level::Error),
        _ => Err(format!("invalid logging level: {text}: debug, info, warn, error or fatal is allowed")),
    }
}

/// A network or an interface's address with its prefix length.
pub(super) fn cidr(text: &str) -> std::result::Result<IpNetwork, String> {
    let parsed = text.parse().ok().filter(|_| text.contains('/'));
    parsed.ok_or_else(|| format!("invalid CIDR address: {text}: it should be as 10.1.0.0/24"))
}

/// The same of IPv4.
pub(super) fn cidr_v4(text: &str) -> std::result::Result<IpNetwork, String> {
    cidr(text).and_then(|net| if net.is_ipv4() { Ok(net) } else { Err(format!("{net} is not of IPv4")) })
}

/// The same of IPv6.
pub(super) fn cidr_v6(text: &str) -> std::result::Result<IpNetwork, String> {
    cidr(text).and_then(|net| if net.is_ipv6() { Ok(net) } else { Err(format!("{net} is not of IPv6")) })
}

/// An address and a port. 0 would be one that nobody knows.
pub(super) fn listen_addr(text: &str) -> std::result::Result<SocketAddr, String> {
    let addr = text.parse().ok().filter(|addr: &SocketAddr| addr.port() != 0);
    addr.ok_or_else(|| format!("{text} is no address to listen at: it should be as 127.0.0.1:9323"))
}

/// An address.
pub(super) fn ip(text: &str) -> std::result::Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text} is not an ip address"))
}

/// One of IPv4.
pub(super) fn ip_v4(text: &str) -> std::result::Result<IpAddr, String> {
    text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| format!("{text} is not an IPv4 address"))
}

/// One of IPv6.
pub(super) fn ip_v6(text: &str) -> std::result::Result<IpAddr, String> {
    text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| format!("{text} is not an IPv6 address"))
}

/// A domain that names are looked up in; `.` for none.
pub(super) fn search_domain(text: &str) -> std::result::Result<String, String> {
    resolv_conf::check_search_domain(text).map(|()| text.to_owned())
}

/// An option of resolv.conf: one word.
pub(super) fn dns_option(text: &str) -> std::result::Result<String, String> {
    resolv_conf::check_option(text).map(|()| text.to_owned())
}

/// First and last port of a range.
pub(super) fn port_range(range: &str) -> std::result::Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match range.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?))) {
        Some((first, last)) if first <= last => Ok((first, last)),
        _ => Err("it should be as 1024-32767".to_owned()),
    }
}

/// A list of strings that `read` takes one by one.
pub(super) fn strings<T>(
    list: &Value<'_>,
    read: impl Fn(&str) -> std::result::Result<T, String>,
) -> Result<Vec<T>> {
    list.list()?.iter().map(|item| item.string(&read)).collect()
}

/// Where dockerd listens, `true` for where it does unless it is told otherwise; nothing for `false`.
pub(super) fn docker(value: &Value<'_>) -> Result<Option<PathBuf>> {
    if value.is_string() {
        return value.string(docker::socket).map(Some);
    }
    let is_followed = value.boolean().map_err(|_| {
        value.refuse(format_args!("it should be true, false, or an address as {}", docker::DEFAULT_SOCKET))
    })?;
    let socket = || docker::socket(docker::DEFAULT_SOCKET).map_err(|e| value.refuse(e));
    is_followed.then(socket).transpose()
}

/// A number of something.
pub(super) fn count(value: &Value<'_>, allowed: RangeInclusive<u32>) -> Result<u32> {
    let number = value.number()?;
    let fits = u32::try_from(number).ok().filter(|number| allowed.contains(number));
    let (least, most) = allowed.into_inner();
    fits.ok_or_else(|| value.refuse(format_args!("{number} is out of range: {least} to {most} is allowed")))
}

/// The same, or 0 for no limit.
pub(super) fn limit(value: &Value<'_>, max: u32) -> Result<u32> {
    let number = value.number()?;
    let fits = u32::try_from(number).ok().filter(|number| *number <= max);
    fits.ok_or_else(|| {
        value.refuse(format_args!("{number} is out of range: 1 to {max}, or 0 for no limit, is allowed"))
    })
}

/// As with Docker, 0 is the kernel's default.
pub(super) fn mtu(value: &Value<'_>) -> Result<Option<u32>> {
    match value.number()? {
        0 => Ok(None),
        mtu @ 68..=65535 => Ok(u32::try_from(mtu).ok()),
        other => Err(value.refuse(format_args!("invalid MTU number: {other}: 68 to 65535 is allowed"))),
    }
}

/// Docker's list of `{"base": "10.10.0.0/16", "size": 24}`.
pub(super) fn pools(list: &Value<'_>) -> Result<Vec<Pool>> {
    let mut pools: Vec<Pool> = Vec::new();
    for item in list.list()? {
        let pool = pool(&item)?;
        if let Some((other, _)) = pools.iter().find(|(other, _)| overlap(*other, pool.0)) {
            return Err(item.refuse(format_args!("pool {} overlaps pool {other}", pool.0)));
        }
        pools.push(pool);
    }
    Ok(pools)
}

fn pool(item: &Value<'_>) -> Result<Pool> {
    let (mut base, mut size) = (None, None);
    for member in item.members()? {
        let value = item.member(&member);
        match member.name.as_str() {
            "base" if base.is_none() => base = Some(value.string(network)?),
            "size" if size.is_none() => size = Some((value.number()?, value)),
            "base" | "size" => return Err(value.refuse(format_args!("`{}` is there twice", member.name))),
            other => {
                return Err(
                    value.refuse(format_args!("unknown key `{other}` of a pool: base and size are known"))
                );
            }
        }
    }
    let (Some(base), Some((size, at))) = (base, size) else {
        return Err(
            item.refuse("a pool needs `base` and `size`, as {\"base\": \"10.10.0.0/16\", \"size\": 24}")
        );
    };
    let fits = u8::try_from(size).ok().filter(|size| (base.prefix()..bits(base) - 1).contains(size));
    let size = fits.ok_or_else(|| {
        let (min, max) = (base.prefix(), bits(base) - 2);
        at.refuse(format_args!("subnets of /{size} cannot be cut from {base}: {min} to {max} is allowed"))
    })?;
    Ok((base, size))
}

fn network(text: &str) -> std::result::Result<IpNetwork, String> {
    let net = cidr(text)?;
    let (canonical, prefix) = (net.network(), net.prefix());
    if net.ip() != canonical {
        return Err(format!("invalid pool {net}: it should be {canonical}/{prefix}"));
    }
    if prefix + 2 > bits(net) {
        return Err(format!("invalid pool {net}: it has no room for a subnet"));
    }
    Ok(net)
}

/// Idle times by name: a number of seconds, or `"90s"`, `"30m"`, `"2h"`, `"5d"`.
pub(super) fn timeouts(object: &Value<'_>) -> Result<Seconds> {
    let mut seconds = Seconds::new();
    for member in object.members()? {
        let value = object.member(&member);
        let time = if value.is_string() {
            value.string(|time| timeouts::parse(&format!("{}={time}", member.name)).map(|(_, time)| time))?
        } else {
            value.number()?
        };
        let one = Seconds::from([(member.name.clone(), time)]);
        timeouts::changed(Default::default(), &one).map_err(|e: Refusal| value.refuse(e))?;
        if seconds.insert(member.name.clone(), time).is_some() {
            return Err(value.refuse(format_args!("`{}` is there twice", member.name)));
        }
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_is_two_ports_in_order() {
        assert_eq!(port_range("1024-32767"), Ok((1024, 32767)));
        assert_eq!(port_range("80-80"), Ok((80, 80)));
        for wrong in ["80", "90-80", "0-80", "80-65536", "-", "a-b"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn domains_and_options_are_one_word() {
        for good in [".", "example.com", "a.b.c.", "_tcp.local", "x"] {
            assert_eq!(search_domain(good), Ok(good.to_owned()));
        }
        for wrong in ["", "a b", "-a.com", "a..b", "a/b", &"x".repeat(64)] {
            assert!(search_domain(wrong).is_err(), "{wrong}");
        }
        assert!(dns_option("ndots:2").is_ok() && dns_option("a b").is_err() && dns_option("").is_err());
    }
}
