//! Networks of engines: those whose bridge is the engine's own, and those that rnet makes on its account.

use rnet_common::source;

use super::{
    Controller,
    backend::{Datapath, Host},
    engines::check_id,
    error::{Error, Result},
    model::{
        engine::Engine,
        link::LinkKind,
        name::check_name,
        options::{LINK, NetworkOptions},
    },
    networks, now, plan,
    request::{CreateNetwork, EngineNetwork},
    step::{Change, Step},
    view,
};
use crate::store::schema::{Driver, Network, Phase};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Makes a network on an engine's account, with a bridge of rnet's. One that is there stays as it is.
    ///
    /// # Errors
    /// As [`Controller::create_network`]; [`Error::Invalid`] for an id that is none.
    pub fn create_engine_network(
        &mut self,
        engine: Engine,
        id: &str,
        request: &CreateNetwork,
    ) -> Result<view::Network> {
        self.ensure_up()?;
        check_id(id)?;
        if let Some(there) = self.machine.state.networks.get(id).filter(|there| there.phase == Phase::Ready) {
            return Ok(self.network_view(there));
        }
        check_name("network", &request.name)?;
        let name = self.network_name(engine, &request.name, id);
        let request = CreateNetwork { name, ..request.clone() };
        let record = networks::record(&request, Driver::Bridge, false);
        let record = Network { id: id.to_owned(), engine: Some(engine), ..record };
        let network = self.build_network(&request, record)?;
        self.tell_network("create", &network);
        Ok(network)
    }

    /// Serves a network whose bridge is the engine's own, as it is said to be; if it was known, with what has changed.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Conflict`] when another network has this bridge; [`Error::Failed`].
    pub fn follow_network(&mut self, wanted: &EngineNetwork) -> Result<view::Network> {
        self.ensure_up()?;
        check_id(&wanted.id)?;
        if NetworkOptions::parse(&wanted.options)?.link != LinkKind::Veth {
            return Err(Error::Invalid(format!(
                "network {} with option {LINK}: {} makes its interfaces itself; leave the option out",
                wanted.name, wanted.engine
            )));
        }
        let mut others = self.machine.state.networks.values().filter(|n| n.id != wanted.id);
        if let Some(other) = others.find(|n| n.bridge.as_ref() == Some(&wanted.bridge)) {
            return Err(Error::Conflict(format!(
                "network {} is on bridge {}, which is network {}'s already",
                wanted.name, wanted.bridge, other.name
            )));
        }
        let before = self.machine.state.networks.get(&wanted.id).cloned();
        // As it was before the first time.
        let adopted = match &before {
            Some(before) => before.adopted.clone(),
            None if self.machine.host.find_bridge(&wanted.bridge)?.is_some() => {
                Some(self.machine.host.bridge_state(&wanted.bridge)?)
            }
            None => None,
        };
        let after = Network {
            id: wanted.id.clone(),
            name: self.network_name(wanted.engine, &wanted.name, &wanted.id),
            phase: Phase::Ready,
            driver: Driver::Bridge,
            number: before.as_ref().map_or_else(|| self.next_network_number(), |before| before.number),
            created: before.as_ref().map_or_else(now, |before| before.created.clone()),
            predefined: false,
            bridge: Some(wanted.bridge.clone()),
            adopted: adopted.clone(),
            engine: Some(wanted.engine),
            borrowed: true,
            subnets: wanted.subnets.clone(),
            internal: wanted.internal,
            attachable: false,
            options: wanted.options.clone(),
            labels: wanted.labels.clone(),
        };
        let view = self.network_view(&after);
        if before.as_ref() == Some(&after) {
            return Ok(view);
        }
        let is_new = before.is_none();
        let exemptions = self.exemptions(before.as_ref(), &after)?;
        let change = Change { before: before.map(Box::new), after: Some(Box::new(after)) };
        let mut steps = vec![Step::SaveNetwork(change)];
        steps.extend(exemptions);
        if !is_new {
            steps.extend(self.endpoints_anew(wanted)?);
        } else if let Some(before) = adopted {
            steps.push(Step::LendBridge { name: wanted.bridge.clone(), before });
        }
        self.machine.apply(&steps)?;
        if is_new {
            self.tell_network("create", &view);
            // Until now the bridge was taken for an interface that leads outside.
            self.refresh_host()?;
        }
        Ok(view)
    }

    /// Forgets a network of an engine's; its bridge goes, too, if rnet has made it. One that is not known is as good as
    /// forgotten.
    ///
    /// # Errors
    /// [`Error::Forbidden`] while containers are on it; [`Error::Failed`], with what is left still known.
    pub fn remove_engine_network(&mut self, engine: Engine, id: &str) -> Result<()> {
        let Some(network) = self.machine.state.networks.get(id).filter(|n| n.engine == Some(engine)) else {
            return Ok(());
        };
        let network = network.clone();
        self.check_unused(&network)?;
        let view = self.network_view(&network);
        self.destroy_network(network)?;
        self.tell_network("destroy", &view);
        // Its bridge may stay where it was.
        self.refresh_host()
    }

    /// Tells the datapath anew what it knows of a network's endpoints, where the network is not what it was.
    fn endpoints_anew(&self, wanted: &EngineNetwork) -> Result<Vec<Step>> {
        let network = self.machine.state.networks.get(&wanted.id);
        let Some(network) = network else { return Ok(Vec::new()) };
        let network = Network {
            subnets: wanted.subnets.clone(),
            internal: wanted.internal,
            options: wanted.options.clone(),
            bridge: Some(wanted.bridge.clone()),
            ..network.clone()
        };
        let endpoints = self.machine.state.containers.values().filter(|c| c.phase == Phase::Ready);
        let endpoints = endpoints.flat_map(|c| &c.endpoints);
        let endpoints = endpoints.filter(|e| e.network == wanted.id && e.phase == Phase::Ready);
        let mut steps = Vec::new();
        for endpoint in endpoints {
            let intent = plan::endpoint_intent(endpoint, &network)?;
            let veth = endpoint.host_interface.clone();
            steps.push(if intent.policy.icc { Step::ReleasePort(veth) } else { Step::IsolatePort(veth) });
            steps.push(Step::AddEndpoint(intent));
        }
        Ok(steps)
    }

    fn exemptions(&self, before: Option<&Network>, after: &Network) -> Result<Option<Step>> {
        let list =
            |network: &Network| Ok::<_, Error>(NetworkOptions::parse(&network.options)?.non_masquerade);
        let number = source::exempt(after.number);
        let (before, after) = (before.map(list).transpose()?.unwrap_or_default(), list(after)?);
        Ok((before != after).then_some(Step::SetSources { number, before, after }))
    }

    /// The engine's name for it where nobody else has that.
    fn network_name(&self, engine: Engine, name: &str, id: &str) -> String {
        let taken = |name: &str| self.machine.state.networks.values().any(|n| n.name == name && n.id != id);
        // No name that a network can be given has a slash.
        if taken(name) { format!("{engine}/{name}") } else { name.to_owned() }
    }
}
