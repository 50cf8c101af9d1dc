//! Faults on demand, for tests: `RNET_FAIL_AT=N` makes the Nth step that the daemon applies after it has
//! started fail before it does anything, and `RNET_KILL_AT=N` kills the daemon there (SIGKILL), so that a black-box
//! test can see that nothing is left of a change that failed half-way, and that the next start heals one that was cut
//! short. Undoing is never made to fail. They have no other use.

use std::{env, num::NonZero};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const FAIL_AT: &str = "RNET_FAIL_AT";
const KILL_AT: &str = "RNET_KILL_AT";

/// What is to go wrong, and at which step, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The step fails.
    Fail(NonZero<usize>),
    /// The daemon is killed before it.
    Kill(NonZero<usize>),
}

/// Counts steps, and lets one of them go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    fault: Option<Fault>,
    seen: usize,
}

impl Faults {
    /// Lets `fault` come to pass, counted from here on.
    pub fn new(fault: Option<Fault>) -> Self {
        Self { fault, seen: 0 }
    }

    /// Counts one step.
    ///
    /// # Errors
    /// When it is the one that is to fail.
    pub fn count(&mut self) -> Result<()> {
        self.seen += 1;
        match self.fault {
            Some(Fault::Fail(at)) if at.get() == self.seen => {
                bail!("fault injected at step {} ({FAIL_AT})", self.seen)
            }
            Some(Fault::Kill(at)) if at.get() == self.seen => {
                kill(Pid::this(), Signal::SIGKILL).context("end at once")
            }
            Some(Fault::Fail(_) | Fault::Kill(_)) | None => Ok(()),
        }
    }
}

/// What the environment asks for.
///
/// # Errors
/// When it is not a step's number.
pub fn from_env() -> Result<Option<Fault>> {
    let step = |variable| {
        let Some(value) = env::var_os(variable) else { return Ok(None) };
        let value = value.to_string_lossy();
        let step = value.parse::<NonZero<usize>>();
        step.map(Some).with_context(|| format!("understand {variable}={value}: it takes a step's number"))
    };
    Ok(step(FAIL_AT)?.map(Fault::Fail).or(step(KILL_AT)?.map(Fault::Kill)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_step_fails() {
        let mut faults = Faults::new(NonZero::new(2).map(Fault::Fail));
        let outcome: Vec<bool> = (0..4).map(|_| faults.count().is_ok()).collect();
        assert_eq!(outcome, [true, false, true, true]);
        let mut none = Faults::new(None);
        assert!((0..4).all(|_| none.count().is_ok()));
    }
}
