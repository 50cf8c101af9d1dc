//! Following dockerd: what happens is answered by looking at what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::Semaphore,
    task,
    time::{self, Instant, MissedTickBehavior},
};

use super::{
    Options,
    client::{Client, Error},
    messages::{self, Event},
    problems::{self, Problems},
    starting::Starts,
    translate::{self, Followed, Interface},
};
use crate::{
    api::Control,
    controller::{
        self,
        model::engine::Engine,
        request::{EngineContainer, EngineInterface},
        view::EngineStatus,
    },
    host::bridge_ports::{self, BridgePort},
};

/// How often everything is looked at, in case something was missed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long to wait before dockerd is called again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Containers that dockerd is asked about at once.
const AT_ONCE: usize = 8;

/// Follows dockerd for as long as it is polled.
pub async fn follow(control: Arc<dyn Control>, options: Options) {
    let mut follower = Follower::new(control, options);
    let (mut retry, longest) = RETRY;
    let mut told = None;
    loop {
        let began = Instant::now();
        let why = follower.attend().await.to_string();
        if began.elapsed() > longest {
            retry = RETRY.0;
        }
        if told.as_ref() != Some(&why) {
            tracing::warn!("docker: {why}; waiting for dockerd, and leaving everything as it is until then");
            follower.note(None).await;
        }
        // After a connection it is worth telling again.
        told = Some(why).filter(|_| follower.version.is_none());
        follower.version = None;
        time::sleep(retry).await;
        retry = (retry * 2).min(longest);
    }
}

type Answer = (String, Result<messages::Container, Error>);

struct Follower {
    control: Arc<dyn Control>,
    client: Client,
    options: Options,
    /// Of the dockerd that is being followed.
    version: Option<String>,
    /// Bridge networks by id.
    networks: BTreeMap<String, Followed>,
    /// Networks that are no bridges.
    others: BTreeSet<String>,
    starts: Starts,
    /// Containers that are served as dockerd says they are, with what it says in its list.
    served: BTreeMap<String, Option<messages::Summary>>,
    /// Ports that containers were created with: while one is being started dockerd says nothing of it.
    bindings: BTreeMap<String, messages::PortBindings>,
    /// Where veths lead, by the endpoint's id.
    veths: BTreeMap<String, BridgePort>,
    /// Questions about containers that are under way.
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Their containers, and whether something has happened since.
    asking: BTreeMap<String, bool>,
    at_once: Arc<Semaphore>,
    problems: Problems,
}

impl Follower {
    fn new(control: Arc<dyn Control>, options: Options) -> Self {
        Self {
            control,
            client: Client::new(options.socket.clone()),
            options,
            version: None,
            networks: BTreeMap::new(),
            others: BTreeSet::new(),
            starts: Starts::default(),
            served: BTreeMap::new(),
            bindings: BTreeMap::new(),
            veths: BTreeMap::new(),
            asked: FuturesUnordered::new(),
            asking: BTreeMap::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            problems: Problems::default(),
        }
    }

    /// Follows one run of dockerd, and returns why that has ended.
    async fn attend(&mut self) -> Error {
        match self.try_attend().await {
            Ok(()) => Error::Broken("dockerd has closed the connection".into()),
            Err(e) => e,
        }
    }

