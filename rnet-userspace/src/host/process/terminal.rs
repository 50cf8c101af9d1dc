//! Terminals inside containers: the command has one side, whoever looks after it the other.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde::{Deserialize, Serialize};

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Both sides of a terminal.
pub(super) struct Terminal {
    /// What a user's terminal is connected to.
    pub(super) outside: OwnedFd,
    /// The command's.
    pub(super) inside: OwnedFd,
}

impl Terminal {
    /// Opens a new terminal of the `/dev/pts` that this process sees.
    pub(super) fn open(size: Option<Size>) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let outside = openpt(flags).context("open /dev/ptmx")?;
        grantpt(&outside).and_then(|()| unlockpt(&outside)).context("unlock a terminal")?;
        let inside = ioctl_tiocgptpeer(&outside, flags).context("open a terminal")?;
        if let Some(size) = size {
            resize(&outside, size)?;
        }
        Ok(Self { outside, inside })
    }
}

/// Makes a terminal so large, and tells the processes in its foreground (SIGWINCH).
///
/// # Errors
/// `terminal` is none.
pub fn resize(terminal: impl AsFd, size: Size) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).context("set the size of a terminal")
}
