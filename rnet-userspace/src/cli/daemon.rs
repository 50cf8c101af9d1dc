//! `rnet daemon`.

use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use ipnetwork::IpNetwork;

use super::System;
use crate::{
    api::{
        self,
        daemon::{Options, run},
    },
    controller::model::timeouts::{self, Seconds},
};

/// Arguments of `rnet daemon`.
#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// An interface that leads outside; all that do when not given
    #[arg(long = "uplink", value_name = "IF")]
    uplinks: Vec<String>,
    /// Source ports given to masqueraded flows: apart from net.ipv4.ip_local_port_range
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range)]
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_FLOWS))]
    max_flows: Option<u32>,
    /// Ports that are published at once, for each address family; 131072, which is all, when not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_PORTS))]
    max_ports: Option<u32>,
}

/// Entries of a flow table take more than 100 bytes of the kernel's memory each: this is some GB.
const MAX_FLOWS: i64 = 1 << 24;
/// What the table of mappings has room for.
const MAX_PORTS: i64 = rnet_common::limits::PORTS as i64;

/// What a daemon is told on its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The instance's name.
    pub instance: String,
    /// The interfaces that lead outside; absent for all that do.
    pub uplinks: Option<Vec<String>>,
    /// First and last source port given to masqueraded flows; absent for the default.
    pub snat_ports: Option<(u16, u16)>,
    /// The default network has IPv6.
    pub ipv6: bool,
    /// The default network's IPv6 subnet.
    pub fixed_cidr_v6: Option<IpNetwork>,
    /// Times that flows may be idle, where they are not the defaults.
    pub timeouts: Seconds,
    /// Flows of each address family; absent for what is there already, or the default.
    pub max_flows: Option<u32>,
    /// Published ports of each address family; absent for what is there already, or the default.
    pub max_ports: Option<u32>,
}

impl DaemonArgs {
    pub(super) async fn run(self, instance: String, system: Arc<dyn System>) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            bail!("rnet daemon needs root: run it with sudo");
        }
        let uplinks = if self.uplinks.is_empty() { None } else { Some(self.uplinks) };
        let config = DaemonConfig {
            instance: instance.clone(),
            uplinks,
            snat_ports: self.snat_port_range,
            ipv6: self.ipv6,
            fixed_cidr_v6: self.fixed_cidr_v6,
            timeouts: self.timeouts.into_iter().collect(),
            max_flows: self.max_flows,
            max_ports: self.max_ports,
        };
        let socket = api::socket_path(&instance);
        run(Options { instance, socket }, move || system.daemon(&config)).await
    }
}

fn port_range(range: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match range.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?))) {
        Some((first, last)) if first <= last => Ok((first, last)),
        _ => Err("it should be as 1024-32767".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_is_two_ports_in_order() {
        assert_eq!(port_range("1024-32767"), Ok((1024, 32767)));
        assert_eq!(port_range("80-80"), Ok((80, 80)));
        for wrong in ["80", "90-80", "0-80", "80-65536", "-", "a-b"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }
}
