//! `rnet logs`.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    path::Path,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::{io::unix::AsyncFd, time::timeout};

use super::print;
use crate::{
    api::client::Client,
    controller::view::{Container, ContainerState},
};

/// How often the daemon is asked whether a container whose log nobody writes to still runs.
const ASK: Duration = Duration::from_secs(1);
/// How much is read at once, in bytes.
const PIECE: usize = 1 << 16;

/// Arguments of `rnet logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Go on with what is written until the container ends
    #[arg(short, long)]
    follow: bool,
    /// How many lines to begin with, counted from the end
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: Tail,
    /// Name or id
    container: String,
}

/// How much of the end of a log is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    All,
    Lines(usize),
}

impl FromStr for Tail {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            lines => lines
                .parse()
                .map(Self::Lines)
                .map_err(|_| "it should be a number of lines, or all".to_owned()),
        }
    }
}

impl LogsArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let container = client.container(&self.container).await?;
        let path = container.dir.join("log");
        let mut log = match File::open(&path) {
            Ok(log) => log,
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "container {} has no log: only commands run with -d write one, others write to their terminal",
                self.container
            ),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        if let Tail::Lines(lines) = self.tail {
            let start = tail_start(&mut log, lines).with_context(|| format!("read {}", path.display()))?;
            log.seek(SeekFrom::Start(start)).with_context(|| format!("read {}", path.display()))?;
        }
        if self.follow { follow(client, &container, &mut log).await } else { print::copy(&mut log) }
    }
}

async fn follow(client: &Client, container: &Container, log: &mut File) -> Result<()> {
    let watching = || format!("watch {}", container.dir.display());
    let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).with_context(watching)?;
    let flags = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    match inotify::add_watch(&changes, &container.dir, flags) {
        // Removed meanwhile: what is open can still be read.
        Err(Errno::NOENT) => return print::copy(log),
        watch => watch.map(drop).with_context(watching)?,
    }
    // SAFETY: an OwnedFd is open and stays the same one until it is dropped, and the AsyncFd owns it.
    let changes = unsafe { AsyncFd::register(changes) }.map_err(io::Error::from).with_context(watching)?;
    let mut running = container.state == ContainerState::Running;
    loop {
        // Asked before the log is read, so that nothing is written in between.
        let goes_on = running && !has_ended(&container.dir);
        print::copy(log)?;
        if !goes_on {
            return Ok(());
        }
        match timeout(ASK, changes.readable()).await {
            Ok(ready) => {
                ready.with_context(watching)?.clear_ready();
                // Only that there were some matters, and those that are left make it ready again.
                let _ = rustix::io::read(changes.get_ref(), &mut [0; 4096]);
            }
            // A killed container leaves no exit code.
            Err(_) => {
                running = match client.container(&container.id).await {
                    Ok(container) => container.state == ContainerState::Running,
                    Err(e) if e.is_not_found() => false,
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
}

/// Whether a container's exit code is there.
fn has_ended(dir: &Path) -> bool {
    dir.join(crate::host::process::STATUS_FILE).exists()
}

/// Where the last `lines` lines of a file begin.
fn tail_start(file: &mut (impl io::Read + io::Seek), lines: usize) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut piece = vec![0; PIECE];
    let (mut found, mut position) = (0, end);
    if lines == 0 {
        return Ok(end);
    }
    while position > 0 {
        let length = position.min(PIECE as u64);
        position -= length;
        let length = usize::try_from(length).unwrap_or(PIECE);
        let piece = piece.get_mut(..length).unwrap_or_default();
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(piece)?;
        for (offset, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = position + offset as u64 + 1;
            // The end of the last line begins no other.
            if after == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(after);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &str, lines: usize) -> &str {
        let start = tail_start(&mut io::Cursor::new(text), lines).unwrap();
        &text[usize::try_from(start).unwrap()..]
    }

    #[test]
    fn the_last_lines_are_found() {
        let text = "one\ntwo\nthree\n";
        assert_eq!(tail(text, 0), "");
        assert_eq!(tail(text, 1), "three\n");
        assert_eq!(tail(text, 2), "two\nthree\n");
        assert_eq!(tail(text, 3), text);
        assert_eq!(tail(text, 9), text);
        assert_eq!(tail("one\ntwo", 1), "two");
        assert_eq!(tail("\n\n", 1), "\n");
        assert_eq!(tail("", 5), "");
    }

    #[test]
    fn lines_are_found_across_pieces() {
        let line = format!("{}\n", "x".repeat(PIECE - 1));
        let text = line.repeat(3);
        assert_eq!(tail(&text, 1), line);
        assert_eq!(tail(&text, 2), line.repeat(2));
    }

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert_eq!("all".parse(), Ok(Tail::All));
        assert_eq!("7".parse(), Ok(Tail::Lines(7)));
        assert!("-1".parse::<Tail>().is_err());
    }
}
