//! Following dockerd: what happens is answered by looking at what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::Semaphore,
    task,
    time::{self, Instant, MissedTickBehavior},
};

use super::{
    Options,
    client::{Client, Error},
    messages::{self, Event},
    problems::Problems,
    starting::Starts,
    translate::Followed,
};
use crate::{
    api::Control,
    controller::{self, model::engine::Engine, view::EngineStatus},
    host::bridge_ports::BridgePort,
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

/// What is known of Docker.
pub(super) struct Follower {
    pub(super) control: Arc<dyn Control>,
    pub(super) client: Client,
    pub(super) options: Options,
    /// Of the dockerd that is being followed.
    pub(super) version: Option<String>,
    /// Bridge networks by id.
    pub(super) networks: BTreeMap<String, Followed>,
    /// Networks that are no bridges.
    pub(super) others: BTreeSet<String>,
    pub(super) starts: Starts,
    /// Containers that are served as dockerd says they are, with what it says in its list.
    pub(super) served: BTreeMap<String, Option<messages::Summary>>,
    /// Ports that containers were created with: while one is being started dockerd says nothing of it.
    pub(super) bindings: BTreeMap<String, messages::PortBindings>,
    /// Where veths lead, by the endpoint's id.
    pub(super) veths: BTreeMap<String, BridgePort>,
    /// Questions about containers that are under way.
    pub(super) asked: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Their containers, and whether something has happened since.
    pub(super) asking: BTreeMap<String, bool>,
    pub(super) at_once: Arc<Semaphore>,
    pub(super) problems: Problems,
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
    pub(super) async fn told(&mut self, scope: &str, problems: Vec<String>) {
        if self.problems.set(scope, problems) {
            self.note(self.version.clone()).await;
        }
    }

    /// Says how things are.
    pub(super) async fn note(&mut self, version: Option<String>) {
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

    pub(super) fn control<T: Send + 'static, F>(
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
pub(super) fn ask<T: Send + 'static, F>(
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

/// The id of a container or network as people see it.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
