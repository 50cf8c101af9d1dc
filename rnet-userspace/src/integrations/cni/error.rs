//! Refusals as the specification words them.

use serde_json::{Value, json};

use super::version::Version;
use crate::api::client;

/// A result with the specification's error.
pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The configuration is of a version that is not spoken here.
    Version,
    /// There is no such container.
    UnknownContainer,
    /// A variable of the environment is missing or wrong.
    Environment,
    /// Something could not be read or run.
    Io,
    /// The configuration, or what another plugin said, is no JSON of the right kind.
    Decode,
    /// The configuration asks for what cannot be had.
    Config,
    /// It would work later.
    TryAgain,
    /// ADD would fail.
    NotAvailable,
    /// The daemon or the kernel failed.
    Failed,
    /// A port, an address, a subnet or a bridge is somebody else's.
    Taken,
    /// CHECK has found something else than ADD has made.
    Changed,
    /// What another plugin said.
    Other(u32),
}

impl Code {
    /// The specification's number; its own are below 100, a plugin's from there.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::UnknownContainer => 3,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::TryAgain => 11,
            Self::NotAvailable => 50,
            Self::Failed => 100,
            Self::Taken => 101,
            Self::Changed => 102,
            Self::Other(number) => number,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Error {
    /// Its kind.
    pub(super) code: Code,
    /// What could not be done, and why.
    pub(super) message: String,
    /// What else is known.
    pub(super) details: String,
}

impl Error {
    /// A refusal with nothing but its message.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// A configuration that cannot be served.
    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::new(Code::Config, message)
    }

    /// The same with what else is known.
    #[must_use]
    pub(super) fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// What goes to standard output.
    pub(super) fn to_json(&self, version: Version) -> Value {
        let mut json = json!({
            "cniVersion": version.to_string(),
            "code": self.code.number(),
            "msg": self.message,
        });
        if !self.details.is_empty() {
            json["details"] = self.details.as_str().into();
        }
        json
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        let code = match &error {
            // It may be starting again.
            client::Error::NoDaemon(..) | client::Error::Broken(..) => Code::TryAgain,
            client::Error::NotAllowed(_) => Code::Io,
            client::Error::Refused { status, .. } => match status {
                400 | 403 | 404 => Code::Config,
                409 => Code::Taken,
                503 => Code::TryAgain,
                _ => Code::Failed,
            },
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_says_keeps_its_words_and_gets_the_specifications_number() {
        let number = |status| {
            let message = "port is held".to_owned();
            let error = Error::from(client::Error::Refused { status, message });
            assert_eq!(error.message, "port is held");
            error.code.number()
        };
        assert_eq!([400, 404, 409, 500, 503].map(number), [7, 7, 101, 100, 11]);
        let down = Error::from(client::Error::NoDaemon("/run/rnet/rnet.sock".into(), "rnet daemon".into()));
        assert_eq!(
            down.to_json(Version::V1_0_0),
            json!({
                "cniVersion": "1.0.0", "code": 11,
                "msg": "no rnet daemon answers at /run/rnet/rnet.sock: start one with 'rnet daemon'",
            })
        );
    }
}
