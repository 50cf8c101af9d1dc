//! Commands about containers that are there.

use anyhow::Result;
use clap::Args;

use super::{Format, FormatArgs, each, inspect, list::ObjectFormat, ports, print};
use crate::api::client::Client;

#[derive(Debug, Args)]
pub(super) struct Names {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Arguments of `rnet inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// json, or a template as '{{.State.Pid}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<ObjectFormat>,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `rnet rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Kill what runs
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `rnet port`.
#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// Name or id
    container: String,
    /// Only what this port of the container is published as
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

impl InspectArgs {
    pub(super) async fn run(self, client: &Client) -> Result<u8> {
        let look_up = async |container: String| client.inspect_container(&container).await;
        inspect(&self.names.containers, self.format.as_ref(), look_up).await
    }
}

impl Names {
    pub(super) async fn stop(self, client: &Client) -> Result<u8> {
        each("stopping", &self.containers, async |container| client.stop(&container).await).await
    }
}

impl RmArgs {
    pub(super) async fn run(self, client: &Client) -> Result<u8> {
        let remove =
            async |container: String| client.remove_container(&container, self.force).await.map(drop);
        each("removing", &self.names.containers, remove).await
    }
}

impl PortArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let container = client.container(&self.container).await?;
        let bindings = match &self.port {
            Some(port) => ports::of_port(container.ports, port, &self.container)?,
            None => container.ports,
        };
        let lines = match (self.format.format, &self.port) {
            (Format::Json, _) => {
                let mut counted = client.ports().await?;
                counted.retain(|port| port.container == container.name && bindings.contains(&port.binding));
                return counted.iter().try_for_each(print::json);
            }
            (Format::Table, Some(_)) => ports::hosts(&bindings),
            (Format::Table, None) => ports::lines(&bindings),
        };
        lines.iter().try_for_each(|line| print::line(line))
    }
}
