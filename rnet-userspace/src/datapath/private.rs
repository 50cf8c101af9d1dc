//! Directories that hold pins: whoever may write to one could take programs off interfaces.
//!
//! bpffs lets every user make directories in its root unless it is mounted otherwise, so that one may be there first.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context, Result, ensure};

/// Makes the directory and the one above it where they are missing, for this user alone. Neither stays where it fails.
///
/// # Errors
/// One is somebody else's, or others may write to it; or it cannot be made.
pub(super) fn claim(pin_dir: &Path) -> Result<()> {
    let mut made = Vec::new();
    let mut dirs = pin_dir.parent().into_iter().chain([pin_dir]);
    let claimed = dirs.try_for_each(|dir| {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => made.push(dir),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("create directory {}", dir.display())),
        }
        check(dir)
    });
    if claimed.is_err() {
        for dir in made.into_iter().rev() {
            // Why it failed is what is to be told.
            let _ = fs::remove_dir(dir);
        }
    }
    claimed
}

fn check(dir: &Path) -> Result<()> {
    const OTHERS_WRITE: u32 = 0o022;
    let there = fs::symlink_metadata(dir).with_context(|| format!("look at {}", dir.display()))?;
    ensure!(
        there.is_dir()
            && there.uid() == rustix::process::geteuid().as_raw()
            && there.mode() & OTHERS_WRITE == 0,
        "{} is not a directory that only this user may write to (owner {}, mode {:o}): find out who made it, and \
         remove it",
        dir.display(),
        there.uid(),
        there.mode() & 0o7777
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(dir: &Path) -> u32 {
        fs::metadata(dir).unwrap().mode() & 0o777
    }

    #[test]
    fn a_directory_is_private_and_taken_again() {
        let root = tempfile::tempdir().unwrap();
        let pin_dir = root.path().join("rnet/v1");
        claim(&pin_dir).unwrap();
        assert_eq!((mode(&pin_dir), mode(&root.path().join("rnet"))), (0o700, 0o700));
        claim(&pin_dir).unwrap();
        // As earlier versions have made it.
        fs::set_permissions(&pin_dir, fs::Permissions::from_mode(0o755)).unwrap();
        claim(&pin_dir).unwrap();
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let instance = root.path().join("rnet");
        let too_long = "v".repeat(300);
        claim(&instance.join(&too_long)).unwrap_err();
        assert!(!instance.exists());
        claim(&instance.join("v1")).unwrap();
        claim(&instance.join(&too_long)).unwrap_err();
        assert!(instance.join("v1").exists());
    }

    #[test]
    fn what_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (instance, pin_dir) = (root.path().join("rnet"), root.path().join("rnet/v1"));
        for bad in [&instance, &pin_dir] {
            claim(&pin_dir).unwrap();
            fs::set_permissions(bad, fs::Permissions::from_mode(0o777)).unwrap();
            let refusal = claim(&pin_dir).unwrap_err().to_string();
            assert!(refusal.contains("mode 777") && refusal.contains(&*bad.to_string_lossy()), "{refusal}");
            fs::remove_dir_all(&instance).unwrap();
        }
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), &instance).unwrap();
        assert!(claim(&pin_dir).is_err(), "a link leads elsewhere");
    }
}
