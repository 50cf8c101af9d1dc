//! The calls that Docker's Engine API has, with its paths, fields and status codes, so that its own client works.

mod container;
mod containers;
mod create;
pub mod duration;
mod endpoint;
mod events;
mod filters;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod network;
mod networks;
mod summary;
mod system;
pub mod timestamp;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

pub use container::Container;
pub use create::Created;
pub use endpoint::{Connect, Disconnect, Endpoint, FixedAddresses};
pub use events::Event;
pub use network::Network;
pub use summary::{Port, Summary};

use super::{
    Control,
    error::{ApiError, ApiResult},
    server::{Body, Flag, Query, uninterrupted},
    supervisor::Supervisor,
};
use crate::controller::{Error, events::Kind};

type Shared = State<Arc<Supervisor>>;

pub(super) fn routes() -> Router<Arc<Supervisor>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/events", get(events))
        .route("/networks", get(networks))
        .route("/networks/create", post(create_network))
        .route("/networks/prune", post(prune_networks))
        .route("/networks/{id}", get(network).delete(remove_network))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
        .route("/containers/json", get(containers))
        .route("/containers/{id}/json", get(container))
}

/// Which networks are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NetworkSelection {
    filters: String,
    scope: String,
}

/// Which containers are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSelection {
    all: Flag,
    limit: i64,
    filters: String,
}

/// Which networks were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pruned {
    /// Their names; absent when there was none.
    pub networks_deleted: Option<Vec<String>>,
}

async fn ping() -> impl IntoResponse {
    let headers = [
        (HeaderName::from_static("swarm"), "inactive"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
    ];
    (headers, "OK")
}

async fn version() -> Json<system::Version> {
    Json(system::Version::of_this_host())
}

async fn info(State(daemon): Shared) -> ApiResult<Json<system::Info>> {
    let (status, containers) = daemon.ask(|c| Ok((c.status()?, c.containers()))).await?;
    Ok(Json(system::Info::new(&status, &containers)))
}

async fn events(State(daemon): Shared, Query(wanted): Query<events::Wanted>) -> ApiResult<Response> {
    let now = OffsetDateTime::now_utc();
    let selection = wanted.parse(now)?;
    Ok(events::respond(selection, daemon.events(), now, daemon.ended()))
}

async fn networks(
    State(daemon): Shared,
    Query(selection): Query<NetworkSelection>,
) -> ApiResult<Json<Vec<Network>>> {
    let listed = networks::Listed::parse(&selection.filters)?;
    let networks = daemon.ask(|c| Ok(c.networks())).await?;
    let chosen = networks.iter().filter(|network| listed.includes(network));
    // As Docker does, a list leaves out who is on a network.
    Ok(Json(chosen.map(|network| Network { containers: Some([].into()), ..network.into() }).collect()))
}

async fn network(
    State(daemon): Shared,
    Path(id): Path<String>,
    Query(selection): Query<NetworkSelection>,
) -> ApiResult<Json<Network>> {
    if !matches!(selection.scope.as_str(), "" | "local") {
        return Err(ApiError::not_found(format!("network {id} not found: all networks are local")));
    }
    let network = daemon.ask(move |c| c.network(&id)).await?;
    Ok(Json(Network::from(&network)))
}

async fn create_network(
    State(daemon): Shared,
    Body(create): Body<create::Create>,
) -> ApiResult<(StatusCode, Json<Created>)> {
    let request = create.into_request()?;
    let created = daemon.ask(move |c| c.create_network(&request)).await?;
    Ok((StatusCode::CREATED, Json(Created { id: created.id, warning: String::new() })))
}

async fn remove_network(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<StatusCode> {
    daemon.ask(move |c| c.remove_network(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune_networks(
    State(daemon): Shared,
    Query(selection): Query<NetworkSelection>,
) -> ApiResult<Json<Pruned>> {
    let pruned = networks::Pruned::parse(&selection.filters, OffsetDateTime::now_utc())?;
    let asked = Arc::clone(&daemon);
    let removed = uninterrupted(async move { asked.ask(move |c| Ok(prune(c, &pruned))).await }).await?;
    daemon.events().emit(Kind::Network, "prune", "", [("reclaimed", "0")]);
    Ok(Json(Pruned { networks_deleted: (!removed.is_empty()).then_some(removed) }))
}

fn prune(control: &dyn Control, pruned: &networks::Pruned) -> Vec<String> {
    let unused = control.networks().into_iter().filter(|network| pruned.includes(network));
    let remove = |id: &str| match control.remove_network(id) {
        Ok(_) => true,
        // Somebody has taken it into use, or was faster.
        Err(Error::Forbidden(_) | Error::NotFound(_)) => false,
        // As with Docker, one that cannot be removed does not keep the others.
        Err(e @ (Error::Invalid(_) | Error::Conflict(_) | Error::Failed(_))) => {
            tracing::warn!(network = id, "prune: {e}");
            false
        }
    };
    unused.filter(|network| remove(&network.id)).map(|network| network.name).collect()
}

async fn connect(
    State(daemon): Shared,
    Path(id): Path<String>,
    Body(connect): Body<Connect>,
) -> ApiResult<StatusCode> {
    let (container, request) = connect.into_request(id)?;
    daemon.ask(move |c| c.connect(&container, &request)).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    State(daemon): Shared,
    Path(id): Path<String>,
    Body(disconnect): Body<Disconnect>,
) -> ApiResult<StatusCode> {
    let (container, force) = disconnect.into_request()?;
    daemon.ask(move |c| c.disconnect(&id, &container, force)).await?;
    Ok(StatusCode::OK)
}

async fn containers(
    State(daemon): Shared,
    Query(selection): Query<ContainerSelection>,
) -> ApiResult<Json<Vec<Summary>>> {
    let listed = containers::Listed::parse(&selection.filters, selection.all.0, selection.limit)?;
    let (containers, interfaceless) = daemon.ask(|c| Ok((c.containers(), interfaceless(c)))).await?;
    let now = OffsetDateTime::now_utc();
    let chosen = listed.choose(containers)?;
    Ok(Json(chosen.iter().map(|container| Summary::new(container, &interfaceless, now)).collect()))
}

async fn container(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<Json<Container>> {
    let (container, interfaceless) = daemon.ask(move |c| Ok((c.container(&id)?, interfaceless(c)))).await?;
    Ok(Json(Container::new(&container, &interfaceless)))
}

fn interfaceless(control: &dyn Control) -> container::Interfaceless {
    let without = |driver: &str| matches!(driver, "host" | "null");
    let networks = control.networks().into_iter().filter(|network| without(&network.driver));
    networks.map(|network| (network.name, network.id)).collect()
}

/// Go's encoder writes `null` for maps, lists and pointers that are not set.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
