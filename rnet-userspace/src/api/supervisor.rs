//! Containers with what runs in them: the controller knows their networks, [`Processes`] their processes, and
//! this keeps the two together.
//!
//! A process is held from its start, or from the daemon's, until its end has been noted. Who starts a process in
//! the foreground is its parent and learns how it ended; the daemon only sees that it did. So the daemon notes
//! an end that it cannot explain only after the parent has had time to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow};
use futures::{
    FutureExt as _,
    future::{self, BoxFuture, join_all},
};
use rnet_common::TraceFilter;
use tokio::{sync::watch, task, time};

use super::{Control, Process, Processes, Signal, activity::Activity};
use crate::controller::{
    Error,
    backend::{FlowPosition, Page},
    error::Result,
    events::Events,
    packets::{Look, Packets},
    request::CreateContainer,
    view::{self, ContainerState},
};

/// How long a walk through the flow table rests between its steps. A lock goes to whoever takes it first: without a rest
/// those who wait for the controller would be woken too late each time.
pub(super) const BETWEEN_STEPS: Duration = Duration::from_millis(1);

/// How long is waited for what others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Graces {
    /// For a process to end after SIGTERM.
    pub(super) stop: Duration,
    /// For the kernel to end a process after SIGKILL; longer means that it hangs in the kernel.
    pub(super) kill: Duration,
    /// For the parent of an ended process to say how it ended.
    pub(super) report: Duration,
}

impl Default for Graces {
    fn default() -> Self {
        // `stop` is Docker's default.
        Self { stop: Duration::from_secs(10), kill: Duration::from_secs(10), report: Duration::from_secs(2) }
    }
}

/// A process whose end has not been noted. Dropping it tells those who wait for that.
struct Running {
    /// `None` when it had ended before it could be taken hold of.
    process: Option<Box<dyn Process>>,
    noted: watch::Sender<()>,
}

/// Completes when a process has ended, with its exit status if that can be known.
type Exited = BoxFuture<'static, Option<i32>>;

/// The daemon's state, shared by all requests.
pub(super) struct Supervisor {
    control: Arc<dyn Control>,
    processes: Arc<dyn Processes>,
    events: Events,
    activity: Arc<Activity>,
    packets: Arc<dyn Packets>,
    graces: Graces,
    running: Mutex<BTreeMap<String, Arc<Running>>>,
    going_down: AtomicBool,
    down: watch::Sender<bool>,
    ending: watch::Sender<bool>,
}

impl Supervisor {
    pub(super) fn new(
        control: Arc<dyn Control>,
        processes: Arc<dyn Processes>,
        events: Events,
        packets: Arc<dyn Packets>,
        graces: Graces,
    ) -> Arc<Self> {
        Arc::new(Self {
            control,
            processes,
            events,
            activity: Arc::default(),
            packets,
            graces,
            running: Mutex::default(),
            going_down: AtomicBool::new(false),
            down: watch::Sender::new(false),
            ending: watch::Sender::new(false),
        })
    }

    /// What happens to networks and containers.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// What the daemon has done so far.
    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Looks for packets.
    pub(super) async fn look(&self, filters: Vec<TraceFilter>) -> Result<Look> {
        let packets = Arc::clone(&self.packets);
        blocking(move || Ok(packets.look(filters)?)).await
    }

    /// Ends the answers that would go on for as long as somebody listens.
    pub(super) fn end_answers(&self) {
        self.ending.send_replace(true);
    }

