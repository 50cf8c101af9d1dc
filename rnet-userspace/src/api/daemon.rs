//! The daemon: serves until it is told to end, and keeps the controller in step with the host meanwhile.
//!
//! Its end changes nothing for containers and traffic, except after everything was taken down.

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use futures::future::BoxFuture;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
    task::{self, JoinSet},
    time::{self, Instant},
};

use super::{
    Control, Processes,
    activation::Inherited,
    address::Address,
    connections::{Connections, Limits, MAX_CONNECTIONS},
    exporter,
    listeners::Listeners,
    server, socket,
    supervisor::{Graces, Supervisor},
    tls::Tls,
};
use crate::controller::{Config, Events, events::Kind, packets::Packets};

/// How often dead flows are cleared away. The shortest idle time, that of a TCP connection after a reset, is
/// 10 s: no dead entry takes up room for half as long again.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// The same while a table fills up, or a container uses up its quota of flows.
const SWEEP_PRESSED_EVERY: Duration = Duration::from_secs(1);
/// How long after a change of the host that could not be followed it is tried again: the kernel tells of it only once.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);
/// How long requests may take to end once the daemon is to: a `stop` takes up to 10 s before it uses force.
const DRAIN: Duration = Duration::from_secs(15);

/// What a daemon is told at its start.
pub struct Options {
    /// The instance's name.
    pub instance: String,
    /// Path of its socket: [`super::socket_path`].
    pub socket: PathBuf,
    /// Where else it listens.
    pub hosts: Vec<Address>,
    /// Sockets that it need not open.
    pub inherited: Inherited,
    /// Where metrics are served beside the API; absent for nowhere else.
    pub metrics: Option<SocketAddr>,
    /// What it speaks TLS with on TCP; absent for none.
    pub tls: Option<Arc<Tls>>,
    /// Connections to it at once, as far as there are descriptors for them.
    pub max_connections: usize,
    /// Reads the configuration anew; absent where there is none to read.
    pub reload: Option<Reload>,
    /// Told when it is to be read.
    pub(super) reload_now: Arc<Notify>,
}

impl Options {
    /// A daemon that listens at its own socket only.
    pub fn new(instance: &str, socket: PathBuf) -> Self {
        let instance = instance.to_owned();
        Self {
            instance,
            socket,
            hosts: Vec::new(),
            inherited: Inherited::default(),
            metrics: None,
            tls: None,
            max_connections: MAX_CONNECTIONS,
            reload: None,
            reload_now: Arc::default(),
        }
    }
}

/// Called on SIGHUP, on a thread that may block: puts in force what is not the controller's, and returns what is.
pub type Reload = Box<dyn Fn() -> Result<Config> + Send + Sync>;

/// What carries out the daemon's work.
pub struct Parts {
    /// The controller, which has adopted what is there.
    pub control: Arc<dyn Control>,
    /// Starts and finds processes.
    pub processes: Arc<dyn Processes>,
    /// What happens to the controller's networks and containers.
    pub events: Events,
    /// Where packets can be looked at.
    pub packets: Arc<dyn Packets>,
    /// Begins to follow the host's links and addresses.
    pub watch: WatchHost,
    /// What is to run beside the requests; dropped when the daemon ends.
    pub beside: BoxFuture<'static, ()>,
    /// There was nothing of the instance before: a start that fails takes back what it has made.
    pub is_first: bool,
    /// Removes what the instance keeps until its end, such as its lock. Called last, once everything has been
    /// taken down and the socket is gone; dropped uncalled when the daemon ends without that.
    pub clean_up: Box<dyn FnOnce() -> Result<()> + Send>,
}

/// Calls what it is given whenever links or addresses of the host have changed, as long as what it returns is
/// kept.
pub type WatchHost = Box<dyn FnOnce(OnChange) -> Result<Box<dyn Send>> + Send>;
/// Returns at once; may be called from any thread.
pub type OnChange = Box<dyn Fn() + Send + Sync>;

