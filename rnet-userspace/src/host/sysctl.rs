//! Settings below `/proc/sys/net`, which are those of the calling thread's network namespace.

use std::{collections::BTreeSet, fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result};

/// The settings of one interface, for one address family.
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

const ROOT: &str = "/proc/sys/net";
/// Forwarding of IPv6 on one interface (Linux 6.17).
pub(super) const FORCE_FORWARDING: &str = "force_forwarding";

/// Where `net.FAMILY.conf.INTERFACE.KEY` is below `/proc/sys/net`.
pub(super) fn path(family: Family, interface: &str, key: &str) -> String {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    // Not spelled with dots: the interface's name may have some.
    format!("{family}/conf/{interface}/{key}")
}

/// Sets `net.FAMILY.conf.INTERFACE.KEY`.
pub(super) fn set(family: Family, interface: &str, key: &str, value: &str) -> Result<()> {
    write(&path(family, interface, key), value)
}

/// Sets what is at `path` below `/proc/sys/net`.
pub(super) fn write(path: &str, value: &str) -> Result<()> {
    let file = Path::new(ROOT).join(path);
    fs::write(&file, value).with_context(|| format!("write {value} to {}", file.display()))
}

/// The setting at `path` below `/proc/sys/net`; nothing where the kernel has no such setting.
pub(super) fn read(path: &str) -> Result<Option<String>> {
    let file = Path::new(ROOT).join(path);
    match fs::read_to_string(&file) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", file.display())),
    }
}

/// Turns IPv6 off on an interface, which has no link-local address then either. A kernel without IPv6 has
/// nothing to turn off.
pub(super) fn disable_ipv6(interface: &str) -> Result<()> {
    if has_ipv6() { set(Family::V6, interface, "disable_ipv6", "1") } else { Ok(()) }
}

/// Lets the host's stack forward IPv6 of this interface while the switch for all interfaces is off, on kernels that
/// can (Linux 6.17). Others forward none of it in the stack then, which only what the datapath passes on needs.
pub(super) fn force_ipv6_forwarding(interface: &str) -> Result<()> {
    let path = path(Family::V6, interface, FORCE_FORWARDING);
    if read(&path)?.is_some() { write(&path, "1") } else { Ok(()) }
}

/// Settings that keep the stack from forwarding what arrives at these interfaces, each of which would have to be 1. IPv6
/// has one for all interfaces, and beside it one for each on kernels that can (Linux 6.17).
pub(super) fn forwarding_off<'a>(
    interfaces: impl Iterator<Item = &'a str>,
    ipv6: bool,
) -> Result<BTreeSet<String>> {
    const ALL: &str = "ipv6/conf/all/forwarding";
    let is_off = |value: Option<String>| value.is_none_or(|value| value == "0");
    if ipv6 && !is_off(read(ALL)?) {
        return Ok(BTreeSet::new());
    }
    let mut off = BTreeSet::new();
    for interface in interfaces {
        let own = match ipv6 {
            false => path(Family::V4, interface, "forwarding"),
            true => path(Family::V6, interface, FORCE_FORWARDING),
        };
        match read(&own)? {
            None if ipv6 => off.insert(dotted(ALL)),
            value => is_off(value) && off.insert(dotted(&own)),
        };
    }
    Ok(off)
}

/// A path below `/proc/sys/net` as sysctl(8) spells it: dots and slashes change places.
fn dotted(path: &str) -> String {
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    format!("net.{}", path.chars().map(swap).collect::<String>())
}

/// `net.ipv4.ip_local_port_range`, which holds for IPv6 as well.
pub(super) fn ephemeral_ports() -> Result<(u16, u16)> {
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    parse_ports(&text).with_context(|| format!("{file} holds no two ports: {text:?}"))
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// The two ports of a range, as `net.ipv4.ip_local_port_range` has them.
pub(crate) fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_ascii_whitespace().map(str::parse);
    match (ports.next(), ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) => Some((first, last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::LinkVeth;

    use super::*;
    use crate::host::{netlink::Netlink, testing::in_new_netns};

    #[test]
    fn forwarding_that_is_off_is_named() {
        in_new_netns(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_link(LinkVeth::new("eth0", "eth0.5").build()).unwrap();
            let off = |ipv6| forwarding_off(["eth0", "eth0.5"].into_iter(), ipv6).unwrap();
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
            for interface in ["eth0", "eth0.5"] {
                set(Family::V4, interface, "forwarding", "0").unwrap();
            }
            assert_eq!(
                off(false),
                names(&["net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.eth0/5.forwarding"])
            );
            set(Family::V4, "eth0", "forwarding", "1").unwrap();
            assert_eq!(off(false), names(&["net.ipv4.conf.eth0/5.forwarding"]));
            set(Family::V4, "eth0.5", "forwarding", "1").unwrap();
            assert_eq!(off(false), names(&[]));

            write("ipv6/conf/all/forwarding", "0").unwrap();
            if read(&path(Family::V6, "eth0", FORCE_FORWARDING)).unwrap().is_some() {
                set(Family::V6, "eth0", FORCE_FORWARDING, "1").unwrap();
                assert_eq!(off(true), names(&["net.ipv6.conf.eth0/5.force_forwarding"]));
            } else {
                assert_eq!(off(true), names(&["net.ipv6.conf.all.forwarding"]));
            }
            write("ipv6/conf/all/forwarding", "1").unwrap();
            assert_eq!(off(true), names(&[]));
        });
    }

    #[test]
    fn ephemeral_ports_are_those_of_the_namespace() {
        in_new_netns(|| {
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40100").unwrap();
            assert_eq!(ephemeral_ports().unwrap(), (40000, 40100));
        });
    }

    #[test]
    fn two_ports_are_two_ports() {
        assert_eq!(parse_ports("32768\t60999\n"), Some((32768, 60999)));
        for bad in ["", "1", "1 2 3", "1 65536", "a b"] {
            assert_eq!(parse_ports(bad), None, "{bad}");
        }
    }
}
