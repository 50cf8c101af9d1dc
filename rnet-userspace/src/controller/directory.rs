//! Who is called what: the containers of user-defined networks by name, alias, short id and address, kept in step with
//! the records, for the name servers on the networks' gateways.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::watch;

use super::{model::engine::Engine, show::names, view::ContainerState};
use crate::store::schema::{Container, Driver, Network, Phase};

/// The names of one instance.
#[derive(Debug, Default)]
pub struct Directory {
    names: RwLock<Names>,
    gateways: watch::Sender<BTreeSet<IpAddr>>,
}

/// What a name server has to know of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Name servers of its own, in place of the host's.
    pub servers: Vec<IpAddr>,
    /// One of its networks leads outside: what is not a container's name may be asked elsewhere.
    pub leads_outside: bool,
}

#[derive(Debug, Default)]
struct Names {
    networks: HashMap<String, Members>,
    /// Containers by the addresses that they ask from.
    clients: HashMap<IpAddr, String>,
    containers: HashMap<String, Known>,
}

/// A network.
#[derive(Debug)]
struct Members {
    name: String,
    gateways: Vec<IpAddr>,
    internal: bool,
    /// Containers by names in lower case.
    named: HashMap<String, BTreeSet<String>>,
}

/// A container.
#[derive(Debug)]
struct Known {
    name: String,
    servers: Vec<IpAddr>,
    /// By way of a network without names, it does.
    leads_outside: bool,
    /// Its addresses by network.
    addrs: BTreeMap<String, Vec<IpAddr>>,
}

impl Directory {
    /// Follows a change of a network's record.
    pub(crate) fn update_network(&self, before: Option<&Network>, after: Option<&Network>) {
        let mut names = self.write();
        match after.filter(|network| has_names(network) && network.phase == Phase::Ready) {
            Some(network) => {
                let gateways = network.subnets.iter().filter_map(|subnet| subnet.gateway).collect();
                let named = names.networks.remove(&network.id).map(|there| there.named).unwrap_or_default();
                let (name, internal) = (network.name.to_ascii_lowercase(), network.internal);
                names.networks.insert(network.id.clone(), Members { name, gateways, internal, named });
            }
            None => drop(before.and_then(|network| names.networks.remove(&network.id))),
        }
        let gateways = names.networks.values().flat_map(|network| network.gateways.iter().copied()).collect();
        self.gateways.send_if_modified(|known| {
            let is_new = *known != gateways;
            *known = gateways;
            is_new
        });
    }

    /// Follows a change of a container's record.
    pub(crate) fn update_container(&self, before: Option<&Container>, after: Option<&Container>) {
        let mut names = self.write();
        if let Some(container) = before {
            names.remove(container);
        }
        let is_there = |c: &&Container| c.phase == Phase::Ready && c.state != ContainerState::Exited;
        if let Some(container) = after.filter(is_there) {
            names.add(container);
        }
    }

    /// The addresses at which names are asked for, and how they change.
    pub fn gateways(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.gateways.subscribe()
    }

    /// Who asks from this address; nothing for whoever is no container of a network with names.
    pub fn client(&self, source: IpAddr) -> Option<Client> {
        let names = self.read();
        let (_, known) = names.asking(source)?;
        let by_one = known.addrs.keys().any(|id| names.networks.get(id).is_some_and(|n| !n.internal));
        Some(Client { servers: known.servers.clone(), leads_outside: by_one || known.leads_outside })
    }