    async fn try_attend(&mut self) -> Result<(), Error> {
        let version = self.client.version().await?.version;
        // Before everything is looked at, so that nothing falls between the two.
        let mut events = self.client.events().await?;
        // What was asked of an earlier dockerd.
        self.asked = FuturesUnordered::new();
        self.asking.clear();
        self.starts = Starts::default();
        self.served.clear();
        self.look_at_all().await?;
        tracing::info!(version, socket = %self.options.socket.display(), "following Docker");
        self.version = Some(version);
        self.look_at_host().await;
        let mut ticks = time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pause = self.starts.pause();
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.hear(event?).await?,
                    None => return Ok(()),
                },
                Some((id, answer)) = self.asked.next(), if !self.asked.is_empty() => self.learn(id, answer).await?,
                () = time::sleep(pause.unwrap_or(LOOK_EVERY)), if pause.is_some() => self.look_for_starting().await,
                _ = ticks.tick() => {
                    self.look_at_all().await?;
                    self.look_at_host().await;
                }
            }
        }
    }

    async fn hear(&mut self, event: Event) -> Result<(), Error> {
        let id = event.actor.id.as_str();
        tracing::debug!(kind = event.kind, action = event.action, id, "docker's event");
        match (event.kind.as_str(), event.action.as_str()) {
            ("network", "create" | "update") => self.look_at_network(id).await?,
            ("network", "destroy") => self.forget_network(id).await,
            ("network", "connect") => {
                if let Some(container) = event.actor.attributes.get("container") {
                    self.connecting(id, container).await?;
                }
            }
            ("network", "disconnect") => {
                if let Some(container) = event.actor.attributes.get("container") {
                    if self.starts.remove(container) {
                        // The start has failed.
                        self.forget(container).await;
                    } else if self.served.contains_key(container) {
                        self.ask(container);
                    }
                }
            }
            ("container", "create" | "start") => self.ask(id),
            ("container", "rename" | "update") if self.served.contains_key(id) => self.ask(id),
            ("container", "die" | "destroy") => {
                if event.action == "destroy" {
                    self.bindings.remove(id);
                }
                self.starts.remove(id);
                self.forget(id).await;
            }
            _ => {}
        }
        Ok(())
    }

    /// A container is on a network, and may be about to start there.
    async fn connecting(&mut self, network: &str, container: &str) -> Result<(), Error> {
        if self.others.contains(network) {
            return Ok(());
        }
        if !self.networks.contains_key(network) {
            self.look_at_network(network).await?;
        }
        if !self.networks.contains_key(network) {
            return Ok(());
        }
        match self.client.network(network).await {
            Ok(there) => {
                if let Some(member) = there.containers.get(container)
                    && let Some(interface) = Interface::of_member(network, member)
                {
                    self.starts.expect(container, &member.name, interface);
                    self.look_for_starting().await;
                }
            }
            Err(Error::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        // Of one that runs, nothing more is told.
        if self.served.contains_key(container) {
            self.ask(container);
        }
        Ok(())
    }

    /// Serves those whose interfaces have appeared.
    async fn look_for_starting(&mut self) {
        let waiting: Vec<_> =
            self.starts.waiting().map(|(id, s)| (id.clone(), s.name.clone(), s.waiting.clone())).collect();
        let bridges = waiting.iter().flat_map(|(_, _, interfaces)| interfaces);
        let ports = self.ports(&bridges.cloned().collect::<Vec<_>>()).await;
        for (id, name, interfaces) in waiting {
            let found: Vec<EngineInterface> =
                interfaces.iter().filter_map(|i| Some(i.at(ports.get(&i.endpoint)?))).collect();
            if found.is_empty() {
                continue;
            }
            for endpoint in found.iter().filter_map(|i| i.id.as_ref()) {
                self.starts.found(&id, endpoint);
            }
            let ports =
                self.bindings.get(&id).map(|asked| translate::ports_to_be(asked, &found, &self.networks));
            let mut more = EngineContainer {
                engine: Engine::Docker,
                id: id.clone(),
                name: name.clone(),
                netns: None,
                interfaces: found,
                ports: ports.unwrap_or_default(),
                keeps_ports: true,
            };
            let with_ports = more.clone();
            let mut outcome = self.control(move |c| c.add_to_engine_container(&with_ports).map(drop)).await;
            if outcome.is_err() && !more.ports.is_empty() {
                more.ports.clear();
                outcome = self.control(move |c| c.add_to_engine_container(&more).map(drop)).await;
            }
            // What goes wrong is tried again, and told, once it has started.
            match outcome {
                Ok(()) => tracing::debug!(container = name, "served before it runs"),
                Err(e) => tracing::debug!(container = name, "serve before it runs: {e}"),
            }
        }
    }

    /// Has dockerd asked what a container is like.
    fn ask(&mut self, container: &str) {
        if let Some(again) = self.asking.get_mut(container) {
            *again = true;
            return;
        }
        self.asking.insert(container.to_owned(), false);
        let (client, id, at_once) = (self.client.clone(), container.to_owned(), Arc::clone(&self.at_once));
        let question = async move {
            // It is never closed.
            let _permit = at_once.acquire().await;
            let answer = client.container(&id).await;
            (id, answer)
        };
        self.asked.push(question.boxed());
    }

    async fn learn(&mut self, id: String, answer: Result<messages::Container, Error>) -> Result<(), Error> {
        if self.asking.remove(&id) == Some(true) {
            self.ask(&id);
            return Ok(());
        }
        if let Ok(container) = &answer {
            self.bindings.insert(id.clone(), container.host_config.port_bindings.clone());
        }
        match answer {
            Ok(container) if translate::runs(&container) => self.serve(&container).await?,
            // It is about to run, or has ended, of which more will be heard.
            Ok(_) if self.starts.contains(&id) => {}
            Ok(_) | Err(Error::NotFound(_)) => self.forget(&id).await,
            Err(e) => self.told(&id, vec![format!("container {}: {e}", short(&id))]).await,
        }
        Ok(())
    }

    async fn serve(&mut self, container: &messages::Container) -> Result<(), Error> {
        let id = container.id.as_str();
        for network in translate::networks_of(container) {
            if !self.networks.contains_key(&network) && !self.others.contains(&network) {
                self.look_at_network(&network).await?;
            }
        }
        let interfaces = translate::interfaces(container, &self.networks);
        self.starts.remove(id);
        if interfaces.is_empty() {
            self.served.entry(id.to_owned()).or_default();
            let problems = self.remove(id).await;
            self.told(id, problems.into_iter().collect()).await;
            return Ok(());
        }
        let ports = self.ports(&interfaces).await;
        let mut problems = Vec::new();
        let mut found = Vec::new();
        let name = container.name.trim_start_matches('/');
        for interface in &interfaces {
            match ports.get(&interface.endpoint) {
                Some(port) if port.inside.is_some() => found.push(interface.at(port)),
                _ => problems.push(format!(
                    "container {name}: no port of bridge {} leads to its interface {}",
                    self.networks.get(&interface.network).map_or("", |n| n.network.bridge.as_str()),
                    interface.mac
                )),
            }
        }
        match netns_of(container) {
            Some(netns) if !found.is_empty() => {
                let (wanted, unserved) = translate::container(container, netns, found, &self.networks);
                problems.extend(unserved);
                match self.set(wanted).await {
                    Ok(()) => _ = self.served.entry(id.to_owned()).or_default(),
                    Err(e) => problems.push(format!("container {name}: {e}")),
                }
            }
            Some(_) => {}
            None => {
                problems.push(format!("container {name}: its network namespace is not to be seen from here"))
            }
        }
        self.told(id, problems).await;
        Ok(())
    }

    /// Serves a container. What is in the way is gone, or of the same container before its last start.
    async fn set(&mut self, wanted: EngineContainer) -> controller::Result<()> {
        let wanted = Arc::new(wanted);
        let control = Arc::clone(&self.control);
        let try_once = || {
            let wanted = Arc::clone(&wanted);
            ask(&control, move |c| c.set_engine_container(&wanted).map(drop))
        };
        match try_once().await {
            Err(controller::Error::Conflict(_)) => {
                self.remove(&wanted.id).await;
                if let Ok(there) = self.client.containers().await {
                    self.forget_gone(&there).await;
                }
                try_once().await
            }
            outcome => outcome,
        }
    }

    /// The ports that lead to these interfaces, by endpoint. dockerd makes the veth before it tells of the interface, so
    /// that where one is missing and one port is new, that is it, before its other end is inside.
    async fn ports(&mut self, interfaces: &[Interface]) -> BTreeMap<String, BridgePort> {
        let is_seen = |port: &&BridgePort| port.inside.is_some();
        let missing = interfaces.iter().filter(|i| self.veths.get(&i.endpoint).filter(is_seen).is_none());
        let bridges: BTreeSet<String> =
            missing.filter_map(|i| Some(self.networks.get(&i.network)?.network.bridge.clone())).collect();
        let seen = self.veths.values().filter(is_seen).map(|port| port.name.clone());
        let seen: Arc<BTreeSet<String>> = Arc::new(seen.collect());
        for bridge in bridges {
            let (name, seen) = (bridge.clone(), Arc::clone(&seen));
            let found = task::spawn_blocking(move || bridge_ports::ports_of(&name, &seen)).await;
            let mut found = found.map_err(anyhow::Error::from).flatten().unwrap_or_else(|e| {
                tracing::warn!(bridge, "docker: {e:#}");
                Vec::new()
            });
            let on_it =
                |i: &&Interface| self.networks.get(&i.network).is_some_and(|n| n.network.bridge == bridge);
            let mut missing: Vec<&Interface> = interfaces.iter().filter(on_it).collect();
            missing.retain(|interface| {
                let leads_there =
                    |port: &BridgePort| port.inside.as_ref().is_some_and(|i| i.mac == interface.mac);
                let port = found.iter().position(leads_there);
                if let Some(port) = port {
                    self.veths.insert(interface.endpoint.clone(), found.swap_remove(port));
                }
                port.is_none() && !self.veths.contains_key(&interface.endpoint)
            });
            found.retain(|port| !self.veths.values().any(|known| known.name == port.name));
            if let ([interface], [port]) = (&missing[..], &found[..])
                && port.inside.is_none()
            {
                self.veths.insert(interface.endpoint.clone(), port.clone());
            }
        }
        let found = |i: &Interface| Some((i.endpoint.clone(), self.veths.get(&i.endpoint)?.clone()));
        interfaces.iter().filter_map(found).collect()
    }

    /// Looks at one network, and serves it if it is a bridge's.
    async fn look_at_network(&mut self, id: &str) -> Result<(), Error> {
        match self.client.network(id).await {
            Ok(network) => self.follow_network(&network).await,
            // It is gone already, of which more will be heard.
            Err(Error::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    async fn follow_network(&mut self, network: &messages::Network) {
        if network.driver != "bridge" {
            self.others.insert(network.id.clone());
            return;
        }
        let bridge = translate::bridge_name(network);
        let addrs = task::spawn_blocking(move || bridge_ports::addresses_of(&bridge)).await;
        let addrs = addrs.map_err(anyhow::Error::from).flatten().unwrap_or_default();
        let wrong = |why: String| vec![format!("network {}: {why}", network.name)];
        let problems = match translate::network(network, &addrs, self.options.default_network) {
            Ok(followed) => {
                let wanted = followed.network.clone();
                match self.control(move |c| c.follow_network(&wanted).map(drop)).await {
                    Ok(()) => {
                        let unserved = followed.unserved.clone();
                        self.networks.insert(network.id.clone(), followed);
                        unserved
                    }
                    Err(e) => wrong(e.to_string()),
                }
            }
            Err(why) => wrong(why),
        };
        self.told(&network.id, problems).await;
    }

    async fn forget_network(&mut self, id: &str) {
        self.networks.remove(id);
        self.others.remove(id);
        let of = id.to_owned();
        let removed = self.control(move |c| c.remove_engine_network(Engine::Docker, &of)).await;
        let problems = removed.err().map(|e| format!("network {}: {e}", short(id)));
        self.told(id, problems.into_iter().collect()).await;
    }

    /// A container has ended.
    async fn forget(&mut self, id: &str) {
        if let Some(again) = self.asking.get_mut(id) {
            *again = true;
        }
        self.served.remove(id);
        let problems = self.remove(id).await.map(|why| vec![why]).unwrap_or_default();
        self.told(id, problems).await;
    }

    async fn remove(&mut self, id: &str) -> Option<String> {
        let of = id.to_owned();
        let known = self.control(move |c| match c.container(&of) {
            Ok(known) if known.engine == Some(Engine::Docker) => {
                c.remove_engine_container(Engine::Docker, &of)?;
                Ok(known.endpoints.into_iter().map(|e| e.id).collect())
            }
            Ok(_) | Err(controller::Error::NotFound(_)) => Ok(Vec::new()),
            Err(e) => Err(e),
        });
        match known.await {
            Ok(endpoints) => {
                self.veths.retain(|endpoint, _| !endpoints.contains(endpoint));
                None
            }
            Err(e) => Some(format!("container {}: {e}", short(id))),
        }
    }

    /// Makes everything what dockerd says it is. What is gone is forgotten first: its addresses and ports may be others'.
    async fn look_at_all(&mut self) -> Result<(), Error> {
        let networks = self.client.networks().await?;
        let there = self.client.containers().await?;
        self.forget_gone(&there).await;
        let known = self.control(|c| Ok(c.networks())).await.unwrap_or_default();
        let gone = known.into_iter().filter(|n| n.engine == Some(Engine::Docker));
        for network in gone.filter(|known| !networks.iter().any(|n| n.id == known.id && n.driver == "bridge"))
        {
            self.forget_network(&network.id).await;
        }
        for network in &networks {
            self.follow_network(network).await;
        }
        self.bindings.retain(|id, _| there.iter().any(|there| there.id == *id));
        for mut container in there {
            // Their order means nothing.
            container.ports.sort_by_key(ToString::to_string);
            let id = container.id.clone();
            if !container.runs() {
                if !self.bindings.contains_key(&id) {
                    self.ask(&id);
                }
                continue;
            }
            let known = self.served.get_mut(&id);
            let is_new = known.as_ref().is_none_or(|known| known.as_ref() != Some(&container));
            if let Some(known) = known {
                *known = Some(container);
            }
            if is_new {
                self.ask(&id);
            }
        }
        Ok(())
    }

    async fn forget_gone(&mut self, there: &[messages::Summary]) {
        let known = self.control(|c| Ok(c.containers())).await.unwrap_or_default();
        for container in known.into_iter().filter(|c| c.engine == Some(Engine::Docker)) {
            let is_there = there.iter().any(|there| there.id == container.id && there.runs());
            if !is_there && !self.starts.contains(&container.id) {
                tracing::info!(container = container.name, "Docker has it no more");
                self.forget(&container.id).await;
            }
        }
    }

    /// Looks for what is in the way on this host.
    async fn look_at_host(&mut self) {
        let networks = self.networks.clone();
        let problems = task::spawn_blocking(move || problems::of_host(&networks)).await.unwrap_or_default();
        self.problems.set("host", problems);
        self.note(self.version.clone()).await;
    }

    async fn told(&mut self, scope: &str, problems: Vec<String>) {
        if self.problems.set(scope, problems) {
            self.note(self.version.clone()).await;
        }
    }

    /// Says how things are.
    async fn note(&mut self, version: Option<String>) {
        let status = EngineStatus {
            engine: Engine::Docker,
            address: format!("unix://{}", self.options.socket.display()),
            version,
            problems: self.problems.all(),
        };
        if let Err(e) = self.control(move |c| c.note_engine(status)).await {
            tracing::debug!("note how Docker is: {e}");
        }
    }

    fn control<T: Send + 'static, F>(
        &self,
        question: F,
    ) -> impl Future<Output = controller::Result<T>> + use<T, F>
    where
        F: FnOnce(&dyn Control) -> controller::Result<T> + Send + 'static,
    {
        ask(&self.control, question)
    }
}

/// Calls the controller on a thread that may block.
fn ask<T: Send + 'static, F>(
    control: &Arc<dyn Control>,
    question: F,
) -> impl Future<Output = controller::Result<T>> + use<T, F>
where
    F: FnOnce(&dyn Control) -> controller::Result<T> + Send + 'static,
{
    let control = Arc::clone(control);
    let question = task::spawn_blocking(move || question(&*control));
    async move {
        let failed =
            |e| Err(controller::Error::Failed(anyhow::Error::from(e).context("the daemon failed inside")));
        question.await.unwrap_or_else(failed)
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A file that stands for a container's network namespace. By its process it ends with the container; where dockerd's
/// processes have other numbers here, it is what dockerd has mounted.
fn netns_of(container: &messages::Container) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{}/ns/net", container.state.pid));
    let mount = PathBuf::from(&container.network_settings.sandbox_key);
    let kind = fs::metadata("/proc/self/ns/net").ok()?.dev();
    let number = |path: &Path| fs::metadata(path).ok().filter(|m| m.dev() == kind).map(|m| m.ino());
    match (number(&process), number(&mount)) {
        (Some(a), Some(b)) if a != b => Some(mount),
        (Some(_), _) => Some(process),
        (None, Some(_)) => Some(mount),
        (None, None) => None,
    }
}
