//! The network driver's calls. dockerd repeats a call whose connection broke, so each may come twice; and it goes on
//! where one fails that takes something away, so those are made up for once the daemon answers.

use std::{future::Future, time::Duration};

use serde_json::{Value, json};
use tokio::time::{self, Instant};

use super::{
    ENGINE, Plugin,
    error::{Error, Result},
    messages::{self, Connectivity, CreateEndpoint, Endpoint},
    state::Removal,
    translate,
};
use crate::{
    api::client,
    controller::{request::EngineContainer, view},
};

/// How long a daemon that is being started again is waited for.
const GRACE: Duration = Duration::from_secs(3);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
/// The HTTP status of what is taken.
const CONFLICT: u16 = 409;

impl Plugin {
    pub(super) async fn create_network(&self, asked: messages::CreateNetwork) -> Result<Value> {
        let wanted = translate::network(&asked)?;
        self.make_up().await;
        self.patiently(|| self.client.create_engine_network(ENGINE, &asked.network, wanted.clone())).await?;
        Ok(json!({}))
    }

    pub(super) async fn delete_network(&self, id: String) -> Result<Value> {
        self.remove(Removal::Network(id)).await
    }

    pub(super) async fn create_endpoint(&self, asked: CreateEndpoint) -> Result<Value> {
        let wanted = translate::endpoint(&asked);
        self.make_up().await;
        let made = match self.set(&wanted).await {
            Err(client::Error::Refused { status: CONFLICT, .. })
                if self.forget_stale(&asked.network, &wanted).await? =>
            {
                self.set(&wanted).await?
            }
            Err(e) if e.is_not_found() => {
                return Err(Error::Invalid(format!(
                    "rnet has no such network ({e}), as after `rnet down`: remove it with `docker network rm`, and create it \
                 again"
                )));
            }
            made => made?,
        };
        let made = interface_of(&made, &asked.endpoint)?;
        // What the request has must not be in the answer.
        let mut interface = serde_json::Map::new();
        if asked.interface.mac.is_none() {
            interface.insert("MacAddress".to_owned(), json!(made.mac));
        }
        if asked.interface.ipv4.is_none() && asked.interface.ipv6.is_none() {
            for (key, ipv6) in [("Address", false), ("AddressIPv6", true)] {
                let addr = translate::interface_of_family(&made.addrs, ipv6);
                interface.extend(addr.map(|addr| (key.to_owned(), json!(addr))));
            }
        }
        Ok(json!({ "Interface": interface }))
    }

    pub(super) async fn delete_endpoint(&self, asked: Endpoint) -> Result<Value> {
        self.remove(Removal::Endpoint(asked.endpoint)).await
    }

    pub(super) async fn join(&self, asked: Endpoint) -> Result<Value> {
        let container = self.patiently(|| self.client.container(&asked.endpoint)).await?;
        let made = interface_of(&container, &asked.endpoint)?;
        let gateway = |ipv6| {
            translate::of_family(&made.gateways, ipv6).map(|addr| addr.to_string()).unwrap_or_default()
        };
        let ipv4 = gateway(false);
        Ok(json!({
            "InterfaceName": { "SrcName": made.interface, "DstPrefix": "eth" },
            // Without a gateway libnetwork would add an interface that leads outside by way of a bridge of Docker's.
            "DisableGatewayService": ipv4.is_empty(),
            "Gateway": ipv4,
            "GatewayIPv6": gateway(true),
            "StaticRoutes": [],
        }))
    }

    /// Publishes ports, and withdraws all others of the endpoint.
    pub(super) async fn program(&self, asked: Connectivity) -> Result<Value> {
        let Endpoint { network, endpoint } = &asked.of;
        let mut ports = translate::ports(&asked.options.ports)?;
        let container = self.patiently(|| self.client.container(endpoint)).await?;
        // When a container leaves the network that led outside, those that do not are asked as well.
        if interface_of(&container, endpoint)?.gateways.is_empty() {
            ports.clear();
        }
        self.set(&translate::known(endpoint, network, ports)).await?;
        Ok(json!({}))
    }

    pub(super) async fn revoke(&self, asked: Endpoint) -> Result<Value> {
        match self.patiently(|| self.client.container(&asked.endpoint)).await {
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
            Ok(_) => drop(self.set(&translate::known(&asked.endpoint, &asked.network, Vec::new())).await?),
        }
        Ok(json!({}))
    }

