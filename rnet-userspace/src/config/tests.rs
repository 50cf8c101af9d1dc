//! What files say, and what is said of those that are wrong.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
};

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rnet_common::settings::SECOND;
use tempfile::{NamedTempFile, TempDir};
use time::OffsetDateTime;

use super::*;

fn flags(text: &str) -> (NamedTempFile, Flags) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let flags = Flags { file: Some(file.path().to_owned()), ..Flags::default() };
    (file, flags)
}

fn load(text: &str) -> Result<DaemonConfig> {
    let (_file, flags) = flags(text);
    DaemonConfig::load("rnet", &flags)
}

/// What a wrong file is refused with, without the file's name.
fn refusal(text: &str) -> String {
    let (file, flags) = flags(text);
    let error = DaemonConfig::load("rnet", &flags).unwrap_err().to_string();
    let place = error.strip_prefix(&file.path().display().to_string());
    place.unwrap_or_else(|| panic!("no place: {error}")).trim_start_matches(':').to_owned()
}

#[test]
fn every_key_is_put_where_it_acts() {
    let config = load(
        r#"{
        "bip": "10.9.0.1/16", "fixed-cidr": "10.9.7.0/24", "default-gateway": "10.9.0.1",
        "ipv6": true, "fixed-cidr-v6": "fd00:9::/64", "default-gateway-v6": "fd00:9::9",
        "mtu": 1400, "icc": false, "ip-masq": false, "ip": "127.0.0.1",
        "dns": ["9.9.9.9", "2620:fe::fe"], "dns-search": ["example.com"], "dns-opts": ["ndots:2"],
        "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
        "hosts": ["unix:///run/other.sock", "tcp://127.0.0.1"], "tlsverify": false, "log-level": "debug",
        "rnet": {"uplinks": ["eth0"], "timeouts": {"udp": 5, "icmp": "2m"}, "snat-port-range": "2000-3000",
                 "max-flows": 1000, "max-ports": 10, "max-connections": 100, "xdp": "auto",
                 "max-flows-per-container": 0, "source-rate": 40}
        }"#,
    )
    .unwrap();
    let instance = &config.instance;
    let network = &instance.default_network;
    let (v4, v6) = (network.subnet.clone().unwrap(), network.subnet_v6.clone().unwrap());
    let text = |s: &Subnet| format!("{:?} {:?} {:?}", s.subnet, s.ip_range, s.gateway);
    let expected = |subnet: &str, range: Option<&str>, gateway: &str| Subnet {
        subnet: subnet.parse().ok(),
        ip_range: range.map(|r| r.parse().unwrap()),
        gateway: gateway.parse().ok(),
        ..Subnet::default()
    };
    assert_eq!(text(&v4), text(&expected("10.9.0.0/16", Some("10.9.7.0/24"), "10.9.0.1")));
    assert_eq!(text(&v6), text(&expected("fd00:9::/64", None, "fd00:9::9")));
    assert_eq!(
        (network.ipv6, network.mtu, network.icc, network.masquerade),
        (true, Some(1400), false, false)
    );
    assert_eq!(instance.bind.to_string(), "127.0.0.1");
    assert_eq!(instance.dns, ["9.9.9.9", "2620:fe::fe"].map(|a| a.parse::<std::net::IpAddr>().unwrap()));
    assert_eq!((&instance.dns_search[0][..], &instance.dns_options[0][..]), ("example.com", "ndots:2"));
    assert_eq!(
        config.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["unix:///run/other.sock", "tcp://127.0.0.1"]
    );
    assert_eq!((config.log_level, config.max_flows, config.max_ports), (Level::Debug, Some(1000), Some(10)));
    assert_eq!(config.max_connections, 100);
    assert_eq!(instance.uplinks, Some(vec!["eth0".to_owned()]));
    assert_eq!((instance.timeouts.udp, instance.timeouts.icmp), (5 * SECOND, 120 * SECOND));
    assert_eq!(instance.snat_ports, (2000, 3000));
    assert_eq!((instance.flow_limits.per_container, instance.flow_limits.source_rate), (Some(0), 40));
    let pools: Vec<_> = instance.pools.iter().filter(|(pool, _)| pool.is_ipv4()).copied().collect();
    assert_eq!(pools, [("10.10.0.0/16".parse().unwrap(), 24)]);
    assert_eq!(instance.pools.len(), 2, "nothing is said of IPv6's");
}

