//! Every key of the file, and whether it can change while the daemon runs.

/// A key. Those of rnet's own object are called `rnet.NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// SIGHUP puts a change in force; the others wait for the next start.
    pub reloads: bool,
}

/// Beginning of the names of rnet's own keys.
pub(super) const OWN: &str = "rnet.";

/// All keys.
pub const KEYS: [Key; 31] = [
    at_start("bip"),
    at_start("default-gateway"),
    at_start("default-gateway-v6"),
    reloaded("default-address-pools"),
    reloaded("dns"),
    reloaded("dns-opts"),
    reloaded("dns-search"),
    at_start("fixed-cidr"),
    at_start("fixed-cidr-v6"),
    at_start("hosts"),
    at_start("icc"),
    reloaded("ip"),
    at_start("ip-masq"),
    at_start("ipv6"),
    reloaded("log-level"),
    at_start("metrics-addr"),
    at_start("mtu"),
    reloaded("tlscacert"),
    reloaded("tlscert"),
    reloaded("tlskey"),
    at_start("tlsverify"),
    at_start("rnet.docker"),
    at_start("rnet.max-connections"),
    at_start("rnet.max-flows"),
    reloaded("rnet.max-flows-per-container"),
    at_start("rnet.max-ports"),
    at_start("rnet.snat-port-range"),
    reloaded("rnet.source-rate"),
    reloaded("rnet.timeouts"),
    reloaded("rnet.uplinks"),
    at_start("rnet.xdp"),
];

const fn at_start(name: &'static str) -> Key {
    Key { name, reloads: false }
}

const fn reloaded(name: &'static str) -> Key {
    Key { name, reloads: true }
}

/// The name of a key as the table has it.
pub(super) fn known(name: &str) -> Option<&'static str> {
    KEYS.iter().map(|key| key.name).find(|known| *known == name)
}

/// The key that may have been meant by `name`, which there is not.
pub(super) fn similar(name: &str) -> Option<&'static str> {
    // As far apart as clap lets a flag be from what was typed.
    const ALIKE: f64 = 0.7;
    let own = |name: &str| name.strip_prefix(OWN).unwrap_or(name).to_owned();
    let likeness = |key: &str| strsim::jaro(&own(key), &own(name));
    let alike =
        KEYS.iter().map(|key| (likeness(key.name), key.name)).filter(|(likeness, _)| *likeness > ALIKE);
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_reference_with_whether_it_reloads() {
        let reference = include_str!("../../../docs/operating.md");
        let rows = reference.lines().filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _default, reloads, _meaning] = cells[..] else { return None };
            Some((name.strip_prefix('`')?.strip_suffix('`')?.to_owned(), reloads.to_owned()))
        });
        let mut documented: Vec<_> = rows.collect();
        let says = |key: &Key| if key.reloads { "yes" } else { "no" };
        let mut known: Vec<_> = KEYS.iter().map(|key| (key.name.to_owned(), says(key).to_owned())).collect();
        documented.sort();
        known.sort();
        assert_eq!(documented, known);
    }

    #[test]
    fn slips_are_recognised_and_nonsense_is_not() {
        for (slip, meant) in [
            ("bipp", "bip"),
            ("fixed-cird", "fixed-cidr"),
            ("log_level", "log-level"),
            ("uplinks", "rnet.uplinks"),
        ] {
            assert_eq!(similar(slip), Some(meant), "{slip}");
        }
        assert_eq!(similar("storage"), None);
        assert_eq!(similar("zzz"), None);
    }
}
