//! The controller as the API asks for it: one request at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;

use crate::{
    api::Control,
    controller::{
        Config, Controller, Result,
        backend::{Datapath, FlowInfo, FlowPosition, Host, Page, ReasonCount},
        model::{Binding, engine::Engine, flow_filter::FlowFilter, timeouts::Seconds},
        request::{
            Connect, CreateContainer, CreateNetwork, EngineContainer, EngineNetwork, FreeSubnet, Publish,
        },
        view,
    },
    host,
};

/// A controller behind a lock.
pub(super) struct Shared<H, D>(Mutex<Controller<H, D>>);

impl<H: Host, D: Datapath> Shared<H, D> {
    pub(super) fn new(controller: Controller<H, D>) -> Self {
        Self(Mutex::new(controller))
    }

    fn lock(&self) -> MutexGuard<'_, Controller<H, D>> {
        // What a request that panicked left half done is on record in the store, and cleared up at the next
        // start; until then the others can be served.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Host + 'static, D: Datapath + 'static> Control for Shared<H, D> {
    fn create_network(&self, request: &CreateNetwork) -> Result<view::Network> {
        self.lock().create_network(request)
    }

    fn remove_network(&self, network: &str) -> Result<view::Network> {
        self.lock().remove_network(network)
    }

    fn network(&self, network: &str) -> Result<view::Network> {
        self.lock().network(network)
    }

    fn networks(&self) -> Vec<view::Network> {
        self.lock().networks()
    }

    fn connect(&self, container: &str, connect: &Connect) -> Result<()> {
        self.lock().connect(container, connect)
    }

    fn disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        self.lock().disconnect(network, container, force)
    }

    fn publish(&self, container: &str, publish: &Publish) -> Result<Vec<Binding>> {
        self.lock().publish(container, publish)
    }

    fn unpublish(&self, container: &str, ports: &[String]) -> Result<Vec<Binding>> {
        self.lock().unpublish(container, ports)
    }

    fn create_container(&self, request: &CreateContainer) -> Result<view::Container> {
        self.lock().create_container(request)
    }

    fn container(&self, container: &str) -> Result<view::Container> {
        self.lock().container(container)
    }

    fn containers(&self) -> Vec<view::Container> {
        self.lock().containers()
    }

    fn mark_started(&self, container: &str, pid: u32) -> Result<()> {
        self.lock().mark_started(container, pid).map(drop)
    }

    fn mark_exited(&self, container: &str, code: Option<i32>) -> Result<()> {
        self.lock().mark_exited(container, code).map(drop)
    }

    fn remove_container(&self, container: &str, force: bool) -> Result<view::Container> {
        self.lock().remove_container(container, force)
    }

    fn create_engine_network(
        &self,
        engine: Engine,
        id: &str,
        request: &CreateNetwork,
    ) -> Result<view::Network> {
        self.lock().create_engine_network(engine, id, request)
    }

    fn free_subnet(&self, asked: &FreeSubnet) -> Result<IpNetwork> {
        self.lock().free_subnet(asked)
    }

    fn follow_network(&self, network: &EngineNetwork) -> Result<view::Network> {
        self.lock().follow_network(network)
    }

    fn remove_engine_network(&self, engine: Engine, id: &str) -> Result<()> {
        self.lock().remove_engine_network(engine, id)
    }

    fn set_engine_container(&self, container: &EngineContainer) -> Result<view::Container> {
        self.lock().set_engine_container(container)
    }

    fn add_to_engine_container(&self, container: &EngineContainer) -> Result<view::Container> {
        self.lock().add_to_engine_container(container)
    }

    fn remove_engine_interface(&self, engine: Engine, id: &str, interface: &str) -> Result<()> {
        self.lock().remove_engine_interface(engine, id, interface)
    }

    fn remove_engine_container(&self, engine: Engine, id: &str) -> Result<()> {
        self.lock().remove_engine_container(engine, id)
    }

    fn note_engine(&self, status: view::EngineStatus) -> Result<()> {
        self.lock().note_engine(status);
        Ok(())
    }

    fn published(&self) -> Result<Vec<view::PublishedPort>> {
        self.lock().published()
    }

    fn counters(&self) -> Result<Vec<ReasonCount>> {
        self.lock().counters()
    }

    fn flows(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<Vec<FlowInfo>>> {
        self.lock().flows(filter, from)
    }

    fn flush(&self, filter: &FlowFilter, from: FlowPosition) -> Result<Page<usize>> {
        self.lock().flush(filter, from)
    }

    fn timeouts(&self) -> Seconds {
        self.lock().timeouts()
    }

    fn set_timeouts(&self, changes: &Seconds) -> Result<Seconds> {
        self.lock().set_timeouts(changes)
    }

    fn reload(&self, config: Config) -> Result<()> {
        self.lock().reload(config)
    }

    fn status(&self) -> Result<view::Status> {
        self.lock().status()
    }

    fn usage(&self) -> Result<view::Usage> {
        let mut usage = self.lock().usage()?;
        // Nobody else waits for this.
        host::traffic::fill_in(&mut usage);
        Ok(usage)
    }

    fn sweep(&self, from: FlowPosition) -> Result<Page<usize>> {
        self.lock().sweep(from)
    }

    fn is_pressed(&self) -> bool {
        self.lock().is_pressed()
    }

    fn refresh_host(&self) -> Result<()> {
        self.lock().refresh_host()
    }

    fn down(&self) -> Result<()> {
        self.lock().down()
    }
}
