//! The state on disk, and the lock that keeps a second daemon of the same instance away.
//!
//! ```text
//! DIR/version             the schema's version
//! DIR/networks/ID.json    one file for each network and container, replaced atomically:
//! DIR/containers/ID.json  what a change costs does not grow with what else there is
//! DIR/containers/ID.boot  the same of what ends with the host's run, and is not brought to the disk before it goes on
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lock;
pub mod schema;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

pub use lock::Lock;
use schema::{Container, Network, Record, State, VERSION};

use crate::bounded;

const VERSION_FILE: &str = "version";
/// What a file is called until it is whole.
const UNFINISHED: &str = "new";
const FINISHED: &str = "json";
/// The file of a record that means nothing once the host has been started again.
const OF_THIS_BOOT: &str = "boot";

/// The state of one instance.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in this directory, which is made, readable for root only, if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made, or its state is of a version that this program does not know.
    pub fn open(dir: &Path) -> Result<Self> {
        create_dir(dir).with_context(|| format!("create state directory {}", dir.display()))?;
        let store = Self { dir: dir.to_owned() };
        store.check_version()?;
        Ok(store)
    }

    /// All that was saved and not removed.
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub fn load(&self) -> Result<State> {
        Ok(State { networks: self.load_all::<Network>()?, containers: self.load_all::<Container>()? })
    }

    /// Replaces a record. After a crash at any moment either the old or the new one is there, whole; of one that does not
    /// [outlive the host's run](Record::is_lasting), after a crash of this program.
    ///
    /// # Errors
    /// When the disk refuses; the old one is still there then.
    pub fn save<T: Record>(&self, record: &T) -> Result<()> {
        let path = self.path::<T>(record.id(), extension(record));
        let write = || {
            self.prepare()?;
            let content = serde_json::to_vec(record)?;
            match record.is_lasting() {
                true => replace(&path, &content),
                false => Ok(write_then_rename(&path, &content, |_| Ok(()))?),
            }
        };
        write().with_context(|| format!("save state {}", path.display()))
    }

    /// Removes a record, if it is there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn delete<T: Record>(&self, id: &str) -> Result<()> {
        let path = self.path::<T>(id, FINISHED);
        absent_is_fine(fs::remove_file(self.path::<T>(id, OF_THIS_BOOT)))?;
        let delete = || match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted.and_then(|()| sync_dir(&self.directory::<T>())),
        };
        delete().with_context(|| format!("remove state {}", path.display()))
    }

    /// Removes all of it, and the directory if nothing else is in it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self) -> Result<()> {
        for directory in [self.directory::<Network>(), self.directory::<Container>()] {
            for path in files_in(&directory)? {
                absent_is_fine(fs::remove_file(&path))
                    .with_context(|| format!("remove state {}", path.display()))?;
            }
            remove_empty_dir(&directory)?;
        }
        let version = self.dir.join(VERSION_FILE);
        for path in [version.with_extension(UNFINISHED), version] {
            absent_is_fine(fs::remove_file(&path))
                .with_context(|| format!("remove state {}", path.display()))?;
        }
        remove_empty_dir(&self.dir)
    }

    fn directory<T: Record>(&self) -> PathBuf {
        self.dir.join(T::DIRECTORY)
    }

    fn path<T: Record>(&self, id: &str, extension: &str) -> PathBuf {
        self.directory::<T>().join(id).with_extension(extension)
    }

    fn load_all<T: Record>(&self) -> Result<BTreeMap<String, T>> {
        let mut records = BTreeMap::new();
        for path in files_in(&self.directory::<T>())? {
            let is = |what: &str| path.extension().is_some_and(|extension| extension == what);
            let remove = || fs::remove_file(&path).with_context(|| format!("remove {}", path.display()));
            if is(UNFINISHED) {
                remove()?;
                continue;
            }
            let text = bounded::file(&path, bounded::RECORD)
                .with_context(|| format!("read state {}", path.display()))?;
            let record: T = match serde_json::from_slice(&text) {
                Ok(record) => record,
                // The host has crashed before it was on disk: what it tells of has ended with that.
                Err(_) if is(OF_THIS_BOOT) => {
                    remove()?;
                    continue;
                }
                Err(e) => return Err(e).with_context(|| format!("understand state {}", path.display())),
            };
            records.insert(record.id().to_owned(), record);
        }
        Ok(records)
    }

    fn check_version(&self) -> Result<()> {
        let path = self.dir.join(VERSION_FILE);
        let version = match bounded::text_file(&path, bounded::WORD) {
            Ok(text) => text.trim().to_owned(),
            // The first schema was one file of that name.
            Err(e) if e.kind() == ErrorKind::NotFound && self.dir.join("state.json").exists() => {
                "1".to_owned()
            }
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        if version != VERSION.to_string() {
            bail!(
                "state {} has version {version}, and this rnet knows version {VERSION}: use the rnet that wrote it, or \
                 take the instance down with that one (rnet down) before this one is started",
                self.dir.display()
            );
        }
        Ok(())
    }

    /// A state that has a version is complete.
    fn prepare(&self) -> Result<()> {
        let path = self.dir.join(VERSION_FILE);
        if path.exists() {
            return Ok(());
        }
        create_dir(&self.directory::<Network>())?;
        create_dir(&self.directory::<Container>())?;
        replace(&path, VERSION.to_string().as_bytes())
    }
}

