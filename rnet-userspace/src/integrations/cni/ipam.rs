//! Addresses that another plugin gives, as the specification delegates to it: it is run with the same environment and
//! the same configuration.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command as Process, Stdio},
    thread,
};

use serde_json::Value;

use super::{
    call::{Call, Command},
    error::{Code, Error, Result},
    json::Object,
    result::Outcome,
};

/// The plugin.
#[derive(Clone, Debug)]
pub(super) struct Ipam<'a> {
    name: &'a str,
    program: PathBuf,
    config: &'a [u8],
}

impl<'a> Ipam<'a> {
    /// Finds the plugin. It will be given the configuration as it came.
    ///
    /// # Errors
    /// [`Code::Config`] when there is none.
    pub(super) fn find(name: &'a str, call: &Call, config: &'a [u8]) -> Result<Self> {
        if name.contains('/') {
            return Err(Error::config(format!(
                "ipam: type {name:?} is a path, and should be a plugin's name"
            )));
        }
        let mut files = call.path.iter().map(|dir| dir.join(name));
        let program = files.find(|file| file.is_file()).ok_or_else(|| {
            let path: Vec<_> = call.path.iter().map(|dir| dir.display().to_string()).collect();
            Error::config(format!("ipam: there is no plugin {name} in CNI_PATH ({})", path.join(":")))
        })?;
        Ok(Self { name, program, config })
    }

    /// Has it give addresses.
    ///
    /// # Errors
    /// What it says, or [`Code::Io`].
    pub(super) fn add(&self) -> Result<Outcome> {
        let said = self.run(Command::Add)?;
        let place = format!("result of {}", self.name);
        let json: Value = serde_json::from_slice(&said)
            .map_err(|e| Error::new(Code::Decode, format!("{place} is no JSON: {e}")))?;
        let outcome = Outcome::read(&json, &place)?;
        if outcome.ips.is_empty() {
            return Err(Error::config(format!("ipam: {} has given no address", self.name)));
        }
        Ok(outcome)
    }

    /// Tells it anything else.
    ///
    /// # Errors
    /// What it says, or [`Code::Io`].
    pub(super) fn tell(&self, command: Command) -> Result<()> {
        self.run(command).map(drop)
    }

    fn run(&self, command: Command) -> Result<Vec<u8>> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(Code::Io, format!("ipam: run {} {command}: {e}", self.program.display()))
        };
        let mut process = Process::new(&self.program)
            .env("CNI_COMMAND", command.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&e))?;
        let input = process.stdin.take();
        // It may write before it has read everything.
        let output = thread::scope(|scope| {
            let tell = move || {
                // One that does not read what it is told says so itself.
                let _ = input.map(|mut input| input.write_all(self.config));
            };
            // Without a thread it is told nothing, and ends.
            let telling = thread::Builder::new().spawn_scoped(scope, tell).map(drop);
            let output = process.wait_with_output();
            telling.and(output)
        });
        let output = output.map_err(|e| failed(&e))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        let error = said.as_ref().and_then(|said| refusal(said).ok().flatten());
        Err(error.map_or_else(
            || {
                let stderr = String::from_utf8_lossy(&output.stderr);
                failed(&format_args!("{}: {}", output.status, stderr.trim()))
            },
            |error| Error { message: format!("ipam: {}: {}", self.name, error.message), ..error },
        ))
    }
}

fn refusal(said: &Value) -> Result<Option<Error>> {
    let said = Object::of(said, "error")?;
    let code = said.number("code")?.and_then(|code| u32::try_from(code).ok());
    let Some((code, message)) = code.zip(said.text("msg")?) else { return Ok(None) };
    Ok(Some(Error::new(Code::Other(code), message).with_details(said.text("details")?.unwrap_or_default())))
}
