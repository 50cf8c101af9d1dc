//! What the controller makes of requests: ports, hosts, settings, and the files of a container.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rnet_common::limits::PORTS;

use super::{
    exposed, files,
    files::Servers,
    model::{
        name::{check_hostname, check_interface, check_name},
        port_spec::{PortChoice, PortSpec},
        resolv_conf::{check_option, check_search_domain, nameservers},
        sysctl,
    },
    publishing,
    request::CreateContainer,
};
use crate::{
    fuzzing::{Shape, Target, refused, settles, text},
    store::schema::Resolver,
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "port-spec", shape: Shape::Text, run: port_spec, words: SPECS },
    Target { name: "names", shape: Shape::Text, run: names, words: NAMES },
    Target { name: "resolv-conf", shape: Shape::Text, run: resolv_conf, words: RESOLV_CONF },
];
const SPECS: &[&str] = &[
    "0-65535",
    "65535",
    ":",
    "::",
    "[::1]",
    "127.0.0.1",
    "/tcp",
    "/udp",
    "/SCTP",
    "published=",
    "target=",
    "protocol=",
    ",",
    "-",
    "::ffff:10.0.0.1",
    "[fe80::1%eth0]",
    "=",
];
const NAMES: &[&str] = &[
    "net.",
    "//",
    "/",
    "..",
    ".",
    "kernel.",
    "fs.mqueue.",
    "net.ipv4.conf.eth0/7.rp_filter",
    "host-gateway",
    ":",
    "=",
    "[",
    "]",
    "fd00::9",
    "10.0.0.9",
    "all",
    "%d",
    "\t",
    "\u{a0}",
    "1-65535",
    "/udp",
];
const RESOLV_CONF: &[&str] = &[
    "nameserver ",
    "search ",
    "options ",
    "domain ",
    "ndots:2",
    "edns0",
    "127.0.0.53",
    "::1",
    "fe80::1%eth0",
    "192.0.2.1",
    "\n",
    "\r",
    "\u{85}",
    "\u{2028}",
    "\x0b",
    "#",
    ";",
    ".",
];

fn port_spec(input: &[u8]) {
    let Some(text) = text(input) else { return };
    settles::<PortSpec>(text);
    if let Ok(spec) = text.parse::<PortSpec>() {
        let mut count = 0;
        for mapping in spec.mappings() {
            count += 1;
            match mapping.host {
                PortChoice::Exactly(port) => assert_ne!(port, 0, "{text:?}"),
                PortChoice::OneOf(range) => assert!(range.first() < range.last(), "{text:?}"),
                PortChoice::Ephemeral => {}
            }
        }
        assert_eq!(count, spec.len(), "{text:?}");
    }
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    publish(&lines, &[], input);
}

/// Ports that are to be published.
pub(crate) fn publish(ports: &[String], from: &[IpNetwork], input: &[u8]) {
    match publishing::publications(ports, from) {
        Ok(made) => assert!(made.len() <= PORTS && made.len() >= ports.len(), "{} of {ports:?}", made.len()),
        Err(e) => refused(e, input),
    }
}

/// A container that is to be made.
pub(crate) fn container(asked: &CreateContainer, input: &[u8]) {
    publish(&asked.publish, &asked.from, input);
    expose(&asked.expose, input);
    asked.extra_hosts.iter().for_each(|host| extra_host(host));
    asked.sysctls.keys().for_each(|key| setting(key));
    let (search, options) = (&asked.dns_search, &asked.dns_options);
    if search.iter().all(|domain| check_search_domain(domain).is_ok())
        && options.iter().all(|option| check_option(option).is_ok())
    {
        let resolver =
            Resolver { servers: asked.dns.clone(), search: search.clone(), options: options.clone() };
        let written = files::resolv_conf("", &resolver, Servers::Others);
        assert!(nameservers(&written).eq(asked.dns.iter().copied()), "{written}");
        assert!(written.lines().count() <= asked.dns.len() + 2, "{written}");
    }
}

fn expose(exposes: &[String], input: &[u8]) {
    match exposed::parse(exposes) {
        Ok(exposed) => {
            assert!(
                exposed.len() <= 3 * usize::from(u16::MAX)
                    && exposed.len() >= usize::from(!exposes.is_empty())
            );
            assert!(exposed.is_sorted_by(|a, b| a < b), "each once, in order");
        }
        Err(e) => refused(e, input),
    }
}

fn extra_host(text: &str) {
    match files::extra_host(text, Some(IpAddr::from([172, 17, 0, 1]))) {
        Ok((name, addr)) => {
            let written = files::hosts(&[], "web", &[(name.clone(), addr)]);
            let last: Vec<_> = written.lines().next_back().unwrap_or_default().split_whitespace().collect();
            assert_eq!(last, [addr.to_string(), name], "{text:?}");
        }
        Err(e) => refused(e, text.as_bytes()),
    }
}

/// A setting stays where settings of a namespace are.
fn setting(key: &str) {
    match sysctl::check(key) {
        Ok(()) => {
            let path = sysctl::path(key);
            let below = ["net/", "fs/mqueue/", "kernel/"].iter().any(|dir| path.starts_with(dir));
            assert!(
                below && path.split('/').all(|part| !matches!(part, "" | "." | "..")),
                "{key:?} is {path:?}"
            );
        }
        Err(e) => refused(e, key.as_bytes()),
    }
}

fn names(input: &[u8]) {
    let Some(text) = text(input) else { return };
    setting(text);
    extra_host(text);
    expose(&text.lines().map(str::to_owned).collect::<Vec<_>>(), input);
    match check_interface(text) {
        Ok(()) => {
            assert!((1..16).contains(&text.len()) && !text.contains(['/', '%', ' ', '\n', '\0']), "{text:?}");
        }
        Err(e) => refused(e, input),
    }
    // These become parts of paths and lines of files.
    for (what, outcome) in [("name", check_name("network", text)), ("host name", check_hostname(text))] {
        match outcome {
            Ok(()) => {
                let is_plain = !text.contains('/') && !matches!(text, "" | "." | "..");
                assert!(is_plain && text.split_whitespace().count() == 1, "{what} {text:?}");
            }
            Err(e) => refused(e, input),
        }
    }
}

fn resolv_conf(input: &[u8]) {
    let Some(host) = text(input) else { return };
    let known: Vec<IpAddr> = nameservers(host).collect();
    let gateways = [IpAddr::from([10, 1, 0, 1])];
    for (servers, expected) in [
        (Servers::OnHost, known.clone()),
        (Servers::Others, known.iter().copied().filter(|addr| !addr.is_loopback()).collect()),
        (Servers::Rnet(&gateways), gateways.to_vec()),
    ] {
        let written = files::resolv_conf(host, &Resolver::default(), servers);
        assert_eq!(nameservers(&written).collect::<Vec<_>>(), expected, "{written}");
        assert!(written.lines().count() <= expected.len() + 2, "{written}");
        let again = files::resolv_conf(&written, &Resolver::default(), servers);
        assert_eq!(again, written, "it is all that there is to say");
    }
}
