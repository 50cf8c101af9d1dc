//! Which host port each published port gets. Pure: whether a program of the host has a port is for the
//! caller to find out, and to tell by `unavailable`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::model::{Binding, HostPort, Protocol, port_spec::PortChoice};

/// A container port to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Host addresses, each with the container's address of its family: all get one port number.
    pub addrs: Vec<(IpAddr, IpAddr)>,
    /// The container's addresses at which it is reached itself: these take no host port.
    pub routed: Vec<IpAddr>,
    /// The host port.
    pub host: PortChoice,
    /// The container port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A host port that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The port.
    pub binding: Binding,
    /// It was not asked for by number: another would do as well.
    pub any_will_do: bool,
}

/// Why ports were not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Somebody publishes it.
    #[error("Bind for {} failed: port is already allocated (container {owner} has {}/{})",
        socket(.wanted), socket(.held), .held.protocol)]
    Allocated {
        /// What was asked for.
        wanted: HostPort,
        /// What is in the way.
        held: HostPort,
        /// Name of the container that has it.
        owner: String,
    },
    /// None of a range is left.
    #[error("all ports are allocated: {protocol} ports {first}-{last} of {addr}")]
    Exhausted {
        /// The host address.
        addr: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
}

/// The host ports that are published, and by which container.
#[derive(Clone, Debug, Default)]
pub struct PortTable(BTreeMap<(Protocol, u16), Vec<(IpAddr, String)>>);

impl PortTable {
    /// Notes that the container called `owner` has `port`.
    pub fn insert(&mut self, port: HostPort, owner: &str) {
        self.0.entry((port.protocol, port.port)).or_default().push((port.addr, owner.to_owned()));
    }

    /// Notes that the container called `owner` has `port` no more.
    pub fn remove(&mut self, port: &HostPort, owner: &str) {
        let key = (port.protocol, port.port);
        let Some(holders) = self.0.get_mut(&key) else { return };
        if let Some(at) = holders.iter().position(|(addr, name)| *addr == port.addr && name == owner) {
            holders.swap_remove(at);
        }
        if holders.is_empty() {
            self.0.remove(&key);
        }
    }

    /// What stands in the way of `wanted`, and whose it is.
    fn conflicts<'a>(&'a self, wanted: &HostPort) -> impl Iterator<Item = (HostPort, &'a str)> + use<'a> {
        let wanted = *wanted;
        let holders = self.0.get(&(wanted.protocol, wanted.port)).into_iter().flatten();
        holders
            .filter(move |(addr, _)| clash(*addr, wanted.addr))
            .map(move |(addr, owner)| (HostPort { addr: *addr, ..wanted }, owner.as_str()))
    }
}

/// Where to look next for a free port: behind the one last given from the same range, as Docker does, so
/// that a port which has just been freed is not somebody else's at once.
#[derive(Clone, Debug, Default)]
pub struct Cursors(BTreeMap<(IpAddr, Protocol, u16, u16), u16>);

/// Gives every want a port, or none of them any: its picks, in the order of `wants`. `own` are ports of `held` that are
/// the container's already and stand in nobody's way. Numbered
/// ports come first, so that no random one takes what is asked for by number in the same request.
///
/// # Errors
/// See [`PortError`].
pub fn allocate(
    held: &PortTable,
    cursors: &mut Cursors,
    owner: &str,
    wants: &[Want],
    ephemeral: (u16, u16),
    unavailable: &BTreeSet<HostPort>,
    own: &BTreeSet<HostPort>,
) -> Result<Vec<Vec<Pick>>, PortError> {
    let mut table = Tables { held, own, given: PortTable::default() };
    // Several wants may come to one port, as only the host's side differs.
    let mut routed = BTreeSet::new();
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|&i| match wants[i].host {
        PortChoice::Exactly(_) => 0,
        PortChoice::OneOf(_) => 1,
        PortChoice::Ephemeral => 2,
    });
    let mut picks = vec![Vec::new(); wants.len()];
    for i in order {
        let want = &wants[i];
        let own = want.routed.iter().map(|addr| Binding::routed(*addr, want.port, want.protocol));
        let own = own.filter(|binding| routed.insert(*binding));
        let own: Vec<_> = own.map(|binding| Pick { binding, any_will_do: false }).collect();
        if want.addrs.is_empty() {
            picks[i] = own;
            continue;
        }
        let port = match want.host {
            PortChoice::Exactly(port) => exactly(&table, want, port)?,
            PortChoice::OneOf(range) => {
                one_of(&table, cursors, want, (range.first(), range.last()), unavailable)?
            }
            PortChoice::Ephemeral => one_of(&table, cursors, want, ephemeral, unavailable)?,
        };
        for &(host, container) in &want.addrs {
            let host = HostPort { addr: host, port, protocol: want.protocol };
            table.given.insert(host, owner);
            picks[i].push(Pick {
                binding: Binding { host, addr: container, port: want.port, sources: 0, unheld: false },
                any_will_do: !matches!(want.host, PortChoice::Exactly(_)),
            });
        }
        picks[i].extend(own);
    }
    Ok(picks)
}

