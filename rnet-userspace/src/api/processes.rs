//! What the daemon asks of the processes inside containers.

use anyhow::Result;
use futures::future::BoxFuture;

use crate::controller::view;

/// How a process is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: it may finish what it is at.
    Terminate,
    /// SIGKILL: at once.
    Kill,
}

/// Starts and finds the processes of containers.
pub trait Processes: Send + Sync + 'static {
    /// Starts a container's command inside its namespaces, on its own and with its output going to the file
    /// `log` of the container's directory. Returns the process's id; it outlives the daemon.
    fn start_detached(&self, container: &view::Container) -> Result<u32>;
    /// Takes hold of a running process, so that a later one of the same id is not mistaken for it. `None` when
    /// there is no such process.
    fn open(&self, pid: u32) -> Result<Option<Box<dyn Process>>>;
}

/// One process, which may have ended.
pub trait Process: Send + Sync + 'static {
    /// Sends a signal. Succeeds when the process has ended.
    fn signal(&self, signal: Signal) -> Result<()>;
    /// Completes when the process has ended, with its exit status if that can be known: 128 plus the number of
    /// the signal that ended it. May be called several times.
    fn exited(&self) -> BoxFuture<'static, Option<i32>>;
}
