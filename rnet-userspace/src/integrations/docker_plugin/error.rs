//! Why a call is refused: dockerd shows it to whoever has asked.

use crate::{api::client, controller};

/// The result of a call.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Another protocol, or another version of it.
    #[error("rnet's plugin does not understand this {0}: {1}")]
    NotUnderstood(String, serde_json::Error),
    /// There is no such call. libnetwork does without those that it can do without.
    #[error("rnet's plugin has no {0}")]
    NoSuchCall(String),
    /// The daemon refuses it, or does not run.
    #[error(transparent)]
    Daemon(#[from] client::Error),
    /// It cannot be had as asked.
    #[error("{0}")]
    Invalid(String),
    /// The plugin's own state.
    #[error("{0:#}")]
    State(anyhow::Error),
}

/// Not as its source, which is told with the message.
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::State(error)
    }
}

impl From<controller::Error> for Error {
    fn from(error: controller::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}
