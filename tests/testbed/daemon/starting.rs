//! A daemon that may not start.

use std::{process::Command, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Rnet, START_LIMIT};
use crate::{
    patient,
    process::{Finished, Process, is_stopped},
    wait_until,
};

/// What keeps a process from running until [`Rnet::try_start_daemon`] has let it, and is done in its place before.
const STOPPED: &str = "kill -STOP $$\n";

impl Rnet<'_> {
    /// Starts the daemon out of a shell that has run `script` before, and waits until it answers or has ended. `prepare` is
    /// given its process before it runs, and anything of it.
    ///
    /// # Errors
    /// How it has ended, and what it has said, as if on standard error.
    ///
    /// # Panics
    /// When it runs already, or does neither.
    pub fn try_start_daemon(
        &self,
        script: &str,
        args: &[&str],
        prepare: impl FnOnce(u32),
    ) -> Result<(), Finished> {
        let daemon = self.command(&[&["daemon"], args].concat());
        let mut command = self.host.ns.command("sh");
        command.args(["-c", &format!("{STOPPED}{script}\nexec \"$@\""), "sh"]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        self.try_start_by(command, prepare)
    }

    fn try_start_by(&self, mut command: Command, prepare: impl FnOnce(u32)) -> Result<(), Finished> {
        let before = self.log().len();
        self.log_to(&mut command);
        let mut daemon = Process::start(command);
        let id = daemon.id();
        wait_until("the shell stops", Duration::from_secs(20), || is_stopped(id).then_some(()));
        prepare(id);
        // Whoever traces it has let it go on by now.
        let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGCONT);
        let deadline = std::time::Instant::now() + patient(START_LIMIT);
        loop {
            if let Some(status) = daemon.ended() {
                let stderr = self.log().split_off(before);
                return Err(Finished { status, stdout: String::new(), stderr });
            }
            if self.answers() {
                *self.daemon.borrow_mut() = Some(daemon);
                return Ok(());
            }
            assert!(
                std::time::Instant::now() < deadline,
                "rnet daemon neither answers nor ends:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
