//! Which of a kernel's modules a guest is given: those that a host of containers may load.

use std::collections::{BTreeMap, BTreeSet};

/// Directories below `kernel/` of which everything is taken.
const ALL_OF: [&str; 3] = ["kernel/net/", "kernel/lib/", "kernel/fs/overlayfs/"];

/// And some of `kernel/drivers/net`, which is large.
const DRIVERS: [&str; 6] = ["dummy", "macvlan", "netkit", "tun", "veth", "vxlan"];

/// The files of the modules that are wanted and of those they need, from modules.dep(5): paths below the directory of
/// the kernel's modules.
pub(super) fn wanted(dependencies: &str) -> BTreeSet<&str> {
    let needs: BTreeMap<_, _> = dependencies.lines().filter_map(|line| line.split_once(':')).collect();
    let mut found = BTreeSet::new();
    let mut left: Vec<_> = needs.keys().copied().filter(|file| is_wanted(file)).collect();
    while let Some(file) = left.pop() {
        if found.insert(file) {
            left.extend(needs.get(file).into_iter().flat_map(|needs| needs.split_whitespace()));
        }
    }
    found
}

fn is_wanted(file: &str) -> bool {
    let name = file.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
    let driver = file.starts_with("kernel/drivers/net/") && DRIVERS.contains(&name);
    driver || ALL_OF.iter().any(|directory| file.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_what_they_need_in_turn() {
        let dependencies = "kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz
kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz
kernel/net/llc/llc.ko.xz:
kernel/drivers/net/veth.ko:
kernel/drivers/net/vxlan/vxlan.ko: kernel/crypto/somehow.ko
kernel/crypto/somehow.ko: kernel/crypto/deeper.ko
kernel/crypto/other.ko:
kernel/drivers/net/ethernet/intel/e1000/e1000.ko: kernel/crypto/other.ko
";
        let wanted: Vec<_> = wanted(dependencies).into_iter().collect();
        let all = [
            "kernel/crypto/deeper.ko",
            "kernel/crypto/somehow.ko",
            "kernel/drivers/net/veth.ko",
            "kernel/drivers/net/vxlan/vxlan.ko",
            "kernel/net/802/stp.ko.xz",
            "kernel/net/bridge/bridge.ko.xz",
            "kernel/net/llc/llc.ko.xz",
        ];
        assert_eq!(wanted, all);
    }
}