#[test]
fn the_documented_example_is_taken() {
    let example = include_str!("../../../docs/operating.md").split("```json").nth(1).unwrap();
    let config = load(example.split("```").next().unwrap()).unwrap();
    assert_eq!(config.instance.uplinks, Some(vec!["eth0".to_owned()]));
}

#[test]
fn without_a_word_all_is_as_it_always_is() {
    for text in ["", "\n", "{}", r#"{"rnet": {}}"#] {
        let config = load(text).unwrap();
        assert_eq!(config.instance, controller::Config::new("rnet").unwrap());
        assert!(config.hosts.is_empty() && config.tls.is_none() && config.log_level == Level::Info);
    }
    let fixed = load(r#"{"fixed-cidr": "10.9.7.0/24"}"#).unwrap().instance.default_network.subnet.unwrap();
    assert_eq!((fixed.subnet, fixed.ip_range), ("10.9.7.0/24".parse().ok(), None), "the network itself");
    assert_eq!(load(r#"{"mtu": 0}"#).unwrap().instance.default_network.mtu, None);
}

#[test]
fn a_key_that_cannot_be_is_refused_with_its_place() {
    for (text, expected) in [
        (
            "{\n  \"icc\": true,\n  \"bipp\": \"10.0.0.1/24\"\n}",
            "3:3: unknown key `bipp`; did you mean `bip`?",
        ),
        (r#"{"uplinks": []}"#, "1:2: unknown key `uplinks`; did you mean `rnet.uplinks`?"),
        (r#"{"rnet": {"mtu": 1}}"#, "1:11: unknown key `rnet.mtu`; did you mean `mtu`?"),
        (r#"{"mtu": 1400, "mtu": 1400}"#, "1:15: `mtu` is there twice: leave one out"),
        (r#"{"rnet": {}, "rnet": {}}"#, "1:14: `rnet` is there twice: leave one out"),
        (r#"{"rnet": []}"#, "1:10: `rnet`: it should be an object, and is a list"),
        ("{\n  \"mtu\": 1400,\n}", "3:1: invalid JSON: trailing comma"),
        ("{\"icc\": yes}", "1:9: invalid JSON: expected value"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
    assert!(refusal(r#"{"zzz": 1}"#).starts_with("1:2: unknown key `zzz`; known are bip, "));
}

#[test]
fn a_value_that_cannot_be_is_refused_with_its_place() {
    for (member, expected) in [
        (r#""icc": "yes""#, "1:9: `icc`: it should be true or false, and is a string"),
        (r#""mtu": 67"#, "1:9: `mtu`: invalid MTU number: 67: 68 to 65535 is allowed"),
        (r#""mtu": "1500""#, "1:9: `mtu`: it should be a whole number, and is a string"),
        (r#""bip": "10.0.0.1""#, "invalid CIDR address: 10.0.0.1: it should be as 10.1.0.0/24"),
        (r#""bip": "10.0.0.0/24""#, "invalid gateway 10.0.0.0: it is the network or broadcast address"),
        (r#""bip": "fd00::1/64""#, "fd00::1/64 is not of IPv4"),
        (r#""bip": "127.0.0.1/8""#, "its addresses are not for containers"),
        (r#""fixed-cidr": "10.0.0.1/24""#, "it should be 10.0.0.0/24"),
        (r#""dns": ["9.9.9.9", "nine"]"#, "1:21: `dns`: nine is not an ip address"),
        (r#""dns": "9.9.9.9""#, "1:9: `dns`: it should be a list, and is a string"),
        (r#""dns-search": ["a b"]"#, "a b is not a valid domain"),
        (r#""dns-opts": ["a b"]"#, "no option of resolv.conf"),
        (r#""ip": "eth0""#, "eth0 is not an ip address"),
        (r#""log-level": "loud""#, "1:15: `log-level`: invalid logging level: loud"),
        (
            r#""default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]"#,
            "1:60: `default-address-pools`: subnets of /8 cannot be cut from 10.0.0.0/16: 16 to 30 is allowed",
        ),
        (r#""default-address-pools": [{"base": "10.0.0.0/16"}]"#, "a pool needs `base` and `size`"),
        (r#""default-address-pools": [{"base": "10.0.1.0/16", "size": 24}]"#, "it should be 10.0.0.0/16"),
        (r#""default-address-pools": [{"bas": "10.0.1.0/16"}]"#, "unknown key `bas` of a pool"),
        (
            r#""default-address-pools": [{"base": "10.0.0.0/8", "size": 24}, {"base": "10.1.0.0/16", "size": 24}]"#,
            "pool 10.1.0.0/16 overlaps pool 10.0.0.0/8",
        ),
        (r#""hosts": ["fd://"]"#, "1:12: `hosts`: invalid address \"fd://\""),
        (r#""hosts": ["tcp://127.0.0.1", "tcp://127.0.0.1"]"#, "tcp://127.0.0.1 is there twice"),
        (r#""rnet": {"timeouts": {"sctp": 1}}"#, "unknown timeout \"sctp\": known are "),
        (r#""rnet": {"timeouts": {"udp": 0}}"#, "1:31: `rnet.timeouts`: invalid timeout udp of 0s"),
        (r#""rnet": {"timeouts": {"udp": "1w"}}"#, "it should be as udp=30s"),
        (r#""rnet": {"snat-port-range": "9-1"}"#, "it should be as 1024-32767"),
        (r#""rnet": {"max-ports": 131073}"#, "131073 is out of range: 1 to 131072 is allowed"),
        (r#""rnet": {"max-connections": 15}"#, "15 is out of range: 16 to 65536 is allowed"),
        (r#""rnet": {"max-flows": 0}"#, "0 is out of range: 1 to 16777216 is allowed"),
        (
            r#""rnet": {"max-flows-per-container": 16777217}"#,
            "16777217 is out of range: 1 to 16777216, or 0 for no limit, is allowed",
        ),
        (
            r#""rnet": {"source-rate": 1000001}"#,
            "1000001 is out of range: 1 to 1000000, or 0 for no limit, is allowed",
        ),
        (r#""rnet": {"uplinks": ["a b"]}"#, "invalid interface name \"a b\""),
        (r#""rnet": {"xdp": "on"}"#, "unknown mode \"on\": auto, native and off are allowed"),
        (r#""rnet": {"xdp": "generic"}"#, "\"generic\" is not possible: the kernel passes packets on"),
        (r#""tlsverify": 1"#, "it should be true or false, and is 1"),
    ] {
        let refused = refusal(&format!("{{{member}}}"));
        assert!(refused.contains(expected), "{member}: {refused:?} lacks {expected:?}");
    }
}

#[test]
fn values_that_contradict_one_another_are_refused() {
    for (text, expected) in [
        (
            r#"{"bip": "10.0.0.1/24", "fixed-cidr": "10.1.0.0/25"}"#,
            "1:38: `fixed-cidr`: invalid ip-range 10.1.0.0/25: parent subnet 10.0.0.0/24 doesn't contain",
        ),
        (
            r#"{"bip": "10.0.0.1/24", "default-gateway": "10.0.0.2"}"#,
            "1:24: `default-gateway`: 10.0.0.2 is not the bridge's address",
        ),
        (r#"{"default-gateway": "10.0.0.2"}"#, "it needs `bip` or `fixed-cidr`"),
        (
            r#"{"fixed-cidr": "10.0.0.0/24", "default-gateway": "10.0.1.1"}"#,
            "it is not in subnet 10.0.0.0/24",
        ),
        (
            r#"{"fixed-cidr-v6": "fd00::/64"}"#,
            "1:2: `fixed-cidr-v6`: the default network has no IPv6: set `ipv6` to true",
        ),
        (r#"{"ipv6": true, "default-gateway-v6": "fd00::1"}"#, "it needs `fixed-cidr-v6` to be in"),
        (
            r#"{"ipv6": true, "fixed-cidr-v6": "fd00::/64", "default-gateway-v6": "fd01::1"}"#,
            "it is not in subnet fd00::/64",
        ),
        (r#"{"ipv6": true, "mtu": 1279}"#, "1:16: `mtu`: 1279 is too little for `ipv6`, which needs 1280"),
        (
            r#"{"hosts": ["tcp://0.0.0.0:2375"]}"#,
            "1:12: `hosts`: tcp://0.0.0.0:2375 can be reached from outside",
        ),
        (r#"{"hosts": ["tcp://[::]"], "tlsverify": false}"#, "can be reached from outside"),
        (r#"{"tlsverify": true}"#, "1:2: `tlsverify`: it needs `tlscacert`, `tlscert` and `tlskey`"),
        (r#"{"tlscert": "/x"}"#, "1:2: `tlscert`: it is of no use unless `tlsverify` is true"),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(expected), "{text}: {refused:?} lacks {expected:?}");
    }
}

#[test]
fn what_is_both_a_flag_and_in_the_file_is_refused_in_dockers_words() {
    let (_file, flags) = flags(r#"{"ipv6": false, "rnet": {"uplinks": ["eth0"], "max-flows": 7}}"#);
    let flags = Flags { ipv6: true, uplinks: vec!["eth1".into()], max_ports: Some(3), ..flags };
    assert_eq!(
        DaemonConfig::load("rnet", &flags).unwrap_err().to_string(),
        "the following directives are specified both as a flag and in the configuration file: ipv6: (from flag: true, \
         from file: false), rnet.uplinks: (from flag: eth1, from file: [\"eth0\"])"
    );
    let flags = Flags { ipv6: false, uplinks: Vec::new(), ..flags };
    let config = DaemonConfig::load("rnet", &flags).unwrap();
    assert_eq!((config.max_flows, config.max_ports), (Some(7), Some(3)), "each where it is said");
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let dir = TempDir::new().unwrap();
    let flags = Flags { file: Some(dir.path().join("none.json")), ..Flags::default() };
    let error = format!("{:#}", DaemonConfig::load("rnet", &flags).unwrap_err());
    assert!(error.contains("none.json: No such file"), "{error}");
    assert_eq!(default_path("rnet"), Path::new("/etc/rnet/daemon.json"));
    DaemonConfig::load("no-such-instance", &Flags::default()).unwrap();
}

#[test]
fn changes_that_wait_for_a_start_are_named() {
    let before = load(r#"{"mtu": 1400, "icc": true, "dns": ["9.9.9.9"], "rnet": {"max-ports": 5}}"#).unwrap();
    let after = load(r#"{"icc": true, "mtu": 1300, "log-level": "warn", "hosts": []}"#).unwrap();
    assert_eq!(after.waiting(&before), ["hosts", "mtu", "rnet.max-ports"]);
    assert!(before.waiting(&before).is_empty());
}

#[test]
fn certificates_are_read_when_the_file_is() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("cert.pem", cert.pem()),
        ("key.pem", key.serialize_pem()),
        ("other.pem", KeyPair::generate().unwrap().serialize_pem()),
        ("empty.pem", String::new()),
    ] {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), Permissions::from_mode(0o600)).unwrap();
    }
    let text = |ca: &str, cert: &str, key: &str| {
        let (ca, cert, key) = (path(ca), path(cert), path(key));
        format!(
            r#"{{"hosts": ["tcp://0.0.0.0"], "tlsverify": true, "tlscacert": "{ca}", "tlscert": "{cert}", "tlskey": "{key}"}}"#
        )
    };
    assert!(load(&text("ca.pem", "cert.pem", "key.pem")).unwrap().tls.is_some());
    for (ca, cert, key, expected) in [
        ("none.pem", "cert.pem", "key.pem", "`tlscacert`: read certificates from"),
        ("ca.pem", "empty.pem", "key.pem", "`tlscert`: "),
        ("ca.pem", "cert.pem", "empty.pem", "`tlskey`: read a private key from"),
        ("ca.pem", "cert.pem", "other.pem", "`tlsverify`: use the certificate with its key"),
    ] {
        let refused = refusal(&text(ca, cert, key));
        assert!(refused.contains(expected), "{refused:?} lacks {expected:?}");
    }
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(path("key.pem"), Permissions::from_mode(mode)).unwrap();
        let refused = refusal(&text("ca.pem", "cert.pem", "key.pem"));
        let expected = format!("(mode {mode:04o}): chmod 600 {}", path("key.pem"));
        assert!(refused.ends_with(&expected), "{refused:?} lacks {expected:?}");
    }
    fs::set_permissions(path("key.pem"), Permissions::from_mode(0o400)).unwrap();
    let config = load(&text("ca.pem", "cert.pem", "key.pem")).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());

    let now = OffsetDateTime::now_utc();
    let day = time::Duration::DAY;
    for (begins, ends, expected) in [
        (now - 9 * day, now - day, "has expired, on "),
        (now + day, now + 99 * day, "is not valid before "),
        (now - 9 * day, now + 9 * day, "expires on "),
    ] {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (begins, ends);
        fs::write(path("cert.pem"), params.signed_by(&key, &ca).unwrap().pem()).unwrap();
        let warnings = load(&text("ca.pem", "cert.pem", "key.pem")).unwrap().warnings;
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        let expected = format!("`tlscert`: a certificate in {} {expected}", path("cert.pem"));
        assert!(warning.starts_with(&expected), "{warning:?} lacks {expected:?}");
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(b"{}").unwrap();
    file.as_file().set_len(1 << 40).unwrap();
    let flags = Flags { file: Some(file.path().to_owned()), ..Flags::default() };
    let error = format!("{:#}", DaemonConfig::load("rnet", &flags).unwrap_err());
    assert!(error.ends_with("it is larger than 1048576 bytes, which is the most"), "{error}");
}

proptest! {
    /// Whatever the text, it is taken, or refused with a place that is in it.
    #[test]
    fn any_text_is_taken_or_refused_at_a_place_in_it(
        members in prop::collection::vec((0..KEYS.len(), "(true|7|-1|\"x\"|\"10[.]0[.]0[.]1/8\"|\\[\"eth0\"\\]|\\{\\})"), 0..4),
        between in "[ \n]{0,3}",
    ) {
        let members: Vec<_> = members
            .iter()
            .map(|(key, value)| match KEYS[*key].name.strip_prefix("rnet.") {
                Some(own) => format!("\"rnet\":{between}{{\"{own}\":{value}}}"),
                None => format!("\"{}\"{between}:{value}", KEYS[*key].name),
            })
            .collect();
        let text = format!("{{{between}{}}}", members.join(&format!(",{between}")));
        if let Err(error) = load(&text) {
            let error: Error = error.downcast().unwrap();
            let line = text.lines().nth(error.line - 1).unwrap();
            prop_assert!((1..=line.chars().count()).contains(&error.column), "{error} in {text}");
            prop_assert!(error.why.contains('`'), "it names the key: {error}");
        }
    }
}

#[test]
fn docker_is_followed_where_it_is_said_to_be_and_keeps_its_pools() {
    let of = |docker: &str| load(&format!(r#"{{"rnet": {{"docker": {docker}}}}}"#)).unwrap();
    assert_eq!(of("true").docker, Some("/var/run/docker.sock".into()));
    assert_eq!(of(r#""unix:///run/d.sock""#).docker, Some("/run/d.sock".into()));
    assert_eq!((of("false").docker, load("{}").unwrap().docker), (None, None));
    let pools = |config: &DaemonConfig| {
        let v4 = config.instance.pools.iter().filter(|(pool, _)| pool.is_ipv4());
        v4.map(|(pool, _)| pool.to_string()).collect::<Vec<_>>()
    };
    assert!(pools(&load("{}").unwrap()).iter().any(|pool| pool.starts_with("172.17.")));
    assert_eq!(pools(&of("true")), ["10.213.0.0/16"]);
    let said =
        r#"{"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}], "rnet": {"docker": true}}"#;
    assert_eq!(pools(&load(said).unwrap()), ["10.10.0.0/16"]);
    assert!(refusal(r#"{"rnet": {"docker": 1}}"#).contains("true, false, or an address as unix:///"));
    assert!(refusal(r#"{"rnet": {"docker": "tcp://1.2.3.4"}}"#).contains("unix:///var/run/docker.sock"));
}
