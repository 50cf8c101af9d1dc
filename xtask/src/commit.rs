//! What is checked out: the same for whoever builds it, and whenever.

use std::{path::Path, process::Command, sync::OnceLock};

use crate::command::workspace;

/// What of the workspace becomes part of the binary.
const SOURCES: [&str; 5] = ["Cargo.lock", "Cargo.toml", "rnet-common", "rnet-ebpf", "rnet-userspace"];

#[derive(Clone)]
pub(crate) struct Commit {
    /// Its abbreviated id, with `-dirty` where the sources differ from it.
    pub(crate) name: String,
    /// Its day, in UTC.
    pub(crate) date: String,
    /// Its time, in seconds since 1970.
    pub(crate) time: String,
}

impl Commit {
    /// The workspace's; nothing outside git.
    pub(crate) fn here() -> Option<&'static Self> {
        static HERE: OnceLock<Option<Commit>> = OnceLock::new();
        HERE.get_or_init(|| Self::of(&workspace())).as_ref()
    }

    fn of(workspace: &Path) -> Option<Self> {
        // An unpacked archive may lie within a repository of somebody else's.
        let top = git(workspace, &["rev-parse", "--show-toplevel"])?;
        if Path::new(&top).canonicalize().ok()? != workspace.canonicalize().ok()? {
            return None;
        }
        // As long in every clone, which an abbreviation of git's own choice is not.
        let id = git(workspace, &["rev-parse", "--short=10", "HEAD"])?;
        let changes = [&["status", "--porcelain", "--"], &SOURCES[..]].concat();
        let mark = if git(workspace, &changes)?.is_empty() { "" } else { "-dirty" };
        let times = git(workspace, &["log", "-1", "--format=%cd %ct", "--date=format-local:%Y-%m-%d"])?;
        let (date, time) = times.split_once(' ')?;
        Some(Self { name: format!("{id}{mark}"), date: date.to_owned(), time: time.to_owned() })
    }
}

/// What git prints; nothing where there is no git, or it refuses.
fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(directory).env("TZ", "UTC").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn changed_sources_mark_the_commit() {
        let dir = std::env::temp_dir().join(format!("xtask-commit-{}", std::process::id()));
        fs::create_dir_all(dir.join("rnet-common")).unwrap();
        let commit = || Commit::of(&dir);
        assert!(commit().is_none(), "outside git");
        let git = |args: &[&str]| {
            let who = ["-c", "user.name=x", "-c", "user.email=x@y"];
            let mut git = Command::new("git");
            git.args(who).args(args).current_dir(&dir).env("GIT_COMMITTER_DATE", "2026-02-03T23:30:00-0100");
            assert!(git.output().unwrap().status.success(), "git {args:?}");
        };
        git(&["init", "--quiet"]);
        assert!(commit().is_none(), "nothing is committed");
        git(&["commit", "--quiet", "--allow-empty", "-m", "x"]);
        let clean = commit().unwrap();
        assert_eq!((clean.name.len(), clean.date.as_str()), (10, "2026-02-04"));
        fs::write(dir.join("notes"), "").unwrap();
        assert_eq!(commit().unwrap().name, clean.name, "what is no part of the binary");
        fs::write(dir.join("rnet-common/x.rs"), "").unwrap();
        assert_eq!(commit().unwrap().name, format!("{}-dirty", clean.name));
        assert!(Commit::of(&dir.join("rnet-common")).is_none(), "within another repository");
        fs::remove_dir_all(dir).unwrap();
    }
}