/// Makes a directory of what a program keeps while it runs. Who writes to it takes the place of the sockets in it: root alone
/// does, whatever the umask is.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn create_run_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.with_context(|| format!("create directory {}", dir.display()))
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

fn create_dir(dir: &Path) -> Result<()> {
    Ok(DirBuilder::new().recursive(true).mode(0o700).create(dir)?)
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
    };
    list().with_context(|| format!("list state {}", dir.display()))
}

fn extension(record: &impl Record) -> &'static str {
    if record.is_lasting() { FINISHED } else { OF_THIS_BOOT }
}

/// On disk, whatever happens to the host afterwards.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    write_then_rename(path, content, File::sync_all)?;
    // The rename itself is on disk only once the directory is.
    Ok(sync_dir(path.parent().unwrap_or(Path::new(".")))?)
}

/// Puts a whole file in the place of another, once `settle` is content with it.
fn write_then_rename(
    path: &Path,
    content: &[u8],
    settle: impl FnOnce(&File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.write_all(b"\n")?;
    settle(&file)?;
    fs::rename(&unfinished, path)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
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
    use schema::{Driver, Phase};
    use std::os::unix::fs::PermissionsExt;

    fn network(id: &str, name: &str) -> Network {
        Network {
            engine: None,
            borrowed: false,
            id: id.into(),
            name: name.into(),
            phase: Phase::Ready,
            driver: Driver::Null,
            number: 0,
            created: String::new(),
            predefined: false,
            bridge: None,
            adopted: None,
            subnets: Vec::new(),
            internal: false,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    fn names(store: &Store) -> Vec<String> {
        store.load().unwrap().networks.into_values().map(|n| n.name).collect()
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_root_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        store.save(&network("1", "a")).unwrap();
        store.save(&network("2", "b")).unwrap();
        store.save(&network("1", "c")).unwrap();
        assert_eq!(names(&Store::open(&store.dir).unwrap()), ["c", "b"]);
        let mode = |path: &str| fs::metadata(store.dir.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("networks"), mode("networks/1.json")), (0o700, 0o700, 0o600));
        store.delete::<Network>("1").unwrap();
        store.delete::<Network>("1").unwrap();
        assert_eq!(names(&store), ["b"]);
        store.remove().unwrap();
        assert!(!dir.path().join("a/b").exists());
        store.remove().unwrap();
    }

    #[test]
    fn a_half_written_file_is_never_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save(&network("1", "a")).unwrap();
        for name in ["1.new", "2.new"] {
            fs::write(dir.path().join("networks").join(name), "{\"id\": \"1\", \"na").unwrap();
        }
        assert_eq!(names(&store), ["a"]);
        store.save(&network("1", "b")).unwrap();
        assert_eq!(names(&store), ["b"]);
        store.remove().unwrap();
        assert!(!dir.path().exists());
    }

    #[test]
    fn a_strange_state_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let refused = || Store::open(dir.path()).and_then(|store| store.load()).unwrap_err();
        fs::write(dir.path().join("state.json"), "{\"version\": 1}").unwrap();
        assert!(refused().to_string().contains("has version 1, and this rnet knows version 2"));
        for (version, record, error) in [
            ("99", "{}", "has version 99, and this rnet knows version 2: use the rnet that wrote it"),
            ("x", "{}", "has version x"),
            ("2", "not json", "understand state"),
            ("2", "{\"id\": 5}", "understand state"),
        ] {
            fs::write(dir.path().join("version"), version).unwrap();
            fs::create_dir_all(dir.path().join("networks")).unwrap();
            let file = dir.path().join("networks/1.json");
            fs::write(&file, record).unwrap();
            assert!(format!("{:#}", refused()).contains(error), "{version} {record}");
            assert_eq!(fs::read_to_string(&file).unwrap(), record);
        }
    }

    #[test]
    fn what_is_not_ours_keeps_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes"), "mine").unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save(&network("1", "a")).unwrap();
        store.remove().unwrap();
        assert!(dir.path().join("notes").exists() && !dir.path().join("networks").exists());
    }
}
