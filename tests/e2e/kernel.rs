//! The kernel that rnet is started on: it is given every program, or refused before anything is made.

use std::{collections::BTreeSet, fs, path::PathBuf};

use testbed::{Host, Rnet, Snapshot, bpf::BPFFS, require_root};

#[test]
fn one_that_is_new_enough_takes_every_program() {
    require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["status"]);
}

#[test]
#[ignore = "needs a kernel that rnet does not run on: `cargo xtask vm-test --kernel 6.1`"]
fn one_that_is_too_old_is_refused_in_one_line_and_nothing_is_left() {
    require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let places = || -> BTreeSet<PathBuf> {
        let entries = ["/run", "/run/netns", "/var/lib", "/etc", BPFFS].map(|dir| fs::read_dir(dir).unwrap());
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    let (before, files) = (Snapshot::take(&host.ns, rnet.instance()), places());

    let refusal = rnet.fails(&["daemon"]);

    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(refusal.contains(&format!("kernel {} is too old", release.trim_end())), "{refusal}");
    assert!(refusal.contains("rnet needs Linux 6.7 or later"), "{refusal}");
    before.assert_restored(&host.ns, rnet.instance(), "a refused start");
    assert_eq!(places(), files);
}
