//! The errors that callers tell apart; each maps to one HTTP status and to exit status 1.

/// Why the controller refused or failed to do something. The message says what was being done, why it
/// failed, and what would work where that is known: lower case, no full stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request contradicts itself or a rule: HTTP 400.
    #[error("{0}")]
    Invalid(String),
    /// There is no such network, container or port: HTTP 404.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for is taken or in use: HTTP 409.
    #[error("{0}")]
    Conflict(String),
    /// Not allowed for anybody, such as removing a predefined network: HTTP 403.
    #[error("{0}")]
    Forbidden(String),
    /// The kernel or the disk refused: HTTP 500.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// Not as its source: the message tells all of its causes, and whoever prints an error with its causes would tell them twice.
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// A result with the controller's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
