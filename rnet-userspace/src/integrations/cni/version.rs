//! The specification's versions.

use std::fmt;

use super::{
    call::Command,
    error::{Code, Error, Result},
};

/// A version that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// 0.3.1, without CHECK.
    V0_3_1,
    /// 0.4.0.
    V0_4_0,
    /// 1.0.0, in which an address no longer says its family.
    V1_0_0,
    /// 1.1.0, with GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All of them, the oldest first.
    pub(super) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What is spoken when nothing else is known.
    pub(super) const LATEST: Self = Self::V1_1_0;

    fn name(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of a configuration.
    ///
    /// # Errors
    /// [`Code::Version`].
    pub(super) fn of(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::new(Code::Version, format!("incompatible cniVersion {name:?}: rnet speaks {known}"))
        })
    }

    /// Refuses a command that this version does not have.
    ///
    /// # Errors
    /// [`Code::Version`].
    pub(super) fn check(self, command: Command) -> Result<()> {
        let since = match command {
            Command::Check => Self::V0_4_0,
            Command::Gc | Command::Status => Self::V1_1_0,
            Command::Add | Command::Del | Command::Version => Self::V0_3_1,
        };
        if self < since {
            return Err(Error::new(
                Code::Version,
                format!("cniVersion {self} has no {command}: it came with {since}"),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
