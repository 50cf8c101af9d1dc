//! What is made of the definition of the arguments: completions for shells, and the manual.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, print};

/// Arguments of `rnet completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `rnet man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory, as /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl CompletionsArgs {
    pub(super) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "rnet", &mut script);
        print::raw(&script)
    }
}

impl ManArgs {
    pub(super) fn run(self) -> Result<()> {
        let writing = || format!("write manual pages into {}", self.directory.display());
        std::fs::create_dir_all(&self.directory).with_context(writing)?;
        clap_mangen::generate_to(Cli::command(), &self.directory).with_context(writing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        ManArgs { directory: directory.path().join("man1") }.run().unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.path().join("man1").join(name)).unwrap();
        assert!(page("rnet.1").contains("rnet\\-network(1)"), "{}", page("rnet.1"));
        assert!(page("rnet-network-connect.1").contains("\\-\\-gw\\-priority"));
        assert!(!directory.path().join("man1/rnet-shim.1").exists(), "what is hidden has none");
    }
}
