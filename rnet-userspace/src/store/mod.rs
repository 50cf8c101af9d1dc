//! The state on disk: one JSON file of a versioned schema, replaced atomically, and the lock that keeps a
//! second daemon of the same instance away.

mod lock;
pub mod schema;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub use lock::Lock;
use schema::{State, VERSION};

const FILE: &str = "state.json";
const TEMPORARY: &str = "state.json.new";

/// The state file of one instance.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in this directory, which is made, readable for root only, if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("create state directory {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// What was saved last; the empty state when nothing ever was.
    ///
    /// # Errors
    /// When the file cannot be read, or is of a version that this program does not know.
    pub fn load(&self) -> Result<State> {
        let path = self.dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(e) => return Err(e).with_context(|| format!("read state {}", path.display())),
        };
        let parse = || format!("understand state {}", path.display());
        let Version { version } = serde_json::from_slice(&text).with_context(parse)?;
        if version != VERSION {
            bail!(
                "state {} has version {version}, this rnet knows version {VERSION}: use the rnet that wrote it",
                path.display()
            );
        }
        serde_json::from_slice(&text).with_context(parse)
    }

    /// Replaces what is saved. After a crash at any moment either the old or the new state is there, whole.
    ///
    /// # Errors
    /// When the disk refuses; the old state is still there then.
    pub fn save(&self, state: &State) -> Result<()> {
        let path = self.dir.join(FILE);
        self.replace(&path, state).with_context(|| format!("save state {}", path.display()))
    }

    /// Removes the file, and the directory if nothing else is in it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self) -> Result<()> {
        for file in [TEMPORARY, FILE] {
            let path = self.dir.join(file);
            absent_is_fine(fs::remove_file(&path))
                .with_context(|| format!("remove state {}", path.display()))?;
        }
        remove_empty_dir(&self.dir)
    }

    fn replace(&self, path: &Path, state: &State) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(state)?;
        text.push(b'\n');
        let temporary = self.dir.join(TEMPORARY);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is on disk only once the directory is.
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }
}

/// Removes a directory unless something is in it.
///
/// # Errors
/// When the disk refuses for another reason.
pub fn remove_empty_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        done => absent_is_fine(done).with_context(|| format!("remove directory {}", dir.display())),
    }
}

/// All of the file that may be looked at before its version is known.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn absent_is_fine(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_saved_is_loaded_and_only_root_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        store.save(&State::default()).unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.dir.join(FILE)), 0o600);
        assert_eq!(mode(store.dir.clone()), 0o700);
        store.remove().unwrap();
        assert!(!dir.path().join("a/b").exists());
        store.remove().unwrap();
    }

    #[test]
    fn a_half_written_file_is_never_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save(&State::default()).unwrap();
        fs::write(dir.path().join(TEMPORARY), "{\"version\": 1, \"netw").unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        store.save(&State::default()).unwrap();
        assert!(!dir.path().join(TEMPORARY).exists());
    }

    #[test]
    fn a_strange_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for (text, error) in [
            ("{\"version\": 99, \"shape\": []}", "has version 99, this rnet knows version 1"),
            ("not json", "understand state"),
            ("{\"version\": 1, \"networks\": 5}", "understand state"),
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(format!("{:#}", store.load().unwrap_err()).contains(error), "{text}");
            assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }

    #[test]
    fn what_is_not_ours_keeps_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes"), "mine").unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save(&State::default()).unwrap();
        store.remove().unwrap();
        assert!(dir.path().join("notes").exists() && !dir.path().join(FILE).exists());
    }
}
