//! Bodies of requests: they have to come in time.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{BoxError, http::StatusCode};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

/// A body that fails when all of it has not come within a time of its being asked for.
pub(super) struct Timely {
    body: Incoming,
    limit: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the request's body has not come within {} s", .0.as_secs())]
struct TooSlow(Duration);

impl Timely {
    pub(super) fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, until: None }
    }
}

impl Body for Timely {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, limit, until } = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let until = until.get_or_insert_with(|| Box::pin(sleep(*limit)));
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Some(Err(TooSlow(*limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a request is answered with whose body could not be read, which may be `most` bytes long.
pub(crate) fn refusal(error: &(dyn Error + 'static), most: usize) -> (StatusCode, String) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return (StatusCode::PAYLOAD_TOO_LARGE, format!("request body is larger than {most} bytes"));
        }
        if let Some(slow) = error.downcast_ref::<TooSlow>() {
            return (StatusCode::REQUEST_TIMEOUT, slow.to_string());
        }
        cause = error.source();
    }
    (StatusCode::BAD_REQUEST, error.to_string())
}
