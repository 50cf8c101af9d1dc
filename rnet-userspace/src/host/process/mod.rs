//! Processes inside containers: started through a shim, signalled and waited for by id and start time.
//!
//! The shim is this program run once more, as `rnet shim SPEC`: a thread cannot leave its process's mount
//! namespace, and little is safe between a fork and an exec of a program with threads.

mod limit;
mod pid;
mod shim;
mod surroundings;

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use limit::raise_open_files;
pub use pid::{descendants, exit_code, signal, start_time, wait_exit};
pub use shim::shim_main;

/// What to run and in which surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The network namespace.
    pub netns: PathBuf,
    /// Host name.
    pub hostname: String,
    /// Directory whose `resolv.conf`, `hosts` and `hostname` stand in for those of `/etc`.
    pub dir: PathBuf,
    /// A directory that becomes the root; the host's root when there is none.
    pub rootfs: Option<PathBuf>,
    /// The program, looked up in `PATH` inside the root, and its arguments.
    pub command: Vec<String>,
}

impl Launch {
    /// Starts the command on this process's stdin, stdout and stderr. The child becomes the command itself; it
    /// exits with 127 when there is no such program, 126 when it cannot be executed and 125 when its
    /// surroundings cannot be made, having said so on stderr.
    ///
    /// # Errors
    /// There is no command, or the shim cannot be started.
    pub fn spawn(&self) -> Result<Child> {
        self.shim(&Spec::Foreground { launch: self.clone() })?.spawn().context("start the shim")
    }

    /// Starts the command in a session of its own, which outlives this process. Its output is appended to the
    /// file `log`, its stdin is empty, and once it has ended its exit code stands in the file `status`; until
    /// then there is no such file.
    ///
    /// Returns the id of the shim that waits for the command. The shim passes SIGTERM, SIGINT, SIGHUP, SIGQUIT,
    /// SIGUSR1 and SIGUSR2 on, and the command dies with it. It is no child of this process.
    ///
    /// # Errors
    /// There is no command, its surroundings cannot be made, or the program cannot be executed.
    pub fn spawn_detached(&self, log: &Path, status: &Path) -> Result<u32> {
        let spec = Spec::Detached {
            launch: self.clone(),
            log: log.to_owned(),
            status: status.to_owned(),
            open_files: limit::before(),
        };
        let shim = self
            .shim(&spec)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            .output()
            .context("start the shim")?;
        // The shim holds the pipes until the command runs or has failed to.
        match String::from_utf8_lossy(&shim.stdout).trim().parse() {
            Ok(pid) => Ok(pid),
            Err(_) => match String::from_utf8_lossy(&shim.stderr).trim() {
                "" => bail!("start {}: the shim ended before it did so", self.program()),
                error => bail!("{}", error.strip_prefix(shim::PREFIX).unwrap_or(error)),
            },
        }
    }

    /// Starts the command beside the process `pid` of the container, in its mount, UTS and network namespaces and
    /// in its root directory, on this process's stdin, stdout and stderr. It exits as that of [`Launch::spawn`]
    /// does; of the surroundings described here only the network namespace counts, which the process must be in.
    ///
    /// # Errors
    /// There is no command, or the shim cannot be started.
    pub fn spawn_beside(&self, pid: u32) -> Result<Child> {
        self.shim(&Spec::Join { launch: self.clone(), pid })?.spawn().context("start the shim")
    }

    fn shim(&self, spec: &Spec) -> Result<Command> {
        if self.command.is_empty() {
            bail!("start a process: no command is given");
        }
        let mut shim = Command::new("/proc/self/exe");
        shim.arg0("rnet")
            .arg("shim")
            .arg(serde_json::to_string(spec).context("describe the process to the shim")?);
        // A service manager's messages are for the daemon alone.
        for variable in
            ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
        {
            shim.env_remove(variable);
        }
        Ok(shim)
    }

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }
}

/// The exit code that [`Launch::spawn_detached`] left in the file `status`. `None` while there is none.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_status(status: &Path) -> Result<Option<i32>> {
    let of = || format!("read exit code from {}", status.display());
    match fs::read_to_string(status) {
        Ok(text) => text.trim().parse().map(Some).with_context(of),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(of),
    }
}

/// Where the shim `pid` of [`Launch::spawn_detached`] will leave the exit code. `None` when it is no such shim or is
/// gone.
pub fn status_file(pid: u32) -> Option<PathBuf> {
    // A shim's command line tells all that there is to know, and outlasts the daemon that started it.
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = command_line.split(|&byte| byte == 0).skip(1);
    if arguments.next()? != b"shim" {
        return None;
    }
    match serde_json::from_slice(arguments.next()?).ok()? {
        Spec::Detached { status, .. } => Some(status),
        Spec::Foreground { .. } | Spec::Join { .. } => None,
    }
}

/// What the shim is told.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Spec {
    Foreground {
        launch: Launch,
    },
    Detached {
        launch: Launch,
        log: PathBuf,
        status: PathBuf,
        /// The command's soft limit, where it is not the daemon's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        open_files: Option<u64>,
    },
    Join {
        launch: Launch,
        pid: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            netns: "/run/rnet/netns/a b".into(),
            hostname: "web".into(),
            dir: "/var/lib/rnet/containers/1".into(),
            rootfs: None,
            command: vec!["sh".into(), "-c".into(), "echo \"$0\" 'é'".into()],
        }
    }

    #[test]
    fn what_the_shim_is_told_survives_json() {
        let launch = launch();
        for spec in [
            Spec::Foreground { launch: launch.clone() },
            Spec::Join { launch: Launch { rootfs: Some("/srv".into()), ..launch.clone() }, pid: 7 },
            Spec::Detached { launch, log: "/a".into(), status: "/b".into(), open_files: Some(1024) },
        ] {
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn no_command_is_an_error() {
        let launch = Launch { command: Vec::new(), ..launch() };
        assert_eq!(launch.spawn().unwrap_err().to_string(), "start a process: no command is given");
    }

    #[test]
    fn status_is_read_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("status");
        assert_eq!(read_status(&file).unwrap(), None);
        fs::write(&file, "143\n").unwrap();
        assert_eq!(read_status(&file).unwrap(), Some(143));
        fs::write(&file, "").unwrap();
        assert!(read_status(&file).is_err());
    }
}