    /// The addresses, of both families, of whom `source` knows by this name, or by this name and its network's
    /// (`web.backend`); nothing where there is nobody.
    pub fn find(&self, source: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let names = self.read();
        let (_, asking) = names.asking(source)?;
        let networks = || asking.addrs.keys().filter_map(|id| Some((id, names.networks.get(id)?)));
        let addrs_in = |id: &String, network: &Members, name: &str| {
            let containers = network.named.get(name).into_iter().flatten();
            let known = containers.filter_map(|container| names.containers.get(container)?.addrs.get(id));
            known.flatten().copied().collect::<Vec<_>>()
        };
        let mut found: Vec<_> = networks().flat_map(|(id, network)| addrs_in(id, network, &name)).collect();
        // Either part may have dots of its own.
        let mut readings = name.match_indices('.').map(|(dot, _)| (&name[..dot], &name[dot + 1..]));
        while found.is_empty()
            && let Some((name, of)) = readings.next()
        {
            let of_that_name = networks().filter(|(_, network)| network.name == of);
            found = of_that_name.flat_map(|(id, network)| addrs_in(id, network, name)).collect();
        }
        (!found.is_empty()).then_some(found)
    }

    /// The name, with its network's, of the container that `source` knows at this address.
    pub fn name_of(&self, source: IpAddr, addr: IpAddr) -> Option<String> {
        let names = self.read();
        let (_, asking) = names.asking(source)?;
        let container = names.containers.get(names.clients.get(&addr)?)?;
        let (id, _) = container.addrs.iter().find(|(_, addrs)| addrs.contains(&addr))?;
        let network = names.networks.get(id).filter(|_| asking.addrs.contains_key(id))?;
        Some(format!("{}.{}", container.name, network.name))
    }

    /// Whether this is an address at which names are asked for: nothing is ever to be asked there by us.
    pub fn is_gateway(&self, addr: IpAddr) -> bool {
        self.gateways.borrow().contains(&addr)
    }

