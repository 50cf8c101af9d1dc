//! What Docker's API does not have, under `/rnet`.

use std::sync::Arc;

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::{self, Bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::time;

use super::{
    error::ApiResult,
    server::{Body, Flag, Query, uninterrupted},
    supervisor::{BETWEEN_STEPS, Supervisor},
};
use crate::controller::{
    backend::{FlowPosition, Page, ReasonCount},
    model::{Binding, flow_filter::FlowFilter, timeouts::Seconds},
    request::{CreateContainer, CreateNetwork, Publish},
    view,
};

/// The process that was started in a container.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Started {
    /// Its id, in the daemon's process namespace.
    pub(super) pid: u32,
}

/// How a container's process ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exited {
    /// Its exit status; 128 plus the number of the signal that ended it.
    pub(super) code: Option<i32>,
}

/// Published ports that are to be withdrawn, in Docker's grammar.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unpublish {
    pub(super) ports: Vec<String>,
}

/// How many flows were forgotten.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flushed {
    pub(super) flows: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Removal {
    #[serde(default)]
    force: Flag,
}

type Shared = State<Arc<Supervisor>>;

pub(super) fn routes() -> Router<Arc<Supervisor>> {
    Router::new()
        .route("/rnet/containers", get(containers).post(create_container))
        .route("/rnet/containers/{id}", get(container).delete(remove_container))
        .route("/rnet/containers/{id}/started", post(started))
        .route("/rnet/containers/{id}/exited", post(exited))
        .route("/rnet/containers/{id}/stop", post(stop))
        .route("/rnet/containers/{id}/publish", post(publish))
        .route("/rnet/containers/{id}/unpublish", post(unpublish))
        .route("/rnet/networks", get(networks).post(create_network))
        .route("/rnet/networks/{id}", get(network))
        .route("/rnet/ports", get(ports))
        .route("/rnet/counters", get(counters))
        .route("/rnet/flows", get(flows).delete(flush))
        .route("/rnet/timeouts", get(timeouts).patch(set_timeouts))
        .route("/rnet/trace", get(super::trace::trace))
        .route("/rnet/status", get(status))
        .route("/rnet/usage", get(usage))
        .route("/rnet/down", post(down))
}

async fn containers(State(daemon): Shared) -> ApiResult<Json<Vec<view::Container>>> {
    Ok(Json(daemon.ask(|c| Ok(c.containers())).await?))
}

async fn container(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<Json<view::Container>> {
    Ok(Json(daemon.ask(move |c| c.container(&id)).await?))
}

async fn create_container(
    State(daemon): Shared,
    Body(request): Body<CreateContainer>,
) -> ApiResult<(StatusCode, Json<view::Container>)> {
    let created = uninterrupted(async move { daemon.create(request).await }).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn started(
    State(daemon): Shared,
    Path(id): Path<String>,
    Body(Started { pid }): Body<Started>,
) -> ApiResult<StatusCode> {
    uninterrupted(async move { daemon.started(id, pid).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn exited(
    State(daemon): Shared,
    Path(id): Path<String>,
    Body(Exited { code }): Body<Exited>,
) -> ApiResult<StatusCode> {
    uninterrupted(async move { daemon.exited(id, code).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<StatusCode> {
    uninterrupted(async move { daemon.stop(id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_container(
    State(daemon): Shared,
    Path(id): Path<String>,
    Query(Removal { force }): Query<Removal>,
) -> ApiResult<Json<view::Container>> {
    Ok(Json(uninterrupted(async move { daemon.remove(id, force.0).await }).await?))
}

async fn publish(
    State(daemon): Shared,
    Path(id): Path<String>,
    Body(request): Body<Publish>,
) -> ApiResult<Json<Vec<Binding>>> {
    Ok(Json(daemon.ask(move |c| c.publish(&id, &request)).await?))
}

async fn unpublish(
    State(daemon): Shared,
    Path(id): Path<String>,
    Body(Unpublish { ports }): Body<Unpublish>,
) -> ApiResult<Json<Vec<Binding>>> {
    Ok(Json(daemon.ask(move |c| c.unpublish(&id, &ports)).await?))
}

async fn networks(State(daemon): Shared) -> ApiResult<Json<Vec<view::Network>>> {
    Ok(Json(daemon.ask(|c| Ok(c.networks())).await?))
}

async fn network(State(daemon): Shared, Path(id): Path<String>) -> ApiResult<Json<view::Network>> {
    Ok(Json(daemon.ask(move |c| c.network(&id)).await?))
}

async fn create_network(
    State(daemon): Shared,
    Body(request): Body<CreateNetwork>,
) -> ApiResult<(StatusCode, Json<view::Network>)> {
    let created = daemon.ask(move |c| c.create_network(&request)).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn ports(State(daemon): Shared) -> ApiResult<Json<Vec<view::PublishedPort>>> {
    Ok(Json(daemon.ask(|c| c.published()).await?))
}

async fn counters(State(daemon): Shared) -> ApiResult<Json<Vec<ReasonCount>>> {
    Ok(Json(daemon.ask(|c| c.counters()).await?))
}

/// One JSON object a flow, each on a line of its own, as they are found: a list as a whole would have no bound.
async fn flows(State(daemon): Shared, Query(filter): Query<FlowFilter>) -> ApiResult<Response> {
    // What goes wrong at once is told in the answer's status; later the answer breaks off.
    let first = daemon.ask(move |c| c.flows(&filter, FlowPosition::default())).await?;
    let pages = stream::try_unfold(Some(first), move |page| {
        let daemon = Arc::clone(&daemon);
        async move {
            let Some(Page { found, next }) = page else { return Ok::<_, anyhow::Error>(None) };
            let mut lines = Vec::new();
            for flow in found {
                serde_json::to_writer(&mut lines, &flow).context("write JSON")?;
                lines.push(b'\n');
            }
            let page = match next {
                Some(next) => {
                    time::sleep(BETWEEN_STEPS).await;
                    Some(daemon.ask(move |c| c.flows(&filter, next)).await?)
                }
                None => None,
            };
            Ok(Some((Bytes::from(lines), page)))
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body::Body::from_stream(pages)).into_response())
}

async fn flush(State(daemon): Shared, Query(filter): Query<FlowFilter>) -> ApiResult<Json<Flushed>> {
    Ok(Json(Flushed { flows: daemon.walk(move |c, from| c.flush(&filter, from)).await? }))
}

async fn timeouts(State(daemon): Shared) -> ApiResult<Json<Seconds>> {
    Ok(Json(daemon.ask(|c| Ok(c.timeouts())).await?))
}

async fn set_timeouts(State(daemon): Shared, Body(changes): Body<Seconds>) -> ApiResult<Json<Seconds>> {
    Ok(Json(daemon.ask(move |c| c.set_timeouts(&changes)).await?))
}

async fn status(State(daemon): Shared) -> ApiResult<Json<view::Status>> {
    Ok(Json(daemon.ask(|c| c.status()).await?))
}

async fn usage(State(daemon): Shared) -> ApiResult<Json<view::Usage>> {
    Ok(Json(daemon.ask(|c| c.usage()).await?))
}

async fn down(State(daemon): Shared) -> ApiResult<StatusCode> {
    uninterrupted(async move { daemon.take_down().await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
