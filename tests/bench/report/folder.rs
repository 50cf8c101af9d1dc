//! The directory that a report is in.

use std::{
    env, fs,
    os::unix::fs::{chown, lchown, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Report, markdown, svg};

/// A directory for one report. What is written belongs to the user who called through sudo, if one did.
#[derive(Debug)]
pub(crate) struct Folder {
    directory: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Folder {
    /// Makes the directory, unless it is there.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let folder = Self { directory: directory.to_path_buf(), owner: caller() };
        let missing: Vec<_> =
            directory.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        for made in missing {
            folder.give_away(made)?;
        }
        Ok(folder)
    }

    /// Has a link beside the directory lead to it.
    pub(crate) fn link(&self, name: &str) -> Result<()> {
        let (Some(parent), Some(target)) = (self.directory.parent(), self.directory.file_name()) else {
            return Ok(());
        };
        let link = parent.join(name);
        let set = || {
            if link.is_symlink() {
                fs::remove_file(&link)?;
            }
            symlink(target, &link)?;
            self.owner.map_or(Ok(()), |(user, group)| lchown(&link, Some(user), Some(group)))
        };
        set().with_context(|| format!("link {} to {}", link.display(), target.display()))
    }

    /// Writes all of a report, over what an earlier state of it has left.
    pub(crate) fn write(&self, report: &Report) -> Result<()> {
        let json = serde_json::to_string_pretty(report).context("write the report as JSON")?;
        self.write_file("report.json", &(json + "\n"))?;
        for chart in report.parts.iter().flat_map(|measured| &measured.part.charts) {
            let drawn = svg::draw(chart).with_context(|| format!("draw {}", chart.file))?;
            self.write_file(&format!("{}.svg", chart.file), &drawn)?;
        }
        self.write_file("report.md", &markdown::report(report))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    fn write_file(&self, name: &str, text: &str) -> Result<()> {
        let file = self.directory.join(name);
        // Whoever stops the run finds the old file or the new, and no half of one.
        let beside = self.directory.join(format!(".{name}.new"));
        fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
        self.give_away(&beside)?;
        fs::rename(&beside, &file).with_context(|| format!("write {}", file.display()))
    }

    fn give_away(&self, path: &Path) -> Result<()> {
        self.owner
            .map_or(Ok(()), |(user, group)| chown(path, Some(user), Some(group)))
            .with_context(|| format!("give {} to the user who asked for it", path.display()))
    }
}

/// The user and group that called through sudo.
fn caller() -> Option<(u32, u32)> {
    let id = |name: &str| env::var(name).ok()?.parse().ok();
    Some((id("SUDO_UID")?, id("SUDO_GID")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::{super::tests::sample, *};

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_report_is_written_again_as_it_grows_and_leaves_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::create(&scratch.path().join("bench/1")).unwrap();
        let mut report = sample();
        let part = report.parts.pop().unwrap();
        folder.write(&report).unwrap();
        assert_eq!(names(folder.path()), ["report.json", "report.md"]);
        report.parts.push(part);
        folder.write(&report).unwrap();
        assert_eq!(names(folder.path()), ["published.svg", "report.json", "report.md"]);
        let json = fs::read_to_string(folder.path().join("report.json")).unwrap();
        assert_eq!(json, serde_json::to_string_pretty(&report).unwrap() + "\n");
    }

    #[test]
    fn the_link_leads_to_the_report_made_last() {
        let scratch = tempfile::tempdir().unwrap();
        for run in ["1", "2"] {
            let folder = Folder::create(&scratch.path().join(run)).unwrap();
            folder.link("latest").unwrap();
            assert_eq!(fs::read_link(scratch.path().join("latest")).unwrap(), Path::new(run));
        }
    }

    #[test]
    fn everything_made_belongs_to_the_caller() {
        testbed::require_root!();
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder { directory: scratch.path().to_path_buf(), owner: Some((4711, 4712)) };
        folder.write(&sample()).unwrap();
        for name in names(scratch.path()) {
            let file = scratch.path().join(&name).metadata().unwrap();
            assert_eq!((file.uid(), file.gid()), (4711, 4712), "{name}");
        }
    }
}
