//! Looking at what there is: at one network, at everything, and at the host.

use tokio::task;

use super::{
    client::Error,
    follow::{Follower, short},
    messages, problems, translate,
};
use crate::{controller::model::engine::Engine, host::bridge_ports};

impl Follower {
    /// Looks at one network, and serves it if it is a bridge's.
    pub(super) async fn look_at_network(&mut self, id: &str) -> Result<(), Error> {
        match self.client.network(id).await {
            Ok(network) => self.follow_network(&network).await,
            // It is gone already, of which more will be heard.
            Err(Error::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    pub(super) async fn follow_network(&mut self, network: &messages::Network) {
        if network.driver != "bridge" {
            self.others.insert(network.id.clone());
            return;
        }
        let bridge = translate::bridge_name(network);
        let addrs = task::spawn_blocking(move || bridge_ports::addresses_of(&bridge)).await;
        let addrs = addrs.map_err(anyhow::Error::from).and_then(|found| found).unwrap_or_default();
        let wrong = |why: String| vec![format!("network {}: {why}", network.name)];
        let problems = match translate::network(network, &addrs, self.options.default_network) {
            Ok(followed) => {
                let wanted = followed.network.clone();
                match self.control(move |c| c.follow_network(&wanted).map(drop)).await {
                    Ok(()) => {
                        let unserved = followed.unserved.clone();
                        self.networks.insert(network.id.clone(), followed);
                        unserved
                    }
                    Err(e) => wrong(e.to_string()),
                }
            }
            Err(why) => wrong(why),
        };
        self.told(&network.id, problems).await;
    }

    pub(super) async fn forget_network(&mut self, id: &str) {
        self.networks.remove(id);
        self.others.remove(id);
        let of = id.to_owned();
        let removed = self.control(move |c| c.remove_engine_network(Engine::Docker, &of)).await;
        let problems = removed.err().map(|e| format!("network {}: {e}", short(id)));
        self.told(id, problems.into_iter().collect()).await;
    }

    /// Makes everything what dockerd says it is. What is gone is forgotten first: its addresses and ports may be others'.
    pub(super) async fn look_at_all(&mut self) -> Result<(), Error> {
        let networks = self.client.networks().await?;
        let there = self.client.containers().await?;
        self.forget_gone(&there).await;
        let known = self.control(|c| Ok(c.networks())).await.unwrap_or_default();
        let gone = known.into_iter().filter(|n| n.engine == Some(Engine::Docker));
        for network in gone.filter(|known| !networks.iter().any(|n| n.id == known.id && n.driver == "bridge"))
        {
            self.forget_network(&network.id).await;
        }
        for network in &networks {
            self.follow_network(network).await;
        }
        self.bindings.retain(|id, _| there.iter().any(|there| there.id == *id));
        for mut container in there {
            // Their order means nothing.
            container.ports.sort_by_key(ToString::to_string);
            let id = container.id.clone();
            if !container.runs() {
                if !self.bindings.contains_key(&id) {
                    self.ask(&id);
                }
                continue;
            }
            let known = self.served.get_mut(&id);
            let is_new = known.as_ref().is_none_or(|known| known.as_ref() != Some(&container));
            if let Some(known) = known {
                *known = Some(container);
            }
            if is_new {
                self.ask(&id);
            }
        }
        Ok(())
    }

    pub(super) async fn forget_gone(&mut self, there: &[messages::Summary]) {
        let known = self.control(|c| Ok(c.containers())).await.unwrap_or_default();
        for container in known.into_iter().filter(|c| c.engine == Some(Engine::Docker)) {
            let is_there = there.iter().any(|there| there.id == container.id && there.runs());
            if !is_there && !self.starts.contains(&container.id) {
                tracing::info!(container = container.name, "Docker has it no more");
                self.forget(&container.id).await;
            }
        }
    }

    /// Looks for what is in the way on this host.
    pub(super) async fn look_at_host(&mut self) {
        let networks = self.networks.clone();
        let problems = task::spawn_blocking(move || problems::of_host(&networks)).await.unwrap_or_default();
        self.problems.set("host", problems);
        self.note(self.version.clone()).await;
    }
}
