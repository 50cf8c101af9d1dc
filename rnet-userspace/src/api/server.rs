//! The router, and how requests are read: versions in the path, flags, bodies and their limit.

use std::{future::Future, sync::Arc};

use axum::{
    Router, body,
    extract::{FromRequest, FromRequestParts, MatchedPath, Request, State},
    http::{
        HeaderName, HeaderValue, StatusCode, Uri, header::CONTENT_TYPE, request::Parts, uri::PathAndQuery,
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{
    connections, docker, engines,
    error::{ApiError, ApiResult},
    metrics, native,
    supervisor::Supervisor,
};
use crate::controller::{self, Error};

/// The newest version of Docker's API whose fields are given, and the oldest whose clients understand them.
pub(super) const API_VERSION: (u32, u32) = (1, 48);
pub(super) const MIN_API_VERSION: (u32, u32) = (1, 24);

/// Said of what Docker has and rnet has not, such as images, as well as of what nobody has.
const UNKNOWN: &str = "page not found: rnet has Docker's calls for networks, and for looking at containers and events; \
                       containers are started with 'rnet run'";

/// No request comes near this: a container with a thousand published ports takes 40 KB.
const BODY_LIMIT: usize = 1 << 20;

/// The daemon's interface.
pub(super) fn router(daemon: Arc<Supervisor>) -> Router {
    let calls = docker::routes()
        .merge(native::routes())
        .merge(engines::routes())
        .route("/metrics", get(metrics::get))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&daemon), count))
        .fallback(|| async { ApiError::not_found(UNKNOWN) })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed on this path")
        })
        .with_state(daemon);
    // Middleware of the router that holds the routes would run after one has been chosen.
    Router::new()
        .fallback_service(calls)
        .layer(middleware::from_fn(strip_version))
        .layer(middleware::map_response(introduce))
}

/// Runs `work` to its end even if the client hangs up: half of it must not be left undone.
pub(super) async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = controller::error::Result<T>> + Send + 'static,
) -> controller::error::Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::Failed(anyhow::anyhow!(e).context("the daemon failed inside"))),
    }
}

/// Counts requests by the route that they take.
async fn count(
    State(daemon): State<Arc<Supervisor>>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    daemon.activity().answered(route.as_str(), response.status().as_u16());
    response
}

/// Says in every answer, as Docker does, who answers.
async fn introduce(mut response: Response) -> Response {
    let (major, minor) = API_VERSION;
    let api = HeaderValue::from_str(&format!("{major}.{minor}"));
    let fields = [
        ("api-version", api.unwrap_or(HeaderValue::from_static(""))),
        ("docker-experimental", HeaderValue::from_static("false")),
        ("ostype", HeaderValue::from_static("linux")),
        ("server", HeaderValue::from_static(concat!("rnet/", env!("CARGO_PKG_VERSION"), " (linux)"))),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

async fn strip_version(mut request: Request, next: Next) -> Response {
    match without_version(request.uri()) {
        Ok(Some(uri)) => *request.uri_mut() = uri,
        Ok(None) => {}
        Err(e) => return e.into_response(),
    }
    next.run(request).await
}

/// The address without a leading `/v1.NN`, if it has one.
pub(super) fn without_version(uri: &Uri) -> ApiResult<Option<Uri>> {
    let path = uri.path();
    let Some((version, rest)) = path.strip_prefix("/v").and_then(|p| p.split_once('/')) else {
        return Ok(None);
    };
    let number = |s: &str| s.parse::<u32>().ok();
    let Some(asked) =
        version.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)))
    else {
        return Ok(None);
    };
    let dotted = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    if asked > API_VERSION {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            dotted(API_VERSION)
        )));
    }
    if asked < MIN_API_VERSION {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client \
             to a newer version",
            dotted(MIN_API_VERSION)
        )));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let stripped: PathAndQuery = format!("/{rest}{query}")
        .parse()
        .map_err(|e| ApiError::bad_request(format!("invalid path {path}: {e}")))?;
    Ok(Some(Uri::from(stripped)))
}

/// A request's JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> ApiResult<Self> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            return Err(ApiError::bad_request(format!(
                "unsupported Content-Type header ({kind}): must be 'application/json'"
            )));
        }
        let bytes = body::to_bytes(request.into_body(), BODY_LIMIT).await.map_err(|e| {
            let (status, message) = connections::refusal(&e, BODY_LIMIT);
            ApiError::new(status, message)
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(body) => Ok(Self(body)),
            Err(e) => Err(ApiError::bad_request(format!("invalid JSON: {e}"))),
        }
    }
}

/// A request's query.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(e) => Err(ApiError::bad_request(e.body_text())),
        }
    }
}

/// A flag in a query, as Docker reads it: false when it is absent, empty, `0`, `no`, `false` or `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?.trim().to_ascii_lowercase();
        Ok(Self(!matches!(word.as_str(), "" | "0" | "no" | "false" | "none")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(uri: &'static str) -> Result<Option<String>, String> {
        without_version(&Uri::from_static(uri)).map(|u| u.map(|u| u.to_string())).map_err(|e| e.message)
    }

    #[test]
    fn a_version_in_the_path_is_optional_and_checked() {
        assert_eq!(stripped("/v1.48/networks?x=1"), Ok(Some("/networks?x=1".into())));
        assert_eq!(stripped("/networks"), Ok(None));
        assert_eq!(stripped("/volumes/x"), Ok(None));
        assert!(stripped("/v1.99/networks").unwrap_err().contains("too new"));
        assert!(stripped("/v1.9/networks").unwrap_err().contains("too old"));
    }
}
