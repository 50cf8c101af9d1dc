//! What there is on the calling thread's namespace and on the machine, for those who look for a fault. Nothing is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Result;
use netlink_packet_route::{
    link::{LinkAttribute, LinkMessage, LinkXdp},
    tc::TcAttribute,
};
use rustix::fs::statfs;

use super::{
    bridge::is_bridge,
    netlink::{Netlink, name_of},
    netns,
    preflight::{BPF_FS_MAGIC, BPFFS},
    sysctl,
};

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its index.
    pub index: u32,
    /// It is a bridge.
    pub is_bridge: bool,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Number of the XDP program on it.
    pub xdp: Option<u32>,
    /// It has the queueing discipline that older programs and filters of tc hang on.
    pub has_clsact: bool,
}

/// The interfaces, by name.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn links() -> Result<BTreeMap<String, LinkFacts>> {
    let netlink = Netlink::open()?;
    let with_clsact: Vec<i32> = netlink
        .qdiscs()?
        .into_iter()
        .filter(|q| q.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "clsact")))
        .map(|q| q.header.index)
        .collect();
    let facts = |link: &LinkMessage| {
        let index = link.header.index;
        let mtu = link
            .attributes
            .iter()
            .find_map(|attribute| if let LinkAttribute::Mtu(mtu) = attribute { Some(*mtu) } else { None });
        let facts = LinkFacts {
            index,
            is_bridge: is_bridge(link),
            mtu: mtu.unwrap_or_default(),
            xdp: xdp_of(link),
            has_clsact: i32::try_from(index).is_ok_and(|index| with_clsact.contains(&index)),
        };
        Some((name_of(link)?.to_owned(), facts))
    };
    Ok(netlink.links()?.iter().filter_map(facts).collect())
}

fn xdp_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Xdp(parts) = attribute else { return None };
        parts.iter().find_map(|part| {
            let (LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id)) = part else {
                return None;
            };
            Some(*id)
        })
    })
}

/// Whether bpffs is mounted where pins are kept.
pub fn has_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC)
}

/// Settings below `/proc/sys/net`, those of these that there are, by their paths.
pub fn settings(paths: &[&str]) -> BTreeMap<String, String> {
    let read = |path: &&str| Some(((*path).to_owned(), sysctl::read(path).ok()??));
    paths.iter().filter_map(read).collect()
}

/// What this thread may do, as bits (capabilities(7)).
pub fn capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits())
}

/// Names in the directory where network namespaces have theirs.
pub fn namespaces() -> BTreeSet<String> {
    names(Path::new(netns::DIRECTORY))
}

/// Names of what is in a directory; none when it is not there.
pub fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// TCP ports that sockets of this namespace listen at, IPv6's included.
pub fn listening() -> Vec<u16> {
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).unwrap_or_default());
    tables.iter().flat_map(|table| listening_in(table)).collect()
}

/// Ports of the kernel's table in state 0A (`TCP_LISTEN`).
fn listening_in(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == "0A").then_some(port)
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::in_new_netns;

    #[test]
    fn a_new_namespace_has_a_loopback_and_nothing_else() {
        in_new_netns(|| {
            let links = links().unwrap();
            assert_eq!(links.keys().collect::<Vec<_>>(), ["lo"]);
            let lo = LinkFacts { index: 1, mtu: 65536, ..LinkFacts::default() };
            assert_eq!(links["lo"], lo);
            assert!(listening().is_empty());
            assert_ne!(capabilities(), 0);
        });
    }

    #[test]
    fn sockets_that_listen_are_told_from_those_that_talk() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:0050 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 2 1
";
        assert_eq!(listening_in(table), [8080]);
    }
}
