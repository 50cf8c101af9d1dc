//! One daemon of an instance at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, Write},
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
        let taking = || format!("take lock {}", path.display());
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
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
            // Whoever had it before may have removed the file between our opening and locking it.
            let ours = file.metadata().with_context(taking)?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours) {
                file.set_len(0).with_context(taking)?;
                file.rewind().with_context(taking)?;
                writeln!(file, "{}", std::process::id()).with_context(taking)?;
                return Ok(Self { path, _file: file });
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
        drop(first);
        Lock::take(&run_dir).unwrap().remove().unwrap();
        assert!(!run_dir.exists());
        Lock::take(&run_dir).unwrap();
    }
}