/// What is held, and what this request has been given.
struct Tables<'a> {
    held: &'a PortTable,
    own: &'a BTreeSet<HostPort>,
    given: PortTable,
}

impl Tables<'_> {
    fn conflict(&self, wanted: &HostPort) -> Option<(HostPort, &str)> {
        let of_others = self.held.conflicts(wanted).find(|(port, _)| !self.own.contains(port));
        of_others.or_else(|| self.given.conflicts(wanted).next())
    }
}

/// Whether a port of one address keeps another from having it: the unspecified address is every address of
/// its family.
fn clash(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn exactly(table: &Tables<'_>, want: &Want, port: u16) -> Result<u16, PortError> {
    for &(addr, _) in &want.addrs {
        let wanted = HostPort { addr, port, protocol: want.protocol };
        if let Some((held, owner)) = table.conflict(&wanted) {
            return Err(PortError::Allocated { wanted, held, owner: owner.to_owned() });
        }
    }
    Ok(port)
}

fn one_of(
    table: &Tables<'_>,
    cursors: &mut Cursors,
    want: &Want,
    (first, last): (u16, u16),
    unavailable: &BTreeSet<HostPort>,
) -> Result<u16, PortError> {
    let protocol = want.protocol;
    let addr = want.addrs.first().map_or(IpAddr::from([0, 0, 0, 0]), |&(host, _)| host);
    // Port 0 is no port.
    let lowest = first.max(1);
    let cursor = cursors.0.entry((addr, protocol, first, last)).or_insert(last);
    let free = |port: &u16| {
        want.addrs.iter().all(|&(addr, _)| {
            let wanted = HostPort { addr, port: *port, protocol };
            let host_has_it =
                |held: &HostPort| held.port == *port && held.protocol == protocol && clash(held.addr, addr);
            table.conflict(&wanted).is_none() && !unavailable.iter().any(host_has_it)
        })
    };
    let behind = (*cursor).max(lowest - 1);
    let found =
        (u32::from(behind) + 1..=u32::from(last)).chain(u32::from(lowest)..=u32::from(behind.min(last)));
    // Both halves lie within `lowest..=last`.
    let port = found.map(|port| port as u16).find(free).ok_or(PortError::Exhausted {
        addr,
        protocol,
        first,
        last,
    })?;
    *cursor = port;
    Ok(port)
}

fn socket(port: &HostPort) -> std::net::SocketAddr {
    (port.addr, port.port).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::model::port_spec::PortRange;

    const CONTAINER: &str = "172.17.0.2";

    fn host(addr: &str, port: u16) -> HostPort {
        HostPort { addr: addr.parse().unwrap(), port, protocol: Protocol::Tcp }
    }

    fn want(addr: &str, choice: PortChoice) -> Want {
        let addrs = vec![(addr.parse().unwrap(), CONTAINER.parse().unwrap())];
        Want { addrs, routed: Vec::new(), host: choice, port: 80, protocol: Protocol::Tcp }
    }

    fn range(first: u16, last: u16) -> PortChoice {
        PortChoice::OneOf(PortRange::new(first, last).unwrap())
    }

    fn table(ports: &[HostPort]) -> PortTable {
        let mut table = PortTable::default();
        ports.iter().for_each(|port| table.insert(*port, "web"));
        table
    }

    fn ports(picks: Result<Vec<Vec<Pick>>, PortError>) -> Vec<u16> {
        picks.unwrap().iter().flatten().map(|p| p.binding.host.port).collect()
    }

    fn allocate(
        table: PortTable,
        cursors: &mut Cursors,
        owner: &str,
        wants: &[Want],
        ephemeral: (u16, u16),
        unavailable: &BTreeSet<HostPort>,
    ) -> Result<Vec<Vec<Pick>>, PortError> {
        super::allocate(&table, cursors, owner, wants, ephemeral, unavailable, &BTreeSet::new())
    }

    fn try_one(held: HostPort, wanted: HostPort) -> Result<Vec<Vec<Pick>>, PortError> {
        let mut want = want(&wanted.addr.to_string(), PortChoice::Exactly(wanted.port));
        want.protocol = wanted.protocol;
        allocate(table(&[held]), &mut Cursors::default(), "db", &[want], (32768, 60999), &BTreeSet::new())
    }

    #[test]
    fn the_unspecified_address_clashes_with_every_address_of_its_family() {
        let held = |h: &str, w: &str| try_one(host(h, 8000), host(w, 8000)).is_err();
        assert!(held("0.0.0.0", "10.0.0.1") && held("10.0.0.1", "0.0.0.0") && held("10.0.0.1", "10.0.0.1"));
        assert!(held("::", "::1") && held("fd00::1", "::"));
        assert!(!held("10.0.0.1", "10.0.0.2"));
        assert!(!held("0.0.0.0", "::") && !held("::", "0.0.0.0") && !held("::", "10.0.0.1"));
        let udp = HostPort { protocol: Protocol::Udp, ..host("0.0.0.0", 8000) };
        assert!(try_one(udp, host("0.0.0.0", 8000)).is_ok());
        assert!(try_one(host("0.0.0.0", 8001), host("0.0.0.0", 8000)).is_ok());
    }

    #[test]
    fn a_conflict_is_told_in_dockers_words_and_names_the_holder() {
        let error = try_one(host("10.0.0.1", 8000), host("0.0.0.0", 8000)).unwrap_err().to_string();
        let expected =
            "Bind for 0.0.0.0:8000 failed: port is already allocated (container web has 10.0.0.1:8000/tcp)";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_range_is_used_up_in_order_and_freed_ports_wait_for_their_turn() {
        let mut cursors = Cursors::default();
        let wants = [want("0.0.0.0", range(8000, 8002))];
        let mut take = |held: &[u16]| {
            let held: Vec<_> = held.iter().map(|&p| host("0.0.0.0", p)).collect();
            allocate(table(&held), &mut cursors, "db", &wants, (1, 1), &BTreeSet::new())
        };
        assert_eq!(ports(take(&[])), [8000]);
        assert_eq!(ports(take(&[])), [8001]);
        assert_eq!(ports(take(&[8001])), [8002]);
        assert_eq!(ports(take(&[8001, 8002])), [8000]);
        let error = take(&[8000, 8001, 8002]).unwrap_err().to_string();
        assert_eq!(error, "all ports are allocated: tcp ports 8000-8002 of 0.0.0.0");
    }

    #[test]
    fn numbered_ports_come_before_random_ones_and_the_answer_keeps_the_order() {
        let wants = [want("0.0.0.0", PortChoice::Ephemeral), want("0.0.0.0", PortChoice::Exactly(32768))];
        let picks = allocate(
            PortTable::default(),
            &mut Cursors::default(),
            "db",
            &wants,
            (32768, 32770),
            &BTreeSet::new(),
        );
        assert_eq!(
            picks.as_ref().unwrap().iter().flatten().map(|p| p.any_will_do).collect::<Vec<_>>(),
            [true, false]
        );
        assert_eq!(ports(picks), [32769, 32768]);
    }

    #[test]
    fn what_the_host_has_is_passed_over_by_choice_only() {
        let unavailable = BTreeSet::from([host("10.0.0.1", 8000)]);
        let take = |want| {
            ports(allocate(
                PortTable::default(),
                &mut Cursors::default(),
                "db",
                &[want],
                (1, 1),
                &unavailable,
            ))
        };
        assert_eq!(take(want("0.0.0.0", range(8000, 8001))), [8001]);
        assert_eq!(take(want("10.0.0.2", range(8000, 8001))), [8000]);
        assert_eq!(take(want("0.0.0.0", PortChoice::Exactly(8000))), [8000]);
    }

    #[test]
    fn all_addresses_of_a_want_get_the_same_port() {
        let mut both = want("0.0.0.0", range(8000, 8002));
        both.addrs.push(("::".parse().unwrap(), "fd00::2".parse().unwrap()));
        let table = table(&[host("0.0.0.0", 8000), host("::1", 8001)]);
        let picks = allocate(table, &mut Cursors::default(), "db", &[both], (1, 1), &BTreeSet::new());
        assert_eq!(ports(picks), [8002, 8002]);
    }

    #[test]
    fn a_containers_own_ports_are_not_in_its_way_and_can_be_given_back() {
        let own = BTreeSet::from([host("0.0.0.0", 8000)]);
        let mut table = table(&[host("0.0.0.0", 8000), host("10.0.0.1", 8001)]);
        let take = |table: &PortTable, port| {
            let wants = [want("0.0.0.0", PortChoice::Exactly(port))];
            let picks = super::allocate(
                table,
                &mut Cursors::default(),
                "web",
                &wants,
                (1, 1),
                &BTreeSet::new(),
                &own,
            );
            picks.is_ok()
        };
        assert!(take(&table, 8000) && !take(&table, 8001));
        table.remove(&host("10.0.0.1", 8001), "db");
        assert!(!take(&table, 8001), "not its own");
        table.remove(&host("10.0.0.1", 8001), "web");
        assert!(take(&table, 8001));
    }

    #[test]
    fn one_request_cannot_have_a_port_twice() {
        let wants = [want("0.0.0.0", PortChoice::Exactly(80)), want("10.0.0.1", PortChoice::Exactly(80))];
        let error =
            allocate(PortTable::default(), &mut Cursors::default(), "db", &wants, (1, 1), &BTreeSet::new());
        assert!(error.unwrap_err().to_string().contains("container db has 0.0.0.0:80/tcp"));
    }

    #[test]
    fn the_edges_of_the_number_space_hold() {
        let take = |choice| {
            let mut cursors = Cursors::default();
            let mut given = Vec::new();
            for _ in 0..3 {
                let wants = [want("0.0.0.0", choice)];
                given.extend(ports(allocate(
                    PortTable::default(),
                    &mut cursors,
                    "db",
                    &wants,
                    (1, 1),
                    &BTreeSet::new(),
                )));
            }
            given
        };
        assert_eq!(take(range(0, 2)), [1, 2, 1]);
        assert_eq!(take(range(65534, 65535)), [65534, 65535, 65534]);
        assert_eq!(take(PortChoice::Ephemeral), [1, 1, 1]);
    }
}
