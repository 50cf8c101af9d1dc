//! Processes inside containers: started through a shim, signalled and waited for by id and start time.
//!
//! The shim is this program run once more, as `rnet shim SPEC`: a thread cannot leave its process's mount
//! namespace, and little is safe between a fork and an exec of a program with threads.
//!
//! ```text
//! daemon ── shim (ends at once)          rnet run ── shim ── init (pid 1) ── command
//!           init (pid 1) ── command      rnet exec ── shim ── command, in the PID namespace of an init
//! ```

mod channel;
mod init;
mod limit;
pub(super) mod pid;
mod shim;
mod status;
pub(super) mod surroundings;
mod terminal;

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{bounded, controller::view::Namespaces};
use channel::Channel;

pub use limit::raise_open_files;
pub use pid::{exit_code, signal, start_time, wait_exit};
pub use shim::shim_main;
pub use status::{STATUS_FILE, read_status, status_of_ended};
pub use terminal::{Size, resize};

/// What to run and in which surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The network namespace; absent for the host's.
    pub netns: Option<PathBuf>,
    /// The UTS and IPC namespaces.
    pub namespaces: Namespaces,
    /// Host name.
    pub hostname: String,
    /// Directory whose `resolv.conf`, `hosts` and `hostname` stand in for those of `/etc`.
    pub dir: PathBuf,
    /// A directory that becomes the root; the host's root when there is none.
    pub rootfs: Option<PathBuf>,
    /// The program, looked up in `PATH` inside the root, and its arguments.
    pub command: Vec<String>,
    /// It has a terminal, even where nobody looks at it.
    pub terminal: bool,
}

/// What a command in the foreground reads, and what it writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// It reads what is put in: this process's stdin, or the other side of its terminal.
    pub interactive: bool,
    /// It has a terminal of this size, in place of this process's stdin, stdout and stderr.
    pub terminal: Option<Size>,
}

/// A command in the foreground.
#[derive(Debug)]
pub struct Foreground {
    /// Its parent, or that of its init. Signals sent to it are passed on, and it exits as the command does: with
    /// 128 plus the number of the signal that ended the command, with 127 when there is no such program, 126 when it
    /// cannot be executed and 125 when its surroundings cannot be made, having said so on stderr.
    pub shim: Child,
    /// What there is of it once it runs; absent when it does not.
    pub running: Option<Running>,
}

/// A command that runs in the foreground.
#[derive(Debug)]
pub struct Running {
    /// The container's init.
    pub pid: u32,
    /// The other side of the command's terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Launch {
    /// Starts the command under an init of its own, and waits until it runs or has failed to. With `status`, its
    /// exit code stands in this file once it has ended; until then there is no such file. The command is killed when
    /// the shim is.
    ///
    /// # Errors
    /// There is no command, or the shim cannot be started.
    pub fn spawn(&self, input: Input, status: Option<&Path>) -> Result<Foreground> {
        let status = status.map(Path::to_owned);
        self.foreground(&Spec::Foreground { launch: self.clone(), input, status }, input)
    }

    /// Starts the command under an init of its own, in a session of its own, which outlives this process. Its output
    /// is appended to the file `log`, its stdin is empty or a terminal that nobody types at, and once it has ended
    /// its exit code stands in the file `status`; until then there is no such file.
    ///
    /// Returns the id of the init, which passes signals on. It is no child of this process.
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
        // Init holds the pipes until the command runs or has failed to.
        match String::from_utf8_lossy(&shim.stdout).trim().parse() {
            Ok(pid) => Ok(pid),
            Err(_) => match String::from_utf8_lossy(&shim.stderr).trim() {
                "" => bail!("start {}: the shim ended before it did so", self.program()),
                error => bail!("{}", error.strip_prefix(shim::PREFIX).unwrap_or(error)),
            },
        }
    }

    /// Starts the command beside the init `pid` of a container, in all of its namespaces and in its root directory,
    /// and waits until it runs or has failed to. Of the surroundings described here only the network namespace
    /// counts, which the init must be in.
    ///
    /// # Errors
    /// There is no command, or the shim cannot be started.
    pub fn spawn_beside(&self, pid: u32, input: Input) -> Result<Foreground> {
        self.foreground(&Spec::Join { launch: self.clone(), pid, input }, input)
    }

    fn foreground(&self, spec: &Spec, input: Input) -> Result<Foreground> {
        let mut shim = self.shim(spec)?;
        let (channel, theirs) = Channel::pair()?;
        if input.is_passed() {
            channel.send_stdin(io::stdin().as_fd())?;
        }
        let mut started = shim.stdin(theirs).spawn().context("start the shim")?;
        // It holds their end of the channel, which is to close with the shim.
        drop(shim);
        let runs = channel.wait().inspect_err(|_| {
            // Both fail only when it has ended.
            let _ = started.kill();
            let _ = started.wait();
        })?;
        let running = runs.map(|runs| Running { pid: runs.pid, terminal: runs.terminal });
        Ok(Foreground { shim: started, running })
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

impl Input {
    /// Whether the shim is given this process's stdin.
    fn is_passed(self) -> bool {
        self.interactive && self.terminal.is_none()
    }
}

/// Where the init `pid` will leave the exit code. `None` when it is no such init or is gone.
pub fn status_file(pid: u32) -> Option<PathBuf> {
    // An init's command line is its shim's, tells all that there is to know, and outlasts the daemon.
    // Whoever runs there may have made it as long as it likes; one argument takes 128 KiB at the most (MAX_ARG_STRLEN).
    let command_line = Path::new("/proc").join(pid.to_string()).join("cmdline");
    let command_line = bounded::file(&command_line, bounded::SETTINGS).ok()?;
    let mut arguments = command_line.split(|&byte| byte == 0).skip(1);
    if arguments.next()? != b"shim" {
        return None;
    }
    match serde_json::from_slice(arguments.next()?).ok()? {
        Spec::Detached { status, .. } => Some(status),
        Spec::Foreground { status, .. } => status,
        Spec::Join { .. } => None,
    }
}

#[cfg(any(test, fuzzing))]
pub(super) fn check_spec(spec: &[u8]) {
    crate::fuzzing::round_trip::<Spec>(spec);
}

/// What the shim is told.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Spec {
    Foreground {
        launch: Launch,
        input: Input,
        /// Where init leaves the exit code.
        status: Option<PathBuf>,
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
        input: Input,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            netns: Some("/run/rnet/netns/a b".into()),
            namespaces: Namespaces::Held("/run/rnet/containers/1".into()),
            hostname: "web".into(),
            dir: "/run/rnet/containers/1".into(),
            rootfs: None,
            command: vec!["sh".into(), "-c".into(), "echo \"$0\" 'é'".into()],
            terminal: false,
        }
    }

    #[test]
    fn what_the_shim_is_told_survives_json() {
        let launch = launch();
        let input = Input { interactive: true, terminal: Some(Size { rows: 24, columns: 80 }) };
        for spec in [
            Spec::Foreground { launch: launch.clone(), input, status: Some("/s".into()) },
            Spec::Join { launch: Launch { rootfs: Some("/srv".into()), ..launch.clone() }, pid: 7, input },
            Spec::Detached { launch, log: "/a".into(), status: "/b".into(), open_files: Some(1024) },
        ] {
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn no_command_is_an_error() {
        let launch = Launch { command: Vec::new(), ..launch() };
        let error = launch.spawn(Input::default(), None).unwrap_err();
        assert_eq!(error.to_string(), "start a process: no command is given");
    }
}
