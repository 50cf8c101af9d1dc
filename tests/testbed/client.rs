//! Docker's own client, which knows nothing of rnet.

use std::{ops::Deref, path::PathBuf, time::Duration};

use tempfile::TempDir;

use crate::{
    Netns, Rnet,
    engine::programs,
    process::{self, Finished},
    tool::Tool,
};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The client, told to speak to one daemon.
#[derive(Debug)]
pub struct Docker<'h> {
    tool: Tool<'h>,
    // Nothing of the user's own configuration.
    config: TempDir,
}

impl<'h> Docker<'h> {
    /// The client of an instance's daemon. Nothing, and a word about it, where there is none.
    ///
    /// # Panics
    /// Where there is none and everything must run.
    pub fn of(rnet: &Rnet<'h>) -> Option<Self> {
        let found = Self::at(&rnet.host().ns, rnet.socket());
        if found.is_none() {
            crate::skip("needs Docker's client: get it with `cargo xtask setup --tests`");
        }
        found
    }

    /// The client of whatever listens on `socket` in `ns`: where `/usr` is the machine's, `$RNET_DOCKER`, else the one on
    /// `PATH`, else the one that `cargo xtask setup --tests` has unpacked.
    pub(crate) fn at(ns: &'h Netns, socket: PathBuf) -> Option<Self> {
        let chosen = std::env::var_os("RNET_DOCKER").map(PathBuf::from).filter(|file| file.is_file());
        let chosen = chosen.filter(|_| ns.mounts().is_none_or(|mounts| mounts.tree().is_none()));
        let program = chosen.or_else(|| programs::find(ns, "docker"))?;
        let config = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        let mut tool = Tool::new(ns, program).arg("--config").arg(config.path());
        // What the user's surroundings say.
        for variable in
            ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"]
        {
            tool = tool.env(variable, None::<String>);
        }
        let tool = tool.arg("--host").arg(format!("unix://{}", socket.display()));
        Some(Self { tool, config })
    }

    /// Runs `docker ARGS` in a namespace to its end: the arguments say which daemon is meant.
    pub fn elsewhere(&self, ns: &Netns, args: &[&str]) -> Finished {
        let mut command = self.tool.bare(ns);
        command.arg("--config").arg(self.config.path()).args(args);
        process::run(command, COMMAND_LIMIT)
    }
}

impl<'h> Deref for Docker<'h> {
    type Target = Tool<'h>;

    fn deref(&self) -> &Tool<'h> {
        &self.tool
    }
}
