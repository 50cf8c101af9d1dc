//! One daemon of an instance at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::{Errno, retry_on_intr},
};

use crate::bounded;

const FILE: &str = "lock";

/// The lock of an instance: held until it is dropped or its process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// The kernel gives the lock up when this is closed.
    _file: File,
}

impl Lock {
    /// Takes the lock in `run_dir`, which is made if it is not there.
    ///
    /// # Errors
    /// When another process has it, whose id the message names; or when the file cannot be made.
    pub fn take(run_dir: &Path) -> Result<Self> {
        super::create_run_dir(run_dir)?;
        let path = run_dir.join(FILE);
        Self::take_at(&path).inspect_err(|_| {
            if let Err(error) = take_back(run_dir, &path) {
                tracing::warn!("remove what a failed start has made: {error:#}");
            }
        })
    }

    fn take_at(path: &Path) -> Result<Self> {
        let taking = || format!("take lock {}", path.display());
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .with_context(taking)?;
            match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let pid = bounded::read_text(&file, bounded::WORD).with_context(taking)?;
                    bail!(
                        "a daemon of this instance runs already, as process {}: stop it, or choose another --instance",
                        pid.trim()
                    );
                }
                Err(e) => return Err(e).with_context(taking),
            }
            if is_there(&file, path).with_context(taking)? {
                file.set_len(0).with_context(taking)?;
                file.rewind().with_context(taking)?;
                writeln!(file, "{}", std::process::id()).with_context(taking)?;
                return Ok(Self { path: path.to_owned(), _file: file });
            }
        }
    }

    /// Gives the lock up and removes its file, and the directory if nothing else is in it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("remove lock {}", self.path.display()))?;
        self.path.parent().map_or(Ok(()), super::remove_empty_dir)
    }
}

/// Whether a file that is locked by now is still the one at `path`. Whoever had it before may have removed it since it was
/// opened.
fn is_there(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?.ino();
    Ok(fs::metadata(path).is_ok_and(|there| there.ino() == ours))
}

/// Removes the file, unless somebody has the lock, and the directory, unless something else is in it.
fn take_back(run_dir: &Path, path: &Path) -> Result<()> {
    if let Ok(file) = File::open(path)
        && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        && is_there(&file, path)?
    {
        fs::remove_file(path)?;
    }
    super::remove_empty_dir(run_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_first_ones_process() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let first = Lock::take(&run_dir).unwrap();
        let refusal = Lock::take(&run_dir).unwrap_err().to_string();
        assert!(refusal.contains(&format!("as process {}:", std::process::id())), "{refusal}");
        assert!(run_dir.join(FILE).exists(), "it is not the second's to remove");
        drop(first);
        Lock::take(&run_dir).unwrap().remove().unwrap();
        assert!(!run_dir.exists());
        Lock::take(&run_dir).unwrap();
    }
}
