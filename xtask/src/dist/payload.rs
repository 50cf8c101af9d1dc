//! What both packages hold below their prefix: the binary, what it writes about itself, units, documents and licences.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{licenses, packaging, read, tree::Tree};
use crate::command::{output, workspace};

/// Completions: the shell, and where it finds them below a prefix that is the distribution's, or the administrator's.
const COMPLETIONS: [(&str, [&str; 2]); 3] = [
    ("bash", ["share/bash-completion/completions/rnet"; 2]),
    ("zsh", ["share/zsh/vendor-completions/_rnet", "share/zsh/site-functions/_rnet"]),
    ("fish", ["share/fish/vendor_completions.d/rnet.fish"; 2]),
];

const UNITS: [&str; 3] = ["rnet.service", "rnet.socket", "rnet-docker-plugin.service"];

/// Where the files go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// /usr, by a package manager.
    Distribution,
    /// /usr/local, by hand.
    Local,
}

pub(super) struct Payload {
    binary: Vec<u8>,
    completions: Vec<([&'static str; 2], String)>,
    /// Names and contents.
    pages: Vec<(String, String)>,
    units: Vec<(&'static str, String)>,
    /// Paths below the workspace, and contents.
    documents: Vec<(String, Vec<u8>)>,
    licenses: String,
}

impl Payload {
    /// Has the binary write what it says of itself into `scratch`, and reads the rest.
    pub(super) fn collect(rnet: &Path, scratch: &Tree) -> Result<Self> {
        let completions = COMPLETIONS
            .into_iter()
            .map(|(shell, places)| Ok((places, output(Command::new(rnet).args(["completions", shell]))?)))
            .collect::<Result<_>>()?;
        output(Command::new(rnet).arg("man").arg(scratch.root()))?;
        let page = |name: String| Ok((name.clone(), read(&scratch.root().join(name))?));
        Ok(Self {
            binary: fs::read(rnet).with_context(|| format!("read {}", rnet.display()))?,
            completions,
            pages: scratch.list("f")?.into_iter().map(page).collect::<Result<_>>()?,
            units: UNITS
                .into_iter()
                .map(|unit| Ok((unit, read(&packaging(unit))?)))
                .collect::<Result<_>>()?,
            documents: documents()?,
            licenses: licenses::collect()?,
        })
    }

    /// Puts everything below `prefix` of a tree, which is where `kind` says on the target.
    pub(super) fn place(&self, tree: &Tree, prefix: &str, kind: Prefix) -> Result<()> {
        tree.program(&format!("{prefix}/bin/rnet"), &self.binary)?;
        for ([distribution, local], script) in &self.completions {
            let place = if kind == Prefix::Local { local } else { distribution };
            tree.file(&format!("{prefix}/{place}"), script)?;
        }
        for (name, page) in &self.pages {
            tree.compressed(&format!("{prefix}/share/man/man1/{name}"), page)?;
        }
        for (name, unit) in &self.units {
            let unit = if kind == Prefix::Local { local(unit) } else { unit.clone() };
            tree.file(&format!("{prefix}/lib/systemd/system/{name}"), unit)?;
        }
        for (path, document) in &self.documents {
            tree.file(&format!("{prefix}/share/doc/rnet/{path}"), document)?;
        }
        tree.compressed(&format!("{prefix}/share/doc/rnet/third-party"), &self.licenses)?;
        // Podman looks below both prefixes.
        tree.link(&format!("{prefix}/lib/netavark/rnet"), "../../bin/rnet")
    }
}

/// A unit for the binary that is installed by hand.
fn local(unit: &str) -> String {
    unit.replace("/usr/bin/", "/usr/local/bin/")
}

/// The README and the documents, laid out as in the source, so that links between them lead somewhere.
fn documents() -> Result<Vec<(String, Vec<u8>)>> {
    let listing = || "list the documents";
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(workspace().join("docs")).with_context(listing)? {
        paths.push(format!("docs/{}", entry.with_context(listing)?.file_name().to_string_lossy()));
    }
    paths.sort();
    let content = |path: String| {
        let content = fs::read(workspace().join(&path)).with_context(|| format!("read {path}"))?;
        Ok((path, content))
    };
    paths.into_iter().map(content).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_installed_by_hand_starts_the_binary_beside_it() {
        let unit = read(&packaging("rnet.service")).unwrap();
        assert!(unit.contains("ExecStart=/usr/bin/rnet daemon\n"));
        let unit = local(&unit);
        assert!(unit.contains("ExecStart=/usr/local/bin/rnet daemon\n") && !unit.contains("=/usr/bin/"));
    }
}