/// Runs the daemon until SIGTERM, SIGINT, or everything has been taken down; SIGHUP reloads. `parts` is called once it is clear
/// that no other daemon of the instance runs, on a thread that may block.
///
/// # Errors
/// When another daemon runs, or the parts or the socket cannot be made.
pub async fn run(options: Options, parts: impl FnOnce() -> Result<Parts> + Send + 'static) -> Result<()> {
    // Installed first, so that an early signal ends the start in order.
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("wait for SIGHUP")?;
    let reload_now = Arc::clone(&options.reload_now);
    let end = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reload_now.notify_one(),
            }
        }
    };
    serve(options, parts, Graces::default(), end).await
}

pub(super) async fn serve(
    options: Options,
    parts: impl FnOnce() -> Result<Parts> + Send + 'static,
    graces: Graces,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    // The instance's lock tells two daemons apart where the service manager listens for both.
    if !options.inherited.has(&options.socket) {
        socket::refuse_if_live(&options.socket, &options.instance).await?;
    }
    let Parts { control, processes, events, packets, watch, beside, is_first, clean_up } =
        on_the_first_thread(parts).await?;
    let daemon = Supervisor::new(control, processes, events, packets, graces);

    let changed = Arc::new(Notify::new());
    let on_change = Arc::clone(&changed);
    // What could not be put right at the start, of one container, is tried again.
    changed.notify_one();
    let opened = async {
        let watching = watch(Box::new(move || on_change.notify_one()))
            .context("follow the host's links and addresses")?;
        daemon.adopt().await.context("take hold of the containers' processes")?;
        let listeners =
            Listeners::bind(&options.socket, &options.hosts, options.tls, options.inherited).await?;
        let metrics = match options.metrics {
            Some(addr) => Some(exporter::bind(addr).await?),
            None => None,
        };
        anyhow::Ok((watching, listeners, metrics))
    };
    let (_watching, listeners, metrics) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            if is_first {
                take_back(&daemon, clean_up).await;
            }
            return Err(error);
        }
    };

    let mut chores = JoinSet::new();
    chores.spawn(sweep(Arc::clone(&daemon)));
    chores.spawn(follow_host(Arc::clone(&daemon), changed));
    chores.spawn(beside);
    // By now the limit of descriptors is what it is to be.
    let connections = Connections::new(Limits::within_descriptors(options.max_connections));
    daemon.activity().come_by(Arc::clone(&connections));
    if let Some(metrics) = metrics {
        chores.spawn(exporter::serve(metrics, Arc::clone(&daemon)));
    }
    let inherited = listeners.inherited().to_vec();
    tell_manager(&[NotifyState::Ready]);
    tracing::info!(instance = options.instance, socket = %options.socket.display(), "ready");
    // Not before: the service manager takes the end of a reload for the end of the start.
    if let Some(reload) = options.reload {
        chores.spawn(follow_configuration(
            Arc::clone(&daemon),
            options.instance.clone(),
            options.reload_now,
            reload,
        ));
    }

    let ending = watch::Sender::new(false);
    let mut server = Box::pin(listeners.serve(server::router(Arc::clone(&daemon)), connections, &ending));
    let has_failed = tokio::select! {
        () = &mut server => true,
        () = end => false,
        () = daemon.taken_down() => false,
    };
    if daemon.is_down() {
        // Whoever came next would have the service manager start the daemon again.
        inherited.iter().for_each(|path| socket::remove(path));
    }
    tell_manager(&[NotifyState::Stopping]);
    ending.send_replace(true);
    daemon.end_answers();
    if !has_failed && time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!("requests are still under way, which are cut off");
    }
    chores.shutdown().await;
    if daemon.is_down() {
        clean_up().context("remove what is left of the instance")?;
    }
    tracing::info!(instance = options.instance, "ended");
    Ok(())
}

