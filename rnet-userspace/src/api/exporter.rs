//! Metrics at a TCP address of their own. Nothing else is served there, so that whoever may read them needs no right to
//! the API: one request a connection, by GET, of a bounded size, within a bounded time, and a bounded number at once.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time};

use super::{metrics, supervisor::Supervisor};

/// Scrapes at once; the kernel keeps more waiting.
const MOST: usize = 8;
/// How large the head of a request may be, in bytes.
const HEAD: usize = 16 << 10;
/// How long one may take from its first byte to the answer's last.
const LIMIT: Duration = Duration::from_secs(10);
/// How long to wait when a connection cannot be taken, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens.
///
/// # Errors
/// When the address cannot be had.
pub(super) async fn bind(addr: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(addr).await.with_context(|| format!("listen at {addr} for metrics"))?;
    tracing::info!(%addr, "metrics are served");
    Ok(listener)
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, daemon: Arc<Supervisor>) {
    let free = Arc::new(Semaphore::new(MOST));
    loop {
        // It is never closed.
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::debug!("take a connection for metrics: {e}");
                time::sleep(PAUSE).await;
                continue;
            }
        };
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &daemon));
            let connection = http1::Builder::new()
                .max_buf_size(HEAD)
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(LIMIT)
                .serve_connection(TokioIo::new(stream), service);
            // What goes wrong here is the client's affair.
            let _ = time::timeout(LIMIT, connection).await;
            drop(permit);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    daemon: &Arc<Supervisor>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match metrics::text_of(daemon).await {
            Ok(text) => (StatusCode::OK, text),
            Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
        },
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
    };
    let kind = if status == StatusCode::OK { metrics::CONTENT_TYPE } else { "text/plain; charset=utf-8" };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
    }
    Ok(response)
}
