//! What the daemon asks of the controller.

use ipnetwork::IpNetwork;

use crate::controller::{
    Config,
    backend::{FlowInfo, FlowPosition, Page, ReasonCount},
    error::Result,
    model::{Binding, engine::Engine, flow_filter::FlowFilter, timeouts::Seconds},
    request::{Connect, CreateContainer, CreateNetwork, EngineContainer, EngineNetwork, FreeSubnet, Publish},
    view,
};

/// The controller, shared by all requests. Its methods block on the kernel: they are called from threads that may.
///
/// Networks and containers are named by their name, their id, or the beginning of their id.
pub trait Control: Send + Sync + 'static {
    /// Creates a network.
    fn create_network(&self, request: &CreateNetwork) -> Result<view::Network>;
    /// Removes a network that no container uses, and returns what it was.
    fn remove_network(&self, network: &str) -> Result<view::Network>;
    /// One network.
    fn network(&self, network: &str) -> Result<view::Network>;
    /// Every network, predefined ones included.
    fn networks(&self) -> Vec<view::Network>;
    /// Puts a container on one more network.
    fn connect(&self, container: &str, connect: &Connect) -> Result<()>;
    /// Takes a container off a network; with `force`, one of the network's that is not known any more too.
    fn disconnect(&self, network: &str, container: &str, force: bool) -> Result<()>;
    /// Publishes ports of a container that is there, all or none, and returns what was given.
    fn publish(&self, container: &str, publish: &Publish) -> Result<Vec<Binding>>;
    /// Withdraws published ports, all or none, and returns what was taken.
    fn unpublish(&self, container: &str, ports: &[String]) -> Result<Vec<Binding>>;
    /// Makes a container's namespace with all that is in it. Its process is not started.
    fn create_container(&self, request: &CreateContainer) -> Result<view::Container>;
    /// One container.
    fn container(&self, container: &str) -> Result<view::Container>;
    /// Every container.
    fn containers(&self) -> Vec<view::Container>;
    /// Notes which process runs in a container.
    fn mark_started(&self, container: &str, pid: u32) -> Result<()>;
    /// Notes that a container's process has ended, with its exit status if that is known.
    fn mark_exited(&self, container: &str, code: Option<i32>) -> Result<()>;
    /// Removes a container, and returns what it was. One that runs is removed only with `force`.
    fn remove_container(&self, container: &str, force: bool) -> Result<view::Container>;
    /// Makes a network on an engine's account; one that is there stays as it is.
    fn create_engine_network(
        &self,
        engine: Engine,
        id: &str,
        request: &CreateNetwork,
    ) -> Result<view::Network>;
    /// A subnet that a network of an engine's can be made with.
    fn free_subnet(&self, asked: &FreeSubnet) -> Result<IpNetwork>;
    /// Serves a network whose bridge is an engine's own, as it is said to be.
    fn follow_network(&self, network: &EngineNetwork) -> Result<view::Network>;
    /// Forgets a network of an engine's, and removes what rnet has made of it.
    fn remove_engine_network(&self, engine: Engine, id: &str) -> Result<()>;
    /// Serves a container as its engine says it is.
    fn set_engine_container(&self, container: &EngineContainer) -> Result<view::Container>;
    /// The same with interfaces and ports in addition to those that it has.
    fn add_to_engine_container(&self, container: &EngineContainer) -> Result<view::Container>;
    /// Takes an interface from a container of an engine's, and with the last one forgets the container.
    fn remove_engine_interface(&self, engine: Engine, id: &str, interface: &str) -> Result<()>;
    /// Forgets a container of an engine's, and removes what rnet has made of it.
    fn remove_engine_container(&self, engine: Engine, id: &str) -> Result<()>;
    /// Notes how an engine is that is followed.
    fn note_engine(&self, status: view::EngineStatus) -> Result<()>;
    /// Published ports with their counts.
    fn published(&self) -> Result<Vec<view::PublishedPort>>;
    /// Every counter that is not zero.
    fn counters(&self) -> Result<Vec<ReasonCount>>;
    /// The flows on a step through the flow table that are alive and that `filter` matches.
    fn flows(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<Vec<FlowInfo>>>;
    /// Forgets the flows on a step through the flow table that `filter` matches.
    fn flush(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<usize>>;
    /// How long flows may be idle.
    fn timeouts(&self) -> Seconds;
    /// Changes some of the times that flows may be idle, and returns all of them.
    fn set_timeouts(&self, changes: &Seconds) -> Result<Seconds>;
    /// Takes over from a configuration what can change while the instance runs.
    fn reload(&self, config: Config) -> Result<()>;
    /// The instance at a glance.
    fn status(&self) -> Result<view::Status>;
    /// How much is in use, and what has passed the containers' interfaces.
    fn usage(&self) -> Result<view::Usage>;
    /// Forgets the flows on a step through the flow table that are dead or have been idle for too long.
    fn sweep(&self, from: FlowPosition) -> Result<Page<usize>>;
    /// Whether flows are opened so fast that the next round should come soon.
    fn is_pressed(&self) -> bool;
    /// Follows a change of the host's links and addresses.
    fn refresh_host(&self) -> Result<()>;
    /// Removes everything that the instance made.
    fn down(&self) -> Result<()>;
}
