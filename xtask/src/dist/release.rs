//! What is packaged: its version, its architecture and its time.

use std::{env, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{packaging, read};
use crate::{command::output, commit::Commit};

pub(super) struct Release {
    /// The workspace's version.
    pub(super) version: &'static str,
    /// The same with the package's revision.
    pub(super) debian_version: String,
    /// The machine, as the kernel calls it.
    pub(super) machine: &'static str,
    /// The machine, as Debian calls it.
    pub(super) architecture: &'static str,
    /// Seconds since 1970 that every file is from.
    pub(super) time: String,
}

impl Release {
    /// What is checked out here, for machines of this kind.
    pub(super) fn here() -> Result<Self> {
        let version = env!("CARGO_PKG_VERSION");
        let changelog = read(&packaging("debian/changelog"))?;
        let entry = Entry::newest(&changelog).context("packaging/debian/changelog has no entry")?;
        if upstream(entry.version) != version {
            bail!(
                "packaging/debian/changelog ends with {}, and this is {version}: add an entry",
                entry.version
            );
        }
        let machine = env::consts::ARCH;
        let architecture = match machine {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("how Debian calls {other} is not known here"),
        };
        let time = time(entry.date)?;
        Ok(Self { version, debian_version: entry.version.to_owned(), machine, architecture, time })
    }
}

/// What [reproducible builds](https://reproducible-builds.org/specs/source-date-epoch/) ask for: the variable, else the
/// commit's time or, outside git, the changelog's.
fn time(changelog: &str) -> Result<String> {
    let named = env::var("SOURCE_DATE_EPOCH").ok().filter(|time| !time.is_empty());
    let commit = || Commit::here().map(|commit| commit.time.clone());
    let time = match named.or_else(commit) {
        Some(time) => time,
        None => output(Command::new("date").args(["+%s", "--date", changelog]))?,
    };
    let time = time.trim();
    time.parse::<u64>().with_context(|| format!("{time:?} is no number of seconds since 1970"))?;
    Ok(time.to_owned())
}

/// An entry of Debian's changelog.
struct Entry<'a> {
    version: &'a str,
    date: &'a str,
}

impl<'a> Entry<'a> {
    fn newest(changelog: &'a str) -> Option<Self> {
        let (_, rest) = changelog.lines().next()?.split_once(" (")?;
        let (version, _) = rest.split_once(')')?;
        let end = changelog.lines().find(|line| line.starts_with(" -- "))?;
        let (_, date) = end.rsplit_once(">  ")?;
        Some(Self { version, date })
    }
}

/// A version without the package's revision.
fn upstream(version: &str) -> &str {
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entry_names_the_version_and_the_date() {
        let changelog = "rnet (1.2.0-3) unstable; urgency=medium\n\n  * New.\n\n -- A <a@b>  Tue, 24 Nov 2026 \
                         12:00:00 +0000\n\nrnet (1.1.0-1) unstable; urgency=low\n";
        let entry = Entry::newest(changelog).unwrap();
        assert_eq!((entry.version, entry.date), ("1.2.0-3", "Tue, 24 Nov 2026 12:00:00 +0000"));
        assert_eq!(upstream(entry.version), "1.2.0");
        assert!(Entry::newest("no changelog").is_none());
    }

    #[test]
    fn the_changelog_is_of_this_version() {
        assert!(Release::here().is_ok());
    }
}
