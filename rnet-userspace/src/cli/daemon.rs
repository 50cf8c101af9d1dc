//! `rnet daemon`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, bail};
use clap::Args;
use ipnetwork::IpNetwork;

use super::{System, log::Log, print};
use crate::{
    api::{
        self,
        activation::Inherited,
        daemon::{Options, run},
        tls::Tls,
    },
    config::{self, DaemonConfig, Flags},
    controller::{
        self,
        model::{timeouts, xdp::Xdp},
    },
    host::privileges,
    integrations::docker,
};

/// Arguments of `rnet daemon`.
#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// The configuration; /etc/INSTANCE/daemon.json, if it is there, when not given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only say whether the configuration is right
    #[arg(long)]
    validate: bool,
    /// An interface that leads outside; all that do when not given
    #[arg(long = "uplink", value_name = "IF")]
    uplinks: Vec<String>,
    /// Deliver small packets of known flows by XDP: on network cards that can (auto), on all uplinks that can (native);
    /// off when not given
    #[arg(long, value_name = "MODE")]
    xdp: Option<Xdp>,
    /// Source ports given to masqueraded flows: apart from net.ipv4.ip_local_port_range
    #[arg(long, value_name = "FIRST-LAST", value_parser = config::port_range)]
    snat_port_range: Option<(u16, u16)>,
    /// Give the default network IPv6 addresses as well
    #[arg(long)]
    ipv6: bool,
    /// The default network's IPv6 subnet; a local one when not given
    #[arg(long, value_name = "CIDR", requires = "ipv6", value_parser = super::create::cidr)]
    fixed_cidr_v6: Option<IpNetwork>,
    /// How long flows may be idle, as udp=30s; see `rnet conntrack timeouts`
    #[arg(long = "timeout", value_name = "NAME=TIME", value_parser = timeouts::parse)]
    timeouts: Vec<(String, u64)>,
    /// Flows that are tracked at once, for each address family; 131072 when not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(config::MAX_FLOWS)))]
    max_flows: Option<u32>,
    /// Ports that are published at once, for each address family; 131072, which is all, when not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(config::MAX_PORTS)))]
    max_ports: Option<u32>,
    /// Serve metrics for Prometheus at this address too, under /metrics, to whoever can reach it; as 127.0.0.1:9323
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = config::metrics_addr)]
    metrics_addr: Option<SocketAddr>,
    /// Serve the networks of a Docker that runs without iptables and proxy
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = docker::DEFAULT_SOCKET,
        value_parser = docker::socket
    )]
    docker: Option<PathBuf>,
    /// Take over from an rnet whose tables have another layout, which cuts the connections that are open
    #[arg(long)]
    replace_layout: bool,
}

impl DaemonArgs {
    /// Keeps the capabilities that the daemon needs. What is missing of them may not be needed on this host.
    pub(super) fn give_up_privileges(&self) -> Result<()> {
        if self.validate || !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let missing = privileges::restrict_daemon()?;
        for privileges::Needed { name, for_what, .. } in missing {
            print::notice(&format!(
                "warning: the daemon is run without {name}, which is needed for {for_what}"
            ));
        }
        Ok(())
    }

    pub(super) async fn run(self, instance: String, system: Arc<dyn System>) -> Result<()> {
        let validate = self.validate;
        let flags = Flags {
            file: self.config,
            uplinks: self.uplinks,
            xdp: self.xdp,
            snat_ports: self.snat_port_range,
            ipv6: self.ipv6,
            fixed_cidr_v6: self.fixed_cidr_v6,
            timeouts: self.timeouts,
            max_flows: self.max_flows,
            max_ports: self.max_ports,
            docker: self.docker,
            metrics: self.metrics_addr,
            replace_layout: self.replace_layout,
        };
        if validate {
            let config = DaemonConfig::load(&instance, &flags)?;
            config.warnings.iter().for_each(|warning| print::notice(&format!("warning: {warning}")));
            // Where Docker writes it.
            print::notice("configuration OK");
            return Ok(());
        }
        if !nix::unistd::geteuid().is_root() {
            bail!("rnet daemon needs root: run it with sudo");
        }
        let log = Log::start()?;
        let config = DaemonConfig::load(&instance, &flags)?;
        log.set_level(config.log_level);
        warn(&config);
        let mut options = Options::new(&instance, api::socket_path(&instance));
        options.hosts.clone_from(&config.hosts);
        options.metrics = config.metrics;
        options.max_connections = config.max_connections;
        let tls = config.tls.clone().map(Tls::new);
        options.tls.clone_from(&tls);
        options.inherited = Inherited::take()?;
        options.reload = Some(reload(instance, flags, config.clone(), log, tls));
        run(options, move || system.daemon(&config)).await
    }
}

fn warn(config: &DaemonConfig) {
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

/// Reads the configuration again, and says which changes wait for the next start.
fn reload(
    instance: String,
    flags: Flags,
    started: DaemonConfig,
    log: Log,
    tls: Option<Arc<Tls>>,
) -> api::daemon::Reload {
    let told = Mutex::new(Vec::new());
    Box::new(move || -> Result<controller::Config> {
        let config = DaemonConfig::load(&instance, &flags)?;
        log.set_level(config.log_level);
        warn(&config);
        // Whether there is TLS at all is a matter of `tlsverify`, which waits.
        if let (Some(tls), Some(config)) = (&tls, &config.tls) {
            tls.replace(Arc::clone(config));
        }
        let waiting = config.waiting(&started);
        // Once is enough, however often the rest is changed.
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.is_empty() && *told != waiting {
            tracing::warn!("these keys take effect when the daemon is started again: {}", waiting.join(", "));
        }
        *told = waiting;
        Ok(config.instance)
    })
}
