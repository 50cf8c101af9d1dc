//! What the kernel says: netlink messages, and files of `/proc`.

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

use super::{netfilter, netlink, ports, preflight, process, routes, sysctl};
use crate::{
    controller::model::{HostPort, Protocol},
    fuzzing::{Shape, Target, refused, text},
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "netlink", shape: Shape::Bytes, run: messages, words: NETLINK },
    Target { name: "proc-files", shape: Shape::Text, run: proc_files, words: PROC },
    Target { name: "shim", shape: Shape::Json, run: shim, words: SHIM },
];
const NETLINK: &[&str] = &[
    "\x10\0",
    "\x18\0",
    "\x14\0",
    "\x02\0\0\0",
    "\x08\0\x03\0eth0",
    "\x0a\0\x01\0",
    "\x08\0\x05\0",
    "\x08\0\x04\0",
    "\x0c\0\x12\0vlan",
    "\0\0\0\0",
];
const PROC: &[&str] = &[
    " - cgroup2 cgroup2 rw\n",
    " / ",
    "/sys/fs/cgroup",
    "\\040",
    "\\134",
    "\\777",
    "/sys",
    "/sys/kernel/debug",
    "0100007F:1F90 ",
    "0A ",
    "sl local\n",
    "00000000000000000000000000000000:0050 ",
    "32768\t60999\n",
    "6.12.0-18-amd64",
    "1 (a) b) S ",
    "eth0:",
    "lo: 1 2\n",
    "é",
];
const SHIM: &[&str] = &[
    "foreground",
    "detached",
    "join",
    "launch",
    "input",
    "status",
    "log",
    "open_files",
    "pid",
    "interactive",
    "terminal",
];

fn messages(input: &[u8]) {
    if let Err(e) = netfilter::understand(input) {
        refused(format_args!("{e:#}"), input);
    }
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(input) else { return };
    match message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
        ) => {
            let identity = netlink::link_of(&link);
            assert_eq!(identity.index, link.header.index);
            netlink::group_of(&link);
            routes::leads_out(&link);
            routes::vlan_is_on(&link);
            assert!(netlink::name_of(&link).is_none_or(|name| name.len() <= input.len() * 3));
            assert!(routes::bus_of(&link).is_none_or(|bus| bus.len() <= input.len() * 3));
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
            if routes::is_default(&route) {
                assert_eq!(route.header.destination_prefix_length, 0);
            }
            routes::next_hop(&route);
        }
        // Of everything else nothing is read here.
        NetlinkPayload::InnerMessage(_)
        | NetlinkPayload::Done(_)
        | NetlinkPayload::Error(_)
        | NetlinkPayload::Noop
        | NetlinkPayload::Overrun(_)
        | _ => {}
    }
}

fn proc_files(input: &[u8]) {
    assert!(preflight::unescape(input).len() <= input.len());
    let escaped: String = input.iter().map(|byte| format!("\\{byte:03o}")).collect();
    assert_eq!(preflight::unescape(escaped.as_bytes()), input);
    let lines = input.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!(preflight::cgroup2_roots(input).count() <= lines);
    let Some(text) = text(input) else { return };
    let tops = process::surroundings::tops_below_sys(text);
    assert!(tops.iter().all(|top| top.starts_with("/sys") && top.as_os_str() != "/sys"));
    assert!(tops.iter().enumerate().all(|(n, top)| !tops[..n].iter().any(|above| top.starts_with(above))));
    for addr in ["0.0.0.0", "127.0.0.1", "::"] {
        let Ok(addr) = addr.parse() else { continue };
        for port in [0, 80, 8080] {
            let found = ports::inodes_in(text, HostPort { addr, port, protocol: Protocol::Tcp });
            assert!(found.len() < lines && !found.contains(&0));
        }
    }
    let names = routes::names_in(text);
    assert!(names.len() < lines && !names.iter().any(|name| name.contains(':')));
    if let Some((first, last)) = sysctl::parse_ports(text) {
        assert_eq!(sysctl::parse_ports(&format!("{first}\t{last}\n")), Some((first, last)));
    }
    if let Err(e) = preflight::check_release(text) {
        refused(e, input);
    }
    process::pid::start_time_in(text);
}

/// What a shim is told, which is read from its command line once more.
fn shim(input: &[u8]) {
    process::check_spec(input);
}
