//! A fresh Debian, and what is in it.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use testbed::process;

const LIMIT: Duration = Duration::from_secs(120);

/// What dpkg writes down for itself.
const DPKGS_OWN: [&str; 2] = ["/var/lib/dpkg", "/var/log/dpkg.log"];

/// The directory of the packages, or nothing, having said why.
pub(crate) fn packages() -> Option<PathBuf> {
    if !testbed::can_run() {
        return None;
    }
    let packages = std::env::var_os("RNET_DIST").map(PathBuf::from);
    if packages.is_none() {
        testbed::skip("needs RNET_DIST, the packages' directory: `cargo xtask test dist` makes it");
    }
    packages
}

/// The one package whose name ends so.
pub(crate) fn package(dir: &Path, suffix: &str) -> PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = names.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// An installed system.
pub(crate) struct System(TempDir);

impl System {
    /// Debian, if its archive is here; says so if not.
    pub(crate) fn debian() -> Option<Self> {
        let Some(archive) = std::env::var_os("RNET_DEBIAN") else {
            testbed::skip("needs RNET_DEBIAN, an archive of Debian's files");
            return None;
        };
        let system = Self::empty();
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--numeric-owner", "--same-permissions", "--file"]).arg(archive);
        tar.arg("--directory").arg(system.root());
        process::run(tar, LIMIT).assert_ok("unpack Debian");
        Some(system)
    }

    /// A directory with nothing in it.
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// A path within it, from the outside.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Runs a shell's command line in it, which must succeed, and returns what it prints.
    pub(crate) fn sh(&self, line: &str) -> String {
        let mut command = Command::new("chroot");
        command.arg(self.root()).args(["bash", "-euo", "pipefail", "-c", line]);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let finished = process::run(command, LIMIT).assert_ok(line);
        finished.stdout + &finished.stderr
    }

    /// Has it at hand under its own name there.
    pub(crate) fn copy(&self, file: &Path) -> String {
        let place = Path::new("/root").join(file.file_name().unwrap()).display().to_string();
        fs::copy(file, self.at(&place)).unwrap();
        place
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    /// Everything that is in it, but for what dpkg writes down.
    pub(crate) fn files(&self) -> Files {
        let mut files = BTreeMap::new();
        self.describe(self.root(), &mut files);
        Files(files)
    }

    fn describe(&self, path: &Path, files: &mut BTreeMap<String, String>) {
        let name = format!("/{}", path.strip_prefix(self.root()).unwrap().display());
        if DPKGS_OWN.contains(&name.as_str()) {
            return;
        }
        let meta = fs::symlink_metadata(path).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_file() {
            let mut hasher = DefaultHasher::new();
            fs::read(path).unwrap().hash(&mut hasher);
            format!("file {:016x}", hasher.finish())
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(path).unwrap().display())
        } else if kind.is_dir() {
            "directory".to_owned()
        } else {
            assert!(kind.is_char_device() || kind.is_block_device() || kind.is_fifo(), "{name}");
            format!("device {}", meta.rdev())
        };
        let mode = meta.permissions().mode();
        files.insert(name, format!("{content} {mode:o} {}:{}", meta.uid(), meta.gid()));
        if kind.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.describe(&entry.unwrap().path(), files);
            }
        }
    }
}

/// Paths, each with type, content, mode and owner.
#[derive(PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<String, String>);

impl Files {
    /// What differs in `after`: `+ PATH`, `- PATH` and `! PATH`.
    pub(crate) fn changes(&self, after: &Self) -> Vec<String> {
        let (before, after) = (&self.0, &after.0);
        let gone = before.keys().filter(|path| !after.contains_key(*path)).map(|path| format!("- {path}"));
        let other = after.iter().filter_map(|(path, what)| match before.get(path) {
            None => Some(format!("+ {path}")),
            Some(was) => (was != what).then(|| format!("! {path}")),
        });
        gone.chain(other).collect()
    }
}

#[test]
fn every_kind_of_change_is_seen() {
    let system = System::empty();
    system.write("/etc/a", "a");
    system.write("/etc/b", "b");
    system.write("/var/lib/dpkg/status", "1");
    let before = system.files();
    assert_eq!(before.changes(&system.files()), Vec::<String>::new());
    system.write("/var/lib/dpkg/status", "2");
    system.write("/etc/a", "A");
    system.write("/etc/c", "c");
    fs::remove_file(system.at("/etc/b")).unwrap();
    fs::set_permissions(system.at("/etc"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(before.changes(&system.files()), ["- /etc/b", "! /etc", "! /etc/a", "+ /etc/c"]);
}
