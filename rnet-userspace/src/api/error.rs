//! Errors as Docker's API gives them: a status and `{"message": …}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::controller;

/// What a failed request is answered with.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

/// A handler's result.
pub(super) type ApiResult<T> = Result<T, ApiError>;

/// The body of every error.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(Message { message: self.message })).into_response()
    }
}

impl From<controller::Error> for ApiError {
    fn from(error: controller::Error) -> Self {
        let status = match &error {
            controller::Error::Invalid(_) => StatusCode::BAD_REQUEST,
            controller::Error::NotFound(_) => StatusCode::NOT_FOUND,
            controller::Error::Conflict(_) => StatusCode::CONFLICT,
            controller::Error::Forbidden(_) => StatusCode::FORBIDDEN,
            controller::Error::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
