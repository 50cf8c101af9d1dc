//! What a change must pass before its tests count.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    build,
    command::{cargo, exec, line, workspace},
    progress::step,
    setup, unsafe_code,
};

pub(crate) fn run() -> Result<()> {
    step("checking the format", || exec(cargo().args(["fmt", "--all", "--check"])))?;
    step("clippy, on the host's side of everything", || {
        exec(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    step("the list of unsafe code", || unsafe_code::check(&workspace()))?;
    let toolchain = setup::bpf_toolchain()?;
    step("warnings of the datapath, compiled for BPF", || {
        let mut build = build::datapath(&toolchain);
        // `-D warnings` would be other flags, for which `core` is built again; cargo repeats the warnings of
        // what it does not build.
        build.args(["--message-format", "json"]).stdout(Stdio::piped());
        let output = build.spawn().and_then(std::process::Child::wait_with_output);
        let output = output.with_context(|| format!("run `{}`", line(&build)))?;
        let warnings = diagnostics(&String::from_utf8_lossy(&output.stdout));
        for warning in &warnings {
            eprint!("{warning}");
        }
        if !output.status.success() {
            bail!("`{}` failed: {}", line(&build), output.status);
        }
        if !warnings.is_empty() {
            bail!("{} warnings in what is compiled for BPF", warnings.len());
        }
        Ok(())
    })
}

/// What the compiler had to say about the workspace's own crates, from cargo's messages.
fn diagnostics(messages: &str) -> Vec<String> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-message")
        // A package that comes from a registry is not ours to mend.
        .filter(|message| message["package_id"].as_str().is_some_and(|id| id.starts_with("path+")))
        .filter_map(|message| Some(message["message"]["rendered"].as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_about_our_own_crates_counts() {
        let said = |id: &str, text: &str| {
            format!(
                r#"{{"reason":"compiler-message","package_id":"{id}","message":{{"rendered":"{text}"}}}}"#
            )
        };
        let messages = [
            said("path+file:///rnet/rnet-ebpf#0.1.0", "unused variable"),
            said("registry+https://github.com/rust-lang/crates.io-index#x@1.0.0", "deprecated"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        assert_eq!(diagnostics(&messages.join("\n")), ["unused variable"]);
    }
}
