//! Which containers are wanted.

use super::{
    container::state,
    filters::{Filters, Patterns},
};
use crate::{
    api::error::{ApiError, ApiResult},
    controller::{
        model::Protocol,
        view::{self, ContainerState},
    },
};

const KNOWN: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
/// Docker's states; those that no container of rnet's is ever in are fit by none.
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// What containers are listed by.
pub(super) struct Listed {
    filters: Filters,
    ids: Patterns,
    names: Patterns,
    exited: Vec<i32>,
    exposed: Vec<Ports>,
    published: Vec<Ports>,
    task: Option<bool>,
    /// Those that do not run as well.
    all: bool,
    /// The newest so many; absent for all.
    limit: Option<usize>,
}

/// `PORT[/PROTO]` or `FIRST-LAST[/PROTO]`.
struct Ports {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl Listed {
    /// A `limit` that is not positive is none, as with Docker.
    pub(super) fn parse(filters: &str, all: bool, limit: i64) -> ApiResult<Self> {
        let filters = Filters::parse(filters, &KNOWN)?;
        for (field, words) in [("status", &STATES[..]), ("health", &HEALTHS)] {
            if filters.values(field).any(|value| !words.contains(&value)) {
                return Err(filters.invalid(field));
            }
        }
        let exited = filters.values("exited").map(|code| code.parse().map_err(|_| filters.invalid("exited")));
        let ports = |field: &str| {
            let ports =
                filters.values(field).map(|text| Ports::parse(text).ok_or_else(|| filters.invalid(field)));
            ports.collect::<ApiResult<Vec<_>>>()
        };
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        Ok(Self {
            ids: filters.patterns("id"),
            names: filters.patterns("name"),
            exited: exited.collect::<ApiResult<_>>()?,
            exposed: ports("expose")?,
            published: ports("publish")?,
            task: filters.flag("is-task")?,
            // Who asks for a state, or for the newest, means those that do not run too.
            all: all || filters.contains("status") || limit.is_some(),
            limit,
            filters,
        })
    }

    /// Those of `containers` that are wanted, the newest first, as Docker lists them.
    ///
    /// # Errors
    /// When a container that others are to be older or newer than is not there.
    pub(super) fn choose(&self, mut containers: Vec<view::Container>) -> ApiResult<Vec<view::Container>> {
        // The times are RFC 3339 in UTC and sort as text.
        containers.sort_by(|a, b| b.created.cmp(&a.created));
        let place_of = |field: &str| {
            let wanted = self.filters.values(field).next();
            let place = wanted.map(|wanted| {
                place(&containers, wanted)
                    .ok_or_else(|| ApiError::not_found(format!("No such container: {wanted}")))
            });
            place.transpose()
        };
        let newest = place_of("before")?.map_or(0, |place| place + 1);
        let oldest = place_of("since")?.unwrap_or(containers.len());
        containers.truncate(oldest);
        let chosen = containers.into_iter().skip(newest).filter(|container| self.includes(container));
        Ok(chosen.take(self.limit.unwrap_or(usize::MAX)).collect())
    }

    fn includes(&self, container: &view::Container) -> bool {
        let is_running = container.state == ContainerState::Running;
        (self.all || is_running)
            && self.ids.fit(&container.id)
            && (self.names.fit(&container.name) || self.names.fit(&format!("/{}", container.name)))
            && (self.exited.is_empty() || has_exited(container, &self.exited))
            && self.filters.any("status", |status| status == state(container.state))
            && self.filters.any("network", |wanted| is_on(container, wanted))
            && fits(&self.exposed, container.exposed.iter().map(|port| (port.port, port.protocol)))
            && fits(&self.published, container.ports.iter().map(|b| (b.port, b.host.protocol)))
            // There are no health checks, images, volumes, labels or swarm tasks.
            && self.filters.any("health", |health| health == "none")
            && self.task != Some(true)
            && !["ancestor", "label", "volume"].into_iter().any(|field| self.filters.contains(field))
    }
}

impl Ports {
    fn parse(text: &str) -> Option<Self> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let protocol = protocol.parse().ok()?;
        (first <= last).then_some(Self { first, last, protocol })
    }

    fn contain(&self, (port, protocol): (u16, Protocol)) -> bool {
        (self.first..=self.last).contains(&port) && protocol == self.protocol
    }
}

fn place(containers: &[view::Container], wanted: &str) -> Option<usize> {
    let by = |fits: &dyn Fn(&view::Container) -> bool| containers.iter().position(fits);
    by(&|c| c.id == wanted || c.name == wanted.trim_start_matches('/'))
        .or_else(|| by(&|c| !wanted.is_empty() && c.id.starts_with(wanted)))
}

fn fits(wanted: &[Ports], mut ports: impl Iterator<Item = (u16, Protocol)>) -> bool {
    wanted.is_empty() || ports.any(|port| wanted.iter().any(|wanted| wanted.contain(port)))
}

fn has_exited(container: &view::Container, codes: &[i32]) -> bool {
    container.state == ContainerState::Exited && codes.contains(&super::container::exit_code(container))
}