    /// For whoever looks: that the daemon is away must not keep a container from being shown.
    pub(super) async fn oper_info(&self, asked: &Endpoint) -> Value {
        let ports = match self.client.container(&asked.endpoint).await {
            Ok(container) => container.ports,
            Err(e) => {
                tracing::debug!("look up endpoint {}: {e}", asked.endpoint);
                return json!({ "Value": {} });
            }
        };
        let ports: Vec<_> = ports.iter().map(translate::published).collect();
        json!({ "Value": { "com.docker.network.portmap": ports } })
    }

    async fn set(&self, wanted: &EngineContainer) -> client::Result<view::Container> {
        self.patiently(|| self.client.set_engine_container(wanted)).await
    }

    /// Removes endpoints that have one of these addresses: dockerd would not give it to another one if they still
    /// were, so it has crashed before it noted them. Whether there were any.
    async fn forget_stale(&self, network: &str, wanted: &EngineContainer) -> Result<bool> {
        let addrs: Vec<_> = wanted.interfaces.iter().flat_map(|i| &i.addrs).map(|addr| addr.ip()).collect();
        let there = self.client.engine_network(network).await?;
        let has = |member: &view::NetworkMember| member.addrs.iter().any(|addr| addrs.contains(&addr.ip()));
        let stale: Vec<_> = there
            .containers
            .into_iter()
            .filter(|(id, m)| *id != wanted.id && has(m))
            .map(|(id, _)| id)
            .collect();
        for id in &stale {
            tracing::warn!(endpoint = id, "removing an endpoint that dockerd does not know any more");
            self.client.remove_engine_container(ENGINE, id).await?;
        }
        Ok(!stale.is_empty())
    }

    /// Removes something, or keeps in mind that it is to be removed: nobody waits for a daemon that is away.
    async fn remove(&self, removal: Removal) -> Result<Value> {
        if let Err(error) = self.carry_out(&removal).await {
            self.state.change(|kept| {
                if !kept.removals.contains(&removal) {
                    kept.removals.push(removal);
                }
                Ok::<_, Error>(())
            })?;
            return Err(error.into());
        }
        Ok(json!({}))
    }

    /// Carries out what could not be before. What still cannot stays for the next time.
    pub(super) async fn make_up(&self) {
        for removal in self.state.kept().removals {
            match self.carry_out(&removal).await {
                Ok(()) => {
                    tracing::info!(?removal, "removed what dockerd has removed meanwhile");
                    let forgotten = self.state.change(|kept| {
                        kept.removals.retain(|kept| *kept != removal);
                        Ok::<_, Error>(())
                    });
                    if let Err(e) = forgotten {
                        tracing::warn!("{e}");
                    }
                }
                Err(e) => tracing::debug!(?removal, "still cannot be removed: {e}"),
            }
        }
    }

    async fn carry_out(&self, removal: &Removal) -> client::Result<()> {
        let id = match removal {
            Removal::Endpoint(id) => return self.client.remove_engine_container(ENGINE, id).await,
            Removal::Network(id) => id,
        };
        // dockerd removes no network that it knows endpoints of.
        match self.client.engine_network(id).await {
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
            Ok(network) => {
                for member in network.containers.keys() {
                    self.client.remove_engine_container(ENGINE, member).await?;
                }
            }
        }
        self.client.remove_engine_network(ENGINE, id).await
    }

    /// Calls the daemon, again while it is away: no call does harm twice.
    pub(super) async fn patiently<T, F>(&self, call: impl Fn() -> F) -> client::Result<T>
    where
        F: Future<Output = client::Result<T>>,
    {
        let deadline = Instant::now() + GRACE;
        loop {
            match call().await {
                Err(client::Error::NoDaemon(..) | client::Error::Broken(..)) if Instant::now() < deadline => {
                    time::sleep(BETWEEN_TRIES).await;
                }
                done => return done,
            }
        }
    }
}

fn interface_of<'a>(container: &'a view::Container, endpoint: &str) -> Result<&'a view::Endpoint> {
    let found = container.endpoints.iter().find(|e| e.id == endpoint);
    found.ok_or_else(|| Error::Invalid(format!("endpoint {endpoint} has no interface in rnet")))
}
