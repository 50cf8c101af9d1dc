//! The exit code that a container's init leaves in a file, for whoever is not its parent or was not there.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, unlinkat},
    io::{Errno, retry_on_intr},
};

use crate::bounded;

/// The file of a container's directory that has its command's exit code once that has ended.
pub const STATUS_FILE: &str = "status";

/// The exit code in the file `status`. `None` while there is none.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_status(status: &Path) -> Result<Option<i32>> {
    let of = || format!("read exit code from {}", status.display());
    match bounded::text_file(status, bounded::WORD) {
        Ok(text) => text.trim().parse().map(Some).with_context(of),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(of),
    }
}

/// The exit code of a container whose init is gone and was to leave it in the file `status`. `None` when the file's
/// directory is gone too.
///
/// # Errors
/// As those of [`read_status`].
pub fn status_of_ended(status: &Path) -> Result<Option<i32>> {
    let code = read_status(status)?;
    // Only SIGKILL ends an init that has not left one.
    let killed = || status.parent().is_some_and(Path::is_dir).then_some(128 + Signal::SIGKILL as i32);
    Ok(code.or_else(killed))
}

/// Where the exit code goes, held by its directory.
pub(super) struct StatusFile {
    directory: OwnedFd,
    name: PathBuf,
}

impl StatusFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let of = || format!("open the directory of {}", path.display());
        let (directory, name) = path.parent().zip(path.file_name()).with_context(of)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, directory, flags, Mode::empty()).with_context(of)?;
        match unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
        }
        Ok(Self { directory, name: name.into() })
    }

    /// Whoever finds the file finds all of it.
    pub(super) fn write(&self, code: i32) -> Result<()> {
        let of = || format!("write exit code {code} to {}", self.name.display());
        let unfinished = format!("{}.tmp", self.name.display());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let open = || openat(&self.directory, &unfinished, flags, Mode::from_raw_mode(0o640));
        let file = retry_on_intr(open).with_context(of)?;
        writeln!(File::from(file), "{code}").with_context(of)?;
        renameat(&self.directory, &unfinished, &self.directory, &self.name).with_context(of)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn status_is_read_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("status");
        assert_eq!(read_status(&file).unwrap(), None);
        assert_eq!(status_of_ended(&file).unwrap(), Some(137), "an init that could leave none");
        let status = StatusFile::open(&file).unwrap();
        status.write(143).unwrap();
        assert_eq!(read_status(&file).unwrap(), Some(143));
        assert_eq!(status_of_ended(&file).unwrap(), Some(143));
        fs::write(&file, "").unwrap();
        assert!(read_status(&file).is_err());
        assert_eq!(status_of_ended(&dir.path().join("gone/status")).unwrap(), None);
    }
}
