//! `rnet publish` and `rnet unpublish`.

use anyhow::Result;
use clap::Args;
use ipnetwork::IpNetwork;

use super::{ports, print, progress};
use crate::{api::client::Client, controller::request::Publish};

/// Arguments of `rnet publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Only these sources may use the ports
    #[arg(long, value_name = "CIDR")]
    from: Vec<IpNetwork>,
    #[command(flatten)]
    ports: Ports,
}

/// Arguments of `rnet unpublish`.
#[derive(Debug, Args)]
pub(super) struct UnpublishArgs {
    #[command(flatten)]
    ports: Ports,
}

#[derive(Debug, Args)]
struct Ports {
    /// Name or id
    container: String,
    /// [[HOSTIP:][HOSTPORT[-HOSTPORT]]:]PORT[-PORT][/tcp|udp|sctp]
    #[arg(value_name = "SPEC", required = true)]
    specs: Vec<String>,
}

impl PublishArgs {
    /// Prints what was given, as `rnet port` does.
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let request = Publish { ports: self.ports.specs, from: self.from };
        let work = client.publish(&self.ports.container, &request);
        let given = progress::during("publishing ports", work).await?;
        ports::lines(&given).into_iter().try_for_each(|line| print::line(&line))
    }
}

impl UnpublishArgs {
    /// Prints what was taken, as `rnet port` did.
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let work = client.unpublish(&self.ports.container, self.ports.specs);
        let gone = progress::during("withdrawing ports", work).await?;
        ports::lines(&gone).into_iter().try_for_each(|line| print::line(&line))
    }
}
