//! The calls that Docker's Engine API has, with its paths, fields and status codes, so that its own client works.

mod container;
pub mod duration;
mod network;
mod system;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use serde::Deserialize;

pub use container::{Container, Port, Summary};
pub use network::{Created, Network};

use super::{
    error::{ApiError, ApiResult},
    server::{API_VERSION, Body, Flag, Query},
    supervisor::Supervisor,
};
use crate::controller::view::ContainerState;

type Shared = State<Arc<Supervisor>>;

pub(super) fn routes() -> Router<Arc<Supervisor>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/networks", get(networks))
        .route("/networks/create", post(create_network))
        .route("/networks/{id}", get(network).delete(remove_network))
        .route("/containers/json", get(containers))
        .route("/containers/{id}/json", get(container))
}

/// Which of many are wanted.
#[derive(Debug, Deserialize)]
struct Selection {
    #[serde(default)]
    all: Flag,
    #[serde(default)]
    filters: String,
}

impl Selection {
    /// A filter that is not applied would show what was not asked for.
    fn refuse_filters(&self) -> ApiResult<()> {
        match self.filters.trim() {
            "" | "{}" => Ok(()),
            filters => {
                Err(ApiError::bad_request(format!("invalid filter {filters}: filters are not supported")))
            }
        }
    }
}

async fn ping() -> impl IntoResponse {
    let (major, minor) = API_VERSION;
    let headers = [
        (HeaderName::from_static("api-version"), format!("{major}.{minor}")),
        (HeaderName::from_static("docker-experimental"), "false".to_owned()),
        (HeaderName::from_static("ostype"), "linux".to_owned()),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate".to_owned()),
        (header::PRAGMA, "no-cache".to_owned()),
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

async fn networks(
    State(daemon): Shared,
    Query(selection): Query<Selection>,
) -> ApiResult<Json<Vec<Network>>> {
    selection.refuse_filters()?;
    let networks = daemon.ask(|c| Ok(c.networks())).await?;
    // As Docker does, a list leaves out who is on a network.
    Ok(Json(
        networks.iter().map(|network| Network { containers: Some([].into()), ..network.into() }).collect(),
    ))
}

async fn network(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<Json<Network>> {
    let network = daemon.ask(move |c| c.network(&id)).await?;
    Ok(Json(Network::from(&network)))
}

async fn create_network(
    State(daemon): Shared,
    Body(create): Body<network::Create>,
) -> ApiResult<(StatusCode, Json<Created>)> {
    let request = create.into_request()?;
    let created = daemon.ask(move |c| c.create_network(&request)).await?;
    Ok((StatusCode::CREATED, Json(Created { id: created.id, warning: String::new() })))
}

async fn remove_network(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<StatusCode> {
    daemon.ask(move |c| c.remove_network(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn containers(
    State(daemon): Shared,
    Query(selection): Query<Selection>,
) -> ApiResult<Json<Vec<Summary>>> {
    selection.refuse_filters()?;
    let mut containers = daemon.ask(|c| Ok(c.containers())).await?;
    containers.retain(|container| selection.all.0 || container.state == ContainerState::Running);
    // The newest first, as Docker lists them. The times are RFC 3339 in UTC and sort as text.
    containers.sort_by(|a, b| b.created.cmp(&a.created));
    let now = time::OffsetDateTime::now_utc();
    Ok(Json(containers.iter().map(|container| Summary::new(container, now)).collect()))
}

async fn container(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<Json<Container>> {
    let container = daemon.ask(move |c| c.container(&id)).await?;
    Ok(Json(Container::from(&container)))
}