    fn read(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As with Docker, the default network has no names. On an engine's own bridge the engine answers, and inside its
/// containers Docker does (127.0.0.11), which tells its drivers no names.
pub(super) fn has_names(network: &Network) -> bool {
    let is_engines = network.borrowed || network.engine == Some(Engine::DockerDriver);
    network.driver == Driver::Bridge && !network.predefined && !is_engines
}

impl Names {
    fn asking(&self, source: IpAddr) -> Option<(&String, &Known)> {
        self.containers.get_key_value(self.clients.get(&source)?)
    }

    fn add(&mut self, container: &Container) {
        let mut addrs = BTreeMap::new();
        let mut leads_outside = false;
        for endpoint in container.endpoints.iter().filter(|e| e.phase == Phase::Ready) {
            let Some(network) = self.networks.get_mut(&endpoint.network) else {
                leads_outside |= !endpoint.gateways.is_empty();
                continue;
            };
            for name in names(container, endpoint) {
                network.named.entry(name.to_ascii_lowercase()).or_default().insert(container.id.clone());
            }
            let own: Vec<IpAddr> = endpoint.addrs.iter().map(|addr| addr.ip()).collect();
            self.clients.extend(own.iter().map(|addr| (*addr, container.id.clone())));
            addrs.insert(endpoint.network.clone(), own);
        }
        if !addrs.is_empty() {
            let known = Known {
                name: container.name.clone(),
                servers: container.resolver.servers.clone(),
                leads_outside,
                addrs,
            };
            self.containers.insert(container.id.clone(), known);
        }
    }

    fn remove(&mut self, container: &Container) {
        let Some(known) = self.containers.remove(&container.id) else { return };
        for addr in known.addrs.values().flatten() {
            self.clients.remove(addr);
        }
        for endpoint in &container.endpoints {
            let Some(network) = self.networks.get_mut(&endpoint.network) else { continue };
            for name in names(container, endpoint) {
                let name = name.to_ascii_lowercase();
                let Some(containers) = network.named.get_mut(&name) else { continue };
                containers.remove(&container.id);
                if containers.is_empty() {
                    network.named.remove(&name);
                }
            }
        }
    }
}

#[cfg(any(test, fuzzing))]
#[expect(clippy::unwrap_used, reason = "records that are written here")]
pub(crate) mod testing {
    use serde_json::json;

    use super::*;

    pub(crate) fn network(name: &str, gateway: &str, internal: bool) -> Network {
        let subnet = format!("{}/24", gateway.trim_end_matches('1').to_owned() + "0");
        let network = json!({
            "id": format!("id-{name}"), "name": name, "phase": "ready", "driver": "bridge", "number": 1, "created": "",
            "predefined": false, "bridge": null, "adopted": null, "internal": internal, "attachable": false,
            "subnets": [{"subnet": subnet, "ip_range": null, "gateway": gateway}], "options": {}, "labels": {}
        });
        serde_json::from_value(network).unwrap()
    }

    /// A container on networks, each with an address and aliases.
    pub(crate) fn container(name: &str, endpoints: &[(&str, &str, &[&str])]) -> Container {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(network, addr, aliases)| {
                json!({
                    "id": "e", "network": format!("id-{network}"), "phase": "ready", "interface": "eth0",
                    "host_interface": "veth0", "mac": "02:00:00:00:00:01", "addrs": [addr], "fixed": [],
                    "gateways": [], "gw_priority": 0, "aliases": aliases
                })
            })
            .collect();
        let container = json!({
            "id": format!("{name:x<64}"), "name": name, "hostname": name, "phase": "ready", "state": "running",
            "pid": null, "process_start": null, "exit_code": null, "created": "", "started": null, "finished": null,
            "command": [], "remove": false, "rootfs": null, "terminal": false, "network_mode": "", "netns": null,
            "endpoints": endpoints, "ports": [], "exposed": [],
            "resolver": {"servers": [], "search": [], "options": []}, "extra_hosts": [], "sysctls": {}
        });
        serde_json::from_value(container).unwrap()
    }

    pub(crate) fn directory(networks: &[Network], containers: &[Container]) -> Directory {
        let directory = Directory::default();
        networks.iter().for_each(|network| directory.update_network(None, Some(network)));
        containers.iter().for_each(|container| directory.update_container(None, Some(container)));
        directory
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        testing::{container, directory, network},
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(directory: &Directory, source: &str, name: &str) -> Vec<String> {
        let mut found = directory.find(ip(source), name).unwrap_or_default();
        found.sort_unstable();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn containers_of_a_network_are_found_by_all_their_names() {
        let web = container("web", &[("n1", "10.1.0.2/24", &["www", "shared"])]);
        let db = container("db", &[("n1", "10.1.0.3/24", &["shared"])]);
        let directory = directory(&[network("n1", "10.1.0.1", false)], &[web.clone(), db]);
        for name in ["web", "WEB.", "www", "web.n1", "Web.N1.", &web.id[..12]] {
            assert_eq!(found(&directory, "10.1.0.3", name), ["10.1.0.2"], "{name}");
        }
        assert_eq!(found(&directory, "10.1.0.2", "shared"), ["10.1.0.2", "10.1.0.3"]);
        assert_eq!(directory.name_of(ip("10.1.0.2"), ip("10.1.0.3")), Some("db.n1".to_owned()));
        assert_eq!(directory.find(ip("10.1.0.2"), "nobody"), None);
        assert_eq!(directory.find(ip("10.1.0.2"), "web.n2"), None);
        assert_eq!(directory.client(ip("10.1.0.9")), None, "whoever has no name is told none");
        assert_eq!(directory.find(ip("10.1.0.9"), "web"), None);
    }

    #[test]
    fn a_container_knows_the_names_of_all_its_networks_and_of_no_other() {
        let networks = [network("n1", "10.1.0.1", false), network("n2", "10.2.0.1", true)];
        let both = container("both", &[("n1", "10.1.0.2/24", &[]), ("n2", "10.2.0.2/24", &[])]);
        let one = container("one", &[("n1", "10.1.0.3/24", &[])]);
        let two = container("two", &[("n2", "10.2.0.3/24", &[])]);
        let directory = directory(&networks, &[both, one, two]);
        for source in ["10.1.0.2", "10.2.0.2"] {
            assert_eq!(found(&directory, source, "one"), ["10.1.0.3"]);
            assert_eq!(found(&directory, source, "two"), ["10.2.0.3"]);
            assert!(directory.client(ip(source)).unwrap().leads_outside);
        }
        assert!(found(&directory, "10.1.0.3", "two").is_empty());
        assert_eq!(found(&directory, "10.1.0.3", "both"), ["10.1.0.2"]);
        assert_eq!(directory.name_of(ip("10.1.0.3"), ip("10.2.0.3")), None);
        assert!(!directory.client(ip("10.2.0.3")).unwrap().leads_outside);
        assert_eq!(*directory.gateways().borrow(), BTreeSet::from([ip("10.1.0.1"), ip("10.2.0.1")]));
    }

    #[test]
    fn the_default_network_leads_outside_too_and_names_may_have_dots() {
        let mut both =
            container("a.b", &[("back.end", "10.2.0.2/24", &[]), ("bridge", "172.17.0.2/16", &[])]);
        both.endpoints[1].gateways = vec![ip("172.17.0.1")];
        let one = container("one", &[("back.end", "10.2.0.3/24", &[])]);
        let directory = directory(&[network("back.end", "10.2.0.1", true)], &[both, one]);
        assert!(directory.client(ip("10.2.0.2")).unwrap().leads_outside);
        assert!(!directory.client(ip("10.2.0.3")).unwrap().leads_outside);
        for name in ["a.b", "a.b.back.end"] {
            assert_eq!(found(&directory, "10.2.0.3", name), ["10.2.0.2"], "{name}");
        }
    }

    #[test]
    fn what_has_ended_or_is_not_ready_has_no_name() {
        let networks = [network("n1", "10.1.0.1", false)];
        let web = container("web", &[("n1", "10.1.0.2/24", &[])]);
        let asking = container("asking", &[("n1", "10.1.0.3/24", &[])]);
        let directory = directory(&networks, &[web.clone(), asking]);
        let ended = Container { state: ContainerState::Exited, ..web.clone() };
        let creating = Container { phase: Phase::Creating, ..web.clone() };
        let mut leaving = web.clone();
        leaving.endpoints[0].phase = Phase::Removing;
        for other in [ended, creating, leaving] {
            assert_eq!(found(&directory, "10.1.0.3", "web"), ["10.1.0.2"]);
            directory.update_container(Some(&web), Some(&other));
            assert!(found(&directory, "10.1.0.3", "web").is_empty());
            directory.update_container(Some(&other), Some(&web));
        }
        let mut default = network("bridge", "10.9.0.1", false);
        default.predefined = true;
        directory.update_network(None, Some(&default));
        assert!(!directory.is_gateway(ip("10.9.0.1")));
        directory.update_network(Some(&networks[0]), None);
        assert!(directory.gateways().borrow().is_empty());
    }

    proptest! {
        #[test]
        fn names_are_those_of_the_containers_that_are_there(changes in prop::collection::vec((0_u8..6, any::<bool>()), 0..40)) {
            let networks = [network("n1", "10.1.0.1", false)];
            let of = |n: u8| {
                let addr = format!("10.1.0.{}/24", n + 10);
                container(&format!("c{n}"), &[("n1", &addr, &["all"])])
            };
            let asking = container("asking", &[("n1", "10.1.0.2/24", &[])]);
            let directory = directory(&networks, &[asking]);
            let mut there = BTreeSet::new();
            for (n, come) in changes {
                let before = there.contains(&n).then(|| of(n));
                let after = come.then(|| of(n));
                directory.update_container(before.as_ref(), after.as_ref());
                if come { there.insert(n); } else { there.remove(&n); }
            }
            let expected: Vec<String> = there.iter().map(|n| format!("10.1.0.{}", n + 10)).collect();
            prop_assert_eq!(found(&directory, "10.1.0.2", "all"), expected);
            for n in 0..6 {
                prop_assert_eq!(directory.find(ip("10.1.0.2"), &format!("c{n}")).is_some(), there.contains(&n));
            }
        }
    }
}
