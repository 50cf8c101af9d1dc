//! What the plugin keeps itself: the address pools that it has given out, and removals that could not be carried out
//! yet. One file, replaced atomically, and none where there is nothing to keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{bounded, store::remove_empty_dir};

const FILE: &str = "docker-plugin.json";

/// What dockerd has removed and will not ask for again: it takes a failure for done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Removal {
    /// By its id.
    Endpoint(String),
    /// By its id.
    Network(String),
}

/// A subnet that addresses are given from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pool {
    pub(super) subnet: IpNetwork,
    /// Those that nobody asks for come from this part of it.
    pub(super) range: Option<IpNetwork>,
    pub(super) taken: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    pub(super) removals: Vec<Removal>,
    /// By id.
    pub(super) pools: BTreeMap<String, Pool>,
}

/// The state, in memory and on disk.
#[derive(Debug)]
pub(super) struct State {
    dir: PathBuf,
    kept: Mutex<Kept>,
}

impl State {
    /// What there is in this directory.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub(super) fn load(dir: &Path) -> Result<Self> {
        let file = dir.join(FILE);
        let kept = match bounded::file(&file, bounded::RECORD) {
            Ok(content) => serde_json::from_slice(&content)
                .with_context(|| format!("understand the plugin's state {}", file.display()))?,
            Err(e) if e.kind() == ErrorKind::NotFound => Kept::default(),
            Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
        };
        Ok(Self { dir: dir.to_owned(), kept: Mutex::new(kept) })
    }

    /// A copy of it.
    pub(super) fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it, on disk first: a change that cannot be written is none.
    pub(super) fn change<T, E: From<anyhow::Error>>(
        &self,
        change: impl FnOnce(&mut Kept) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = kept.clone();
        let outcome = change(&mut changed)?;
        if changed != *kept {
            self.write(&changed)?;
            *kept = changed;
        }
        Ok(outcome)
    }

    fn write(&self, kept: &Kept) -> Result<()> {
        let file = self.dir.join(FILE);
        let failed = || format!("keep the plugin's state in {}", file.display());
        if *kept == Kept::default() {
            fs::remove_file(&file).with_context(failed)?;
            return remove_empty_dir(&self.dir);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).with_context(failed)?;
        let unfinished = file.with_extension("new");
        let content = serde_json::to_vec(kept).with_context(failed)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&unfinished).and_then(|mut to| {
            to.write_all(&content)?;
            to.sync_all()
        });
        written.and_then(|()| fs::rename(&unfinished, &file)).with_context(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_survives_and_nothing_leaves_nothing() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("x");
        let state = State::load(&dir).unwrap();
        let note = |kept: &mut Kept| {
            kept.removals.push(Removal::Endpoint("e".into()));
            anyhow::Ok(())
        };
        state.change(note).unwrap();
        let refused = state.change(|kept| {
            kept.removals.clear();
            Err::<(), _>(anyhow::anyhow!("no"))
        });
        assert!(refused.is_err());
        let again = State::load(&dir).unwrap();
        assert_eq!(again.kept().removals, [Removal::Endpoint("e".into())]);
        let forget = |kept: &mut Kept| {
            kept.removals.clear();
            anyhow::Ok(())
        };
        again.change(forget).unwrap();
        assert!(!dir.exists());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(FILE), "{").unwrap();
        assert!(State::load(&dir).unwrap_err().to_string().contains("understand the plugin's state"));
    }
}