    /// Completes once such answers are to end.
    pub(super) fn ended(&self) -> BoxFuture<'static, ()> {
        let mut ending = self.ending.subscribe();
        // Without the sender there is no daemon any more.
        async move { drop(ending.wait_for(|ending| *ending).await) }.boxed()
    }

    /// Calls the controller on a thread that may block.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Control) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let control = Arc::clone(&self.control);
        blocking(move || question(&*control)).await
    }

    /// Calls the controller for each step of a walk through the flow table, and adds up what it says.
    pub(super) async fn walk(
        &self,
        step: impl Fn(&dyn Control, FlowPosition) -> Result<Page<usize>> + Clone + Send + 'static,
    ) -> Result<usize> {
        let (mut sum, mut from) = (0, FlowPosition::default());
        loop {
            let step = step.clone();
            let Page { found, next } = self.ask(move |c| step(c, from)).await?;
            sum += found;
            match next {
                Some(next) => from = next,
                None => return Ok(sum),
            }
            time::sleep(BETWEEN_STEPS).await;
        }
    }

    /// Takes hold of the processes that run already.
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<()> {
        for container in self.ask(|c| Ok(c.containers())).await? {
            if let (ContainerState::Running, Some(pid)) = (container.state, container.pid) {
                let exited = self.hold(&container.id, self.open(pid).await?);
                self.watch(container.id, exited);
            }
        }
        Ok(())
    }

    /// Creates a container, and starts its process if it is to run on its own. A failure leaves nothing.
    pub(super) async fn create(self: &Arc<Self>, request: CreateContainer) -> Result<view::Container> {
        if self.going_down.load(Ordering::SeqCst) {
            return Err(Error::Conflict("create container: the instance is being taken down".into()));
        }
        let starts = request.detach && !request.command.is_empty();
        let container = self.ask(move |c| c.create_container(&request)).await?;
        if !starts {
            return Ok(container);
        }
        let id = container.id.clone();
        match self.start(container.clone()).await {
            Ok(()) => match self.ask(move |c| c.container(&id)).await {
                // It has ended already, and was to be removed then.
                Err(Error::NotFound(_)) => Ok(container),
                found => found,
            },
            Err(start) => match self.ask(move |c| c.remove_container(&id, true)).await {
                Ok(_) | Err(Error::NotFound(_)) => Err(start),
                Err(undo) => Err(Error::Failed(anyhow!("{start}; undoing what was done failed too: {undo}"))),
            },
        }
    }

    /// Notes that a process started by somebody else runs in a container.
    pub(super) async fn started(self: &Arc<Self>, container: String, pid: u32) -> Result<()> {
        let id = self.ask(move |c| Ok(c.container(&container)?.id)).await?;
        // Held before the controller knows of it: a container said to run without a process held has none.
        let exited = self.hold(&id, self.open(pid).await?);
        let of = id.clone();
        let started = self.ask(move |c| c.mark_started(&of, pid)).await;
        match started {
            Ok(()) => self.watch(id, exited),
            Err(_) => drop(self.running().remove(&id)),
        }
        started
    }

    /// Notes how a process ended, as its parent tells.
    pub(super) async fn exited(&self, container: String, code: Option<i32>) -> Result<()> {
        let id = self.ask(move |c| Ok(c.container(&container)?.id)).await?;
        let running = self.running().remove(&id);
        let noted = self.note_exit(id, code).await;
        drop(running);
        noted
    }

    /// Ends a container's process, with force if it does not by itself. A namespace without one counts as ended too.
    pub(super) async fn stop(&self, container: String) -> Result<()> {
        let container = self.ask(move |c| c.container(&container)).await?;
        if container.state != ContainerState::Running {
            return Ok(());
        }
        if self.end(&container, Signal::Terminate).await? {
            return Ok(());
        }
        self.note_exit(container.id, None).await
    }

    /// Removes a container. With `force`, its process is killed first.
    pub(super) async fn remove(&self, container: String, force: bool) -> Result<view::Container> {
        let container = self.ask(move |c| c.container(&container)).await?;
        let ended = force && self.end(&container, Signal::Kill).await?;
        let id = container.id.clone();
        match self.ask(move |c| c.remove_container(&id, force)).await {
            // A container that is removed as soon as its process ends.
            Err(Error::NotFound(_)) if ended => Ok(container),
            other => other,
        }
    }

    /// Kills every process and removes everything that the instance made.
    pub(super) async fn take_down(&self) -> Result<()> {
        self.going_down.store(true, Ordering::SeqCst);
        let down = self.end_all().await;
        let down = match down {
            Ok(()) => self.ask(|c| c.down()).await,
            Err(e) => Err(e),
        };
        if down.is_ok() {
            self.down.send_replace(true);
        } else {
            self.going_down.store(false, Ordering::SeqCst);
        }
        down
    }

    /// Completes once everything has been taken down.
    pub(super) async fn taken_down(&self) {
        // The sender is ours, so that there can be no error.
        let _ = self.down.subscribe().wait_for(|down| *down).await;
    }

    /// Whether everything has been taken down.
    pub(super) fn is_down(&self) -> bool {
        *self.down.borrow()
    }

    async fn start(self: &Arc<Self>, container: view::Container) -> Result<()> {
        let (id, name) = (container.id.clone(), container.name.clone());
        let processes = Arc::clone(&self.processes);
        let pid = blocking(move || {
            processes
                .start_detached(&container)
                .with_context(|| format!("start container {name}"))
                .map_err(Error::from)
        })
        .await?;
        let started = self.started(id, pid).await;
        if started.is_err()
            && let Ok(Some(process)) = self.open(pid).await
            && let Err(e) = process.signal(Signal::Kill)
        {
            tracing::warn!(pid, "end the process of a container that failed to start: {e:#}");
        }
        started
    }

    async fn open(&self, pid: u32) -> Result<Option<Box<dyn Process>>> {
        let processes = Arc::clone(&self.processes);
        blocking(move || processes.open(pid).map_err(Error::from)).await
    }

    fn hold(&self, id: &str, process: Option<Box<dyn Process>>) -> Exited {
        let exited = match &process {
            Some(process) => process.exited(),
            None => future::ready(None).boxed(),
        };
        let running = Arc::new(Running { process, noted: watch::Sender::new(()) });
        self.running().insert(id.to_owned(), running);
        exited
    }

    fn watch(self: &Arc<Self>, id: String, exited: Exited) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let code = exited.await;
            if code.is_none() {
                time::sleep(this.graces.report).await;
            }
            let Some(running) = this.running().remove(&id) else { return };
            if let Err(e) = this.note_exit(id.clone(), code).await {
                tracing::warn!(container = id, "note the end of its process: {e}");
            }
            drop(running);
        });
    }

    /// Ends the process of a container that has one and waits until that is noted. Says whether there was one.
    async fn end(&self, container: &view::Container, signal: Signal) -> Result<bool> {
        let Some(running) = self.running().get(&container.id).cloned() else { return Ok(false) };
        let mut noted = running.noted.subscribe();
        if let Some(process) = &running.process {
            let grace = if signal == Signal::Kill { self.graces.kill } else { self.graces.stop };
            process.signal(signal)?;
            if time::timeout(grace, process.exited()).await.is_err() {
                process.signal(Signal::Kill)?;
                time::timeout(self.graces.kill, process.exited()).await.map_err(|_| {
                    let pid = container.pid.unwrap_or_default();
                    anyhow!(
                        "end container {}: process {pid} survives SIGKILL; it waits in the kernel, try again later",
                        container.name
                    )
                })?;
            }
        }
        drop(running);
        // Fails as soon as the last holder of the sender is gone, which is what is waited for.
        let _ = noted.changed().await;
        Ok(true)
    }

    async fn end_all(&self) -> Result<()> {
        let containers = self.ask(|c| Ok(c.containers())).await?;
        let ends = join_all(containers.iter().map(|container| self.end(container, Signal::Kill))).await;
        ends.into_iter().try_for_each(|end| end.map(|_| ()))
    }

    async fn note_exit(&self, id: String, code: Option<i32>) -> Result<()> {
        self.ask(move |c| {
            let container = c.container(&id)?;
            c.mark_exited(&id, code)?;
            if !container.remove {
                return Ok(());
            }
            match c.remove_container(&id, true) {
                Ok(_) | Err(Error::NotFound(_)) => Ok(()),
                Err(e) => Err(e),
            }
        })
        .await
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Running>>> {
        // Nothing that can panic is done under the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::Failed(anyhow!(e).context("the daemon failed inside"))),
    }
}
