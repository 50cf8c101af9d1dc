//! Faults on demand, for tests: `RNET_FAIL_AT=N` makes the Nth step that the daemon applies after it has
//! started fail before it does anything, so that a black-box test can see that nothing is left of a change
//! that failed half-way. Undoing is never made to fail. It has no other use.

use anyhow::{Context, Result, bail};

const VARIABLE: &str = "RNET_FAIL_AT";

/// Which step is to fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    fail_at: Option<usize>,
    seen: usize,
}

impl Faults {
    /// Lets the `fail_at`th step from here on fail, counted from 1.
    pub fn new(fail_at: Option<usize>) -> Self {
        Self { fail_at, seen: 0 }
    }

    /// Counts one step.
    ///
    /// # Errors
    /// When it is the one that is to fail.
    pub fn count(&mut self) -> Result<()> {
        self.seen += 1;
        if self.fail_at == Some(self.seen) {
            bail!("fault injected at step {} ({VARIABLE})", self.seen);
        }
        Ok(())
    }
}

/// What the environment asks for.
///
/// # Errors
/// When it is not a number.
pub fn from_env() -> Result<Option<usize>> {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    let number =
        value.parse().with_context(|| format!("understand {VARIABLE}={value}: it takes a step's number"))?;
    Ok(Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_step_fails() {
        let mut faults = Faults::new(Some(2));
        let outcome: Vec<bool> = (0..4).map(|_| faults.count().is_ok()).collect();
        assert_eq!(outcome, [true, false, true, true]);
        let mut none = Faults::new(None);
        assert!((0..4).all(|_| none.count().is_ok()));
    }
}