fn is_on(container: &view::Container, wanted: &str) -> bool {
    let has =
        |e: &view::Endpoint| e.network == wanted || (!wanted.is_empty() && e.network_id.starts_with(wanted));
    container.endpoints.iter().any(has)
        || (container.endpoints.is_empty() && container.network_mode == wanted)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::controller::{
        model::{Binding, HostPort},
        view::{Endpoint, ExposedPort},
    };

    fn container(name: &str, second: u8, change: impl FnOnce(&mut view::Container)) -> view::Container {
        let mut container = view::Container {
            engine: None,
            id: format!("{name}-0123"),
            name: name.into(),
            hostname: name.into(),
            state: ContainerState::Running,
            pid: None,
            exit_code: None,
            created: format!("2026-01-02T03:04:0{second}Z"),
            started: None,
            finished: None,
            command: Vec::new(),
            remove: false,
            rootfs: None,
            network_mode: "none".into(),
            netns: None,
            attached: false,
            namespaces: view::Namespaces::Host,
            sysctls: Default::default(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            extra_hosts: Vec::new(),
            terminal: false,
            dir: PathBuf::new(),
            endpoints: Vec::new(),
            exposed: Vec::new(),
            ports: Vec::new(),
        };
        change(&mut container);
        container
    }

    fn all() -> Vec<view::Container> {
        let host = HostPort { addr: [0, 0, 0, 0].into(), port: 8080, protocol: Protocol::Tcp };
        let endpoint = Endpoint {
            id: "e".into(),
            network: "front".into(),
            network_id: "f1f2f3".into(),
            interface: "eth0".into(),
            host_interface: "veth0".into(),
            mac: "02:42:ac:11:00:02".parse().unwrap(),
            addrs: Vec::new(),
            gateways: Vec::new(),
            names: Vec::new(),
            aliases: Vec::new(),
            gw_priority: 0,
            fixed: Vec::new(),
        };
        vec![
            container("web", 1, |c| {
                c.network_mode = "front".into();
                c.endpoints.push(endpoint);
                c.ports.push(Binding {
                    host,
                    addr: [10, 0, 0, 2].into(),
                    port: 80,
                    sources: 0,
                    unheld: false,
                });
                c.exposed = vec![
                    ExposedPort { port: 80, protocol: Protocol::Tcp },
                    ExposedPort { port: 53, protocol: Protocol::Udp },
                ];
            }),
            container("done", 2, |c| {
                c.state = ContainerState::Exited;
                c.exit_code = Some(3);
            }),
            container("new", 3, |c| c.state = ContainerState::Created),
            container("web2", 4, |_| {}),
        ]
    }

    fn choose(filters: &str, every: bool, limit: i64) -> Result<Vec<String>, String> {
        let listed = Listed::parse(filters, every, limit).map_err(|e| e.message)?;
        let chosen = listed.choose(all()).map_err(|e| e.message)?;
        Ok(chosen.into_iter().map(|c| c.name).collect())
    }

    #[test]
    fn those_that_run_are_listed_newest_first_unless_more_are_wanted() {
        assert_eq!(choose("", false, 0).unwrap(), ["web2", "web"]);
        assert_eq!(choose("", true, -1).unwrap(), ["web2", "new", "done", "web"]);
        assert_eq!(choose("", false, 2).unwrap(), ["web2", "new"]);
        assert_eq!(choose(r#"{"name":["web"]}"#, false, 1).unwrap(), ["web2"]);
    }

    #[test]
    fn every_filter_chooses() {
        for (filters, names) in [
            (r#"{"name":["^web$"]}"#, &["web"][..]),
            (r#"{"name":["^/web2$"]}"#, &["web2"]),
            (r#"{"id":["^web-0"]}"#, &["web"]),
            (r#"{"status":["exited","created"]}"#, &["new", "done"]),
            (r#"{"status":["paused"]}"#, &[]),
            (r#"{"exited":["3","4"]}"#, &["done"]),
            (r#"{"exited":["0"]}"#, &[]),
            (r#"{"network":["front"]}"#, &["web"]),
            (r#"{"network":["f1f2"]}"#, &["web"]),
            (r#"{"network":["none"]}"#, &["web2", "new", "done"]),
            (r#"{"network":["back"]}"#, &[]),
            (r#"{"publish":["80"]}"#, &["web"]),
            (r#"{"publish":["70-90/tcp"]}"#, &["web"]),
            (r#"{"publish":["53/udp"]}"#, &[]),
            (r#"{"expose":["53/udp"]}"#, &["web"]),
            (r#"{"expose":["80/udp"]}"#, &[]),
            (r#"{"before":["new"]}"#, &["done", "web"]),
            (r#"{"since":["done"]}"#, &["web2", "new"]),
            (r#"{"since":["web-01"],"before":["web2"]}"#, &["new", "done"]),
            (r#"{"label":["a"]}"#, &[]),
            (r#"{"ancestor":["debian"]}"#, &[]),
            (r#"{"volume":["v"]}"#, &[]),
            (r#"{"health":["none"]}"#, &["web2", "new", "done", "web"]),
            (r#"{"health":["healthy"]}"#, &[]),
            (r#"{"is-task":["false"]}"#, &["web2", "new", "done", "web"]),
            (r#"{"is-task":["true"]}"#, &[]),
        ] {
            assert_eq!(choose(filters, true, 0).unwrap(), names, "{filters}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (filters, message) in [
            (r#"{"status":["up"]}"#, "invalid filter 'status=up'"),
            (r#"{"health":["fine"]}"#, "invalid filter 'health=fine'"),
            (r#"{"exited":["x"]}"#, "invalid filter 'exited=x'"),
            (r#"{"publish":["90-80"]}"#, "invalid filter 'publish=90-80'"),
            (r#"{"expose":["80/icmp"]}"#, "invalid filter 'expose=80/icmp'"),
            (r#"{"before":["ghost"]}"#, "No such container: ghost"),
        ] {
            assert_eq!(choose(filters, true, 0).unwrap_err(), message, "{filters}");
        }
    }
}
