//! The machine that the program runs on: where the controller is given the host's network, the datapath and the
//! processes.

mod control;
pub mod processes;

use std::sync::Arc;

use anyhow::{Context, Result};

use self::{control::Shared, processes::LocalProcesses};
use crate::{
    api::{Control, daemon::Parts},
    cli::System,
    config::DaemonConfig,
    controller::{self, Config, Controller, view},
    datapath::{self, Ebpf, Relay, Tracing},
    dns,
    host::{
        self, Kernel, preflight,
        process::{Foreground, Input, shim_main},
    },
    integrations::docker,
    store::{Lock, Store, remove_empty_dir},
};

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl System for Local {
    fn daemon(&self, config: &DaemonConfig) -> Result<Parts> {
        preflight::preflight()?;
        let DaemonConfig { max_flows, max_ports, replace_layout, .. } = *config;
        let controller::DefaultNetwork { masquerade, icc, .. } = config.instance.default_network;
        let default_network = docker::DefaultNetwork { masquerade, icc };
        let docker = config.docker.clone().map(|socket| docker::Options { socket, default_network });
        let sizes = datapath::Sizes { flows: max_flows, ports: max_ports };
        let config = config.instance.clone();
        preflight::ensure_bpffs()?;
        host::process::raise_open_files().context("raise the limit of open files")?;
        let is_first = !config.state_dir.exists();
        let lock =
            Lock::take(&config.run_dir).with_context(|| format!("start instance {}", config.instance))?;
        match controller(config.clone(), sizes, replace_layout) {
            Ok((controller, relay, tracing)) => {
                let directory = controller.directory();
                let events = controller.events().clone();
                let control: Arc<dyn Control> = Arc::new(Shared::new(controller));
                let follower = Arc::clone(&control);
                Ok(Parts {
                    events,
                    packets: Arc::new(tracing.clone()),
                    control,
                    processes: Arc::new(LocalProcesses),
                    watch: Box::new(|on_change| Ok(Box::new(host::watch::watch(on_change)?))),
                    beside: Box::pin(async move {
                        let relay = async {
                            if let Some(relay) = relay {
                                relay.run().await;
                            }
                        };
                        let docker = async {
                            if let Some(options) = docker {
                                docker::follow(follower, options).await;
                            }
                        };
                        tokio::join!(relay, tracing.run(), dns::serve(directory), docker);
                    }),
                    is_first,
                    clean_up: Box::new(|| lock.remove()),
                })
            }
            Err(error) => {
                forget(&config, lock);
                Err(error)
            }
        }
    }

    fn spawn(&self, container: &view::Container, input: Input) -> Result<Foreground> {
        processes::run(container, input)
    }

    fn enter(&self, container: &view::Container, command: &[String], input: Input) -> Result<Foreground> {
        processes::enter(container, command, input)
    }

    fn shim(&self, spec: &str) -> u8 {
        shim_main(spec)
    }
}

/// Takes up the instance. The lock has to be held.
fn controller(
    config: Config,
    sizes: datapath::Sizes,
    replace_layout: bool,
) -> Result<(Controller<Kernel, Ebpf>, Option<Relay>, Tracing)> {
    let (first, last) = config.snat_ports;
    let options = datapath::Options {
        pin_dir: config.pin_dir.clone(),
        snat_ports: first..=last,
        sizes,
        replace_layout,
        timeouts: config.timeouts,
        limits: config.flow_limits,
        xdp: config.xdp,
        named_uplinks: config.uplinks.is_some(),
        netns_cookie: preflight::netns_cookie()?,
        cgroup: preflight::cgroup2()?,
    };
    let host = Kernel::open()?;
    let store = Store::open(&config.state_dir)?;
    let state = store.load()?;
    let mut datapath = Ebpf::open(options)?;
    let (relay, tracing) = (datapath.take_relay(), datapath.tracing());
    Ok((Controller::start(config, host, datapath, store, state)?, relay, tracing))
}

/// Removes what a failed start has made beside what is there of the instance.
fn forget(config: &Config, lock: Lock) {
    let removed = [remove_empty_dir(&config.state_dir), lock.remove()];
    for error in removed.into_iter().filter_map(Result::err) {
        tracing::warn!("remove what a failed start has made: {error:#}");
    }
}
