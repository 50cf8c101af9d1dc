//! The kernel that rnet is started on: it is given every program, or refused before anything is made.

use std::{collections::BTreeSet, fs, path::PathBuf};

use testbed::{
    Host, Rnet, Snapshot,
    bpf::{BPFFS, pinned_by},
    require_root,
};

#[test]
fn one_that_is_new_enough_takes_every_program() {
    require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    // The program for drivers is loaded only where it is asked for.
    rnet.start_daemon_with(&["--xdp", "native"]);
    rnet.run("web", &[]);

    assert!(rnet.ok(&["status"]).contains("eth0 (XDP native)"));
    let pinned = pinned_by(rnet.instance());
    let links: Vec<_> = pinned.iter().filter(|object| object.kind == "link").collect();
    let programs = [
        "from_container",
        "from_uplink",
        "xdp_uplink",
        "sock_bind4",
        "sock_bind6",
        "sock_connect4",
        "sock_connect6",
        "sock_peername4",
        "sock_peername6",
        "sock_recvmsg4",
        "sock_recvmsg6",
        "sock_sendmsg4",
        "sock_sendmsg6",
    ];
    for program in programs {
        let is_it = |link: &str| link.split('-').next() == Some(program);
        let attached =
            links.iter().any(|link| link.pin.file_name().and_then(|n| n.to_str()).is_some_and(is_it));
        assert!(attached, "{program} is attached, so bpftool says: {links:?}");
    }
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