/// Runs the start, which may block, on a thread of the runtime's pool. A pool without a thread panics where the kernel
/// has none for it, and runs what it was given all the same; one that has a thread waits for it. So the first is had
/// while there is nothing yet that would stay behind, and the daemon's chores keep it busy from then on. Before that, one
/// that is not the pool's says in one line that there is none.
async fn on_the_first_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let tried = thread::Builder::new().spawn(|| ()).context("start a thread")?;
    tried.join().map_err(|_| anyhow!("a thread that does nothing has panicked"))?;
    task::spawn_blocking(|| ()).await.context("start a thread")?;
    task::spawn_blocking(work).await.context("start")?
}

/// Removes what a first start has made that fails.
async fn take_back(daemon: &Supervisor, clean_up: Box<dyn FnOnce() -> Result<()> + Send>) {
    let removed = daemon.take_down().await.map_err(anyhow::Error::from).and_then(|()| clean_up());
    if let Err(e) = removed {
        tracing::warn!("remove what a failed start has made: {e:#}");
    }
}

/// Best effort: without a service manager there is nobody to tell.
pub(crate) fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!("tell the service manager what the daemon does: {e}");
    }
}

async fn follow_configuration(daemon: Arc<Supervisor>, instance: String, told: Arc<Notify>, reload: Reload) {
    let reload = Arc::new(reload);
    loop {
        told.notified().await;
        // Without the time, systemd would not take the reload for one.
        let time = NotifyState::monotonic_usec_now();
        tell_manager(&[Some(NotifyState::Reloading), time.ok()].into_iter().flatten().collect::<Vec<_>>());
        let reload = Arc::clone(&reload);
        let reloaded = daemon.ask(move |c| c.reload(reload()?)).await;
        match reloaded {
            Ok(()) => {
                tracing::info!("configuration reloaded");
                daemon.events().emit(Kind::Daemon, "reload", &instance, [("name", instance.as_str())]);
            }
            Err(e) => tracing::error!("reload the configuration, which stays as it was: {e}"),
        }
        tell_manager(&[NotifyState::Ready]);
    }
}

async fn sweep(daemon: Arc<Supervisor>) {
    loop {
        let began = Instant::now();
        let swept = daemon.walk(|c, from| c.sweep(from)).await;
        daemon.activity().sweeps.note(swept.is_ok(), began.elapsed());
        match swept {
            Ok(flows) => tracing::debug!(flows, took_us = began.elapsed().as_micros(), "swept"),
            Err(e) => tracing::warn!("sweep the flow table: {e}"),
        }
        // Asked as everything is, on a thread that may wait for the controller. It has no error of its own.
        let is_pressed = daemon.ask(|c| Ok(c.is_pressed())).await.unwrap_or_default();
        time::sleep(if is_pressed { SWEEP_PRESSED_EVERY } else { SWEEP_EVERY }).await;
    }
}

/// Changes come in bursts; those that come while one is being followed are followed together.
async fn follow_host(daemon: Arc<Supervisor>, changed: Arc<Notify>) {
    let mut problem = None;
    loop {
        match problem {
            None => changed.notified().await,
            // Time that runs out is as good as a change.
            Some(_) => _ = time::timeout(FOLLOW_AGAIN, changed.notified()).await,
        }
        let began = Instant::now();
        let followed = daemon.ask(|c| c.refresh_host()).await;
        daemon.activity().refreshes.note(followed.is_ok(), began.elapsed());
        let is = followed.err().map(|e| e.to_string());
        match &is {
            // Once is enough, however often it is tried.
            Some(e) if is != problem => {
                tracing::warn!("follow a change of the host's links or addresses, which is tried again: {e}");
            }
            Some(_) => {}
            None if problem.is_some() => tracing::info!("the host's links and addresses are followed again"),
            None => {}
        }
        problem = is;
    }
}
