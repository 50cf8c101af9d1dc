//! What can change while an instance runs.

use super::{
    Config, Controller,
    backend::{Datapath, Host},
    error::Result,
};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Takes over from `config` what can change: where ports are published by default, address pools, what
    /// containers get in their resolv.conf, idle times, limits of flows and uplinks. What was made before stays as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`](super::Error::Invalid) when the configuration contradicts itself;
    /// [`Error::Failed`](super::Error::Failed) when the datapath refuses. Nothing is changed then.
    pub fn reload(&mut self, config: Config) -> Result<()> {
        config.check()?;
        self.machine.datapath.set_timeouts(&config.timeouts)?;
        self.machine.datapath.set_flow_limits(&config.flow_limits);
        let Config { uplinks, bind, pools, dns, dns_search, dns_options, timeouts, flow_limits, .. } = config;
        self.config = Config {
            uplinks,
            bind,
            pools,
            dns,
            dns_search,
            dns_options,
            timeouts,
            flow_limits,
            ..self.config.clone()
        };
        if let Err(e) = self.refresh_host() {
            // As after any change of the host: it is tried again with the next.
            tracing::warn!("take up the uplinks of the new configuration: {e}");
        }
        Ok(())
    }
}
