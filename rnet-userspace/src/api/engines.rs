//! What plugins that engines call ask of the daemon, under `/rnet/engines`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, post},
};
use hyper::Method;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{
    Control,
    client::{Client, Result, escape},
    error::ApiResult,
    server::{Body, uninterrupted},
    supervisor::Supervisor,
};
use crate::controller::{
    self,
    model::engine::Engine,
    request::{CreateNetwork, EngineContainer, EngineNetwork, FreeSubnet},
    view,
};

/// A network to be made on an engine's account.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    engine: Engine,
    id: String,
    network: CreateNetwork,
}

type Shared = State<Arc<Supervisor>>;

pub(super) fn routes() -> Router<Arc<Supervisor>> {
    Router::new()
        .route("/rnet/engines/networks", post(create_network).put(follow_network))
        .route("/rnet/engines/{engine}/networks/{id}", delete(remove_network))
        .route("/rnet/engines/subnets", post(free_subnet))
        .route("/rnet/engines/containers", post(add_to_container).put(set_container))
        .route("/rnet/engines/{engine}/containers/{id}", delete(remove_container))
        .route("/rnet/engines/{engine}/containers/{id}/interfaces/{name}", delete(remove_interface))
}

async fn create_network(
    State(daemon): Shared,
    Body(Create { engine, id, network }): Body<Create>,
) -> ApiResult<Json<view::Network>> {
    Ok(Json(ask(daemon, move |c| c.create_engine_network(engine, &id, &network)).await?))
}

async fn follow_network(
    State(daemon): Shared,
    Body(network): Body<EngineNetwork>,
) -> ApiResult<Json<view::Network>> {
    Ok(Json(ask(daemon, move |c| c.follow_network(&network)).await?))
}

async fn remove_network(
    State(daemon): Shared,
    Path((engine, id)): Path<(Engine, String)>,
) -> ApiResult<StatusCode> {
    ask(daemon, move |c| c.remove_engine_network(engine, &id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn free_subnet(State(daemon): Shared, Body(asked): Body<FreeSubnet>) -> ApiResult<Json<IpNetwork>> {
    Ok(Json(daemon.ask(move |c| c.free_subnet(&asked)).await?))
}

async fn add_to_container(
    State(daemon): Shared,
    Body(container): Body<EngineContainer>,
) -> ApiResult<Json<view::Container>> {
    Ok(Json(ask(daemon, move |c| c.add_to_engine_container(&container)).await?))
}

async fn set_container(
    State(daemon): Shared,
    Body(container): Body<EngineContainer>,
) -> ApiResult<Json<view::Container>> {
    Ok(Json(ask(daemon, move |c| c.set_engine_container(&container)).await?))
}

async fn remove_container(
    State(daemon): Shared,
    Path((engine, id)): Path<(Engine, String)>,
) -> ApiResult<StatusCode> {
    ask(daemon, move |c| c.remove_engine_container(engine, &id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_interface(
    State(daemon): Shared,
    Path((engine, id, name)): Path<(Engine, String, String)>,
) -> ApiResult<StatusCode> {
    ask(daemon, move |c| c.remove_engine_interface(engine, &id, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An engine that gives up waiting must not leave half of what it asked for.
async fn ask<T: Send + 'static>(
    daemon: Arc<Supervisor>,
    question: impl FnOnce(&dyn Control) -> controller::Result<T> + Send + 'static,
) -> controller::Result<T> {
    uninterrupted(async move { daemon.ask(question).await }).await
}

impl Client {
    /// Makes a network on an engine's account; one that is there stays as it is.
    pub async fn create_engine_network(
        &self,
        engine: Engine,
        id: &str,
        network: CreateNetwork,
    ) -> Result<view::Network> {
        let create = Create { engine, id: id.to_owned(), network };
        self.post("/rnet/engines/networks", &create).await
    }

    /// A network, with who is on it.
    pub async fn engine_network(&self, id: &str) -> Result<view::Network> {
        self.get(&format!("/rnet/networks/{}", escape(id))).await
    }

    /// A subnet that a network of an engine's can be made with.
    pub async fn free_subnet(&self, asked: &FreeSubnet) -> Result<IpNetwork> {
        self.post("/rnet/engines/subnets", asked).await
    }

    /// Every container, with the engine that it is of.
    /// Every container, with the engine that it is of.
    pub async fn every_container(&self) -> Result<Vec<view::Container>> {
        self.get("/rnet/containers").await
    }

    /// Has a network served whose bridge is an engine's own.
    pub async fn follow_network(&self, network: &EngineNetwork) -> Result<view::Network> {
        self.put("/rnet/engines/networks", network).await
    }

    /// Forgets a network of an engine's.
    pub async fn remove_engine_network(&self, engine: Engine, id: &str) -> Result<()> {
        let path = format!("/rnet/engines/{engine}/networks/{}", escape(id));
        self.call(Method::DELETE, &path, None).await.map(drop)
    }

    /// Has a container served as its engine says it is.
    pub async fn set_engine_container(&self, container: &EngineContainer) -> Result<view::Container> {
        self.put("/rnet/engines/containers", container).await
    }

    /// The same with interfaces and ports in addition to those that it has.
    pub async fn add_to_engine_container(&self, container: &EngineContainer) -> Result<view::Container> {
        self.post("/rnet/engines/containers", container).await
    }

    /// Forgets a container of an engine's.
    pub async fn remove_engine_container(&self, engine: Engine, id: &str) -> Result<()> {
        let path = format!("/rnet/engines/{engine}/containers/{}", escape(id));
        self.call(Method::DELETE, &path, None).await.map(drop)
    }

    /// Takes an interface from a container of an engine's, and with the last one forgets the container.
    pub async fn remove_engine_interface(&self, engine: Engine, id: &str, name: &str) -> Result<()> {
        let path = format!("/rnet/engines/{engine}/containers/{}/interfaces/{}", escape(id), escape(name));
        self.call(Method::DELETE, &path, None).await.map(drop)
    }
}
