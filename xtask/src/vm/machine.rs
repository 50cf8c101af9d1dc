//! A guest that runs: emulated, as a machine with a working KVM is not to be counted on.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::report::Report;
use crate::{
    command::line,
    setup::{Emulator, Kernel},
};

/// How long a guest may take. A selection of tests takes minutes where nothing else runs.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// In MiB: the archive, what is unpacked of it, and two instances of rnet with their tables.
const MEMORY: &str = "2048";

/// Boots a kernel with a file system, passes on each line that the guest says, and tells what came of it. `logs` takes
/// what the kernel says.
pub(super) fn run(
    emulator: &Emulator,
    kernel: &Kernel,
    initramfs: &Path,
    logs: &Path,
    mut heard: impl FnMut(&str),
) -> Result<Report> {
    let console = logs.join("console.log");
    let mut qemu = emulator.command();
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = qemu.spawn().with_context(|| format!("run `{}`", line(&qemu)))?;
    let mut guest = Running(child);
    let stdout = guest.0.stdout.take().context("qemu has no standard output")?;
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut output = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while output.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let said = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
            if tell.send(said).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    let start = Instant::now();
    let mut report = Report::default();
    loop {
        match told.recv_timeout(LIMIT.saturating_sub(start.elapsed())) {
            Ok(said) => {
                report.take(&said, start.elapsed());
                heard(&said);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("the guest still runs after {} s", LIMIT.as_secs()),
        }
    }
    drop(guest);
    let _ = reader.join();
    if report.release.is_none() {
        let said = fs::read_to_string(&console).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        bail!("it has not come up:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    Ok(report)
}

/// Ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
