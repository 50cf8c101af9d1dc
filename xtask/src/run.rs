//! The demonstration, or `rnet` itself on this host.

use std::{
    env,
    ffi::OsString,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{build, command::line, demo, root, setup};

#[derive(Args)]
pub(crate) struct Options {
    /// End the demonstration with its last step instead of a live view.
    #[arg(long, conflicts_with = "args")]
    once: bool,
    /// Build optimised.
    #[arg(long)]
    release: bool,
    /// Run `rnet ARGS` on this host instead of the demonstration.
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let built = build::run(&build::Options { release: options.release })?;
    if !options.args.is_empty() {
        let mut rnet = if only_asks(&options.args) {
            Command::new(&built.rnet)
        } else {
            root::as_root(&built.rnet, "rnet changes this host's network")?
        };
        // Its exit status and its signals are this process's from here on.
        let error = rnet.args(&options.args).exec();
        return Err(error).with_context(|| format!("run `{}`", line(&rnet)));
    }
    setup::demonstration_tools()?;
    let demonstration = demo::Options { rnet: built.rnet, once: options.once };
    if root::is_root() {
        return demo::run(&demonstration);
    }
    let xtask = env::current_exe().context("find the program that runs this")?;
    let mut command = root::as_root(xtask, "the demonstration makes network namespaces of its own")?;
    command.arg("demonstrate").arg("--rnet").arg(&demonstration.rnet);
    if demonstration.once {
        command.arg("--once");
    }
    // Ctrl-C is for the demonstration, which cleans up; this process waits for it.
    demo::interrupt::catch()?;
    let status = command.status().with_context(|| format!("run `{}`", line(&command)))?;
    Ok(exit_code(status))
}

/// Whether `rnet` is only asked about itself, which needs no root.
fn only_asks(args: &[OsString]) -> bool {
    const QUESTIONS: [&str; 6] = ["-h", "--help", "help", "-V", "--version", "completions"];
    let is = |word: &OsString, words: &[&str]| word.to_str().is_some_and(|word| words.contains(&word));
    let asks_a_command =
        args.iter().skip(1).take_while(|word| *word != "--").take(2).any(|w| is(w, &QUESTIONS[..2]));
    args.first().is_some_and(|word| is(word, &QUESTIONS)) || asks_a_command
}

/// A process's end as this process's own.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_asked_for_only_when_something_is_done() {
        let only_asks = |args: &str| only_asks(&args.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(only_asks("--help"));
        assert!(only_asks("network create --help"));
        assert!(only_asks("completions bash"));
        assert!(!only_asks("daemon"));
        assert!(!only_asks("run -- --help"));
        assert!(!only_asks("exec web curl --help"));
    }
}
