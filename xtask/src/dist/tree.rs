//! A directory that a package is made of.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::write;
use crate::command::{exec, output};

pub(super) struct Tree(PathBuf);

impl Tree {
    /// An empty one.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        super::empty(&root)?;
        Ok(Self(root))
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// Writes a file that everybody may read.
    pub(super) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.file_with_mode(path, content, 0o644)
    }

    /// Writes a program, or a script.
    pub(super) fn program(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.file_with_mode(path, content, 0o755)
    }

    /// Writes a compressed file, `PATH.gz`, without its name and time inside.
    pub(super) fn compressed(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.file(path, content)?;
        exec(Command::new("gzip").args(["--best", "--no-name", "--force"]).arg(self.0.join(path)))
    }

    /// Makes a symbolic link.
    pub(super) fn link(&self, path: &str, to: &str) -> Result<()> {
        let path = self.make_room(path)?;
        symlink(to, &path).with_context(|| format!("link {} to {to}", path.display()))
    }

    /// Gives every directory the mode that the builder's umask may have kept from it.
    pub(super) fn open_directories(&self) -> Result<()> {
        exec(Command::new("find").arg(&self.0).args(["-type", "d", "-exec", "chmod", "0755", "{}", "+"]))
    }

    /// Files (`f`), directories (`d`) or links (`l`), as find(1) has it, sorted and relative to the root.
    pub(super) fn list(&self, kinds: &str) -> Result<Vec<String>> {
        let mut find = Command::new("find");
        find.current_dir(&self.0).args([".", "-mindepth", "1", "-type", kinds, "-printf", "%P\\n"]);
        let mut paths: Vec<_> = output(&mut find)?.lines().map(str::to_owned).collect();
        paths.sort();
        Ok(paths)
    }

    fn file_with_mode(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let path = self.make_room(path)?;
        write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("set the mode of {}", path.display()))
    }

    fn make_room(&self, path: &str) -> Result<PathBuf> {
        let path = self.0.join(path);
        let directory = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(path)
    }
}
