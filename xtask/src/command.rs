//! Other programs: running them, and finding them.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::commit::Commit;

/// Directories of system tools that are not on the `PATH` of every user.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Runs a command to its end on this terminal. The error of one that fails names the whole command.
pub(crate) fn exec(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed. The error of one that fails carries the last lines of it.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}{}", line(command), output.status, tail(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as it would be typed into a shell, with the variables it sets.
pub(crate) fn line(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// The first executable file of that name on `PATH`, or where the system keeps its own tools.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    find_all(name).next()
}

/// All executable files of that name, in the order of `PATH`.
pub(crate) fn find_all(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = env::split_paths(&path).chain(SYSTEM_DIRS.map(PathBuf::from)).collect();
    dirs.into_iter().map(move |dir| dir.join(name)).filter(|file| is_executable(file))
}

/// Whether the file is there and may be executed.
pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The workspace's directory.
pub(crate) fn workspace() -> PathBuf {
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// The cargo that builds what runs on the host, in the workspace's directory.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // What cargo has said of this package to this task: build scripts that look at it would run again for each
    // change between a task and cargo itself.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    // The same for every task: what is built by one with it and by another without would be built again each time.
    if let Some(commit) = Commit::here() {
        command.env("RNET_COMMIT", &commit.name).env("RNET_COMMIT_DATE", &commit.date);
    }
    command
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn tail(output: &Output) -> String {
    const LINES: usize = 30;
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_whole_command_and_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo it broke >&2; exit 3"]).env("A", "b c");
        let error = output(&mut command).unwrap_err().to_string();
        assert!(error.starts_with("`A='b c' sh -c 'echo out; echo it broke >&2; exit 3'` failed"), "{error}");
        assert!(error.contains("exit status: 3\n    out\n    it broke"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = exec(&mut Command::new("rnet-no-such-program")).unwrap_err();
        assert!(format!("{error:#}").starts_with("run `rnet-no-such-program`: "), "{error:#}");
    }

    #[test]
    fn quotes_inside_a_word_survive_the_shell() {
        let word = "it's";
        assert_eq!(
            output(Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word.as_ref()))])).unwrap(),
            word
        );
    }
}
