//! What the kernel has counted for the interfaces of many namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::netns::{enter, on_own_thread};
use crate::controller::view::{Traffic, Usage};

/// Fills in what has passed each interface. A namespace that cannot be looked into, such as one that has just ended, is
/// left out.
pub fn fill_in(usage: &mut Usage) {
    let namespaces: BTreeSet<PathBuf> =
        usage.containers.iter().filter_map(|container| container.netns.clone()).collect();
    let counted = match look_into(&namespaces) {
        Ok(counted) => counted,
        Err(e) => return tracing::warn!("look into the containers' namespaces: {e:#}"),
    };
    for container in &mut usage.containers {
        let Some(counted) = container.netns.as_ref().and_then(|netns| counted.get(netns)) else { continue };
        for interface in &mut container.interfaces {
            interface.traffic = counted.get(&interface.name).copied();
        }
    }
}

/// One thread goes through all of them: to enter one takes some microseconds, and a thread for each would take more.
fn look_into(namespaces: &BTreeSet<PathBuf>) -> Result<BTreeMap<PathBuf, BTreeMap<String, Traffic>>> {
    on_own_thread(|| {
        let look = |path: &PathBuf| Some((path.clone(), enter_and_read(path).ok()?));
        Ok(namespaces.iter().filter_map(look).collect())
    })
}

fn enter_and_read(path: &Path) -> Result<BTreeMap<String, Traffic>> {
    enter(path)?;
    // Not /proc/net, which is of the process's first thread.
    Ok(parse(&fs::read_to_string("/proc/thread-self/net/dev").context("read the interfaces' counters")?))
}

/// The kernel's table of interfaces below two lines of headings: eight numbers for each direction (proc_pid_net(5)).
fn parse(counters: &str) -> BTreeMap<String, Traffic> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
        let [rx_bytes, rx_packets, _, rx_dropped, _, _, _, _, tx_bytes, tx_packets, _, tx_dropped, ..] =
            numbers[..]
        else {
            return None;
        };
        let traffic = Traffic { rx_bytes, rx_packets, rx_dropped, tx_bytes, tx_packets, tx_dropped };
        Some((name.trim_start().to_owned(), traffic))
    };
    counters.lines().skip(2).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_understood() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     10       1    0    0    0     0          0         0       10       1    0    0    0     0       0          0
  eth0: 1234567     100    0    7    0     0          0         0    89     9    0    2    0     0       0          0
 short: 1 2 3
";
        let counted = parse(table);
        assert_eq!(counted.keys().collect::<Vec<_>>(), ["eth0", "lo"]);
        let eth0 = Traffic {
            rx_bytes: 1_234_567,
            rx_packets: 100,
            rx_dropped: 7,
            tx_bytes: 89,
            tx_packets: 9,
            tx_dropped: 2,
        };
        assert_eq!(counted["eth0"], eth0);
    }
}
