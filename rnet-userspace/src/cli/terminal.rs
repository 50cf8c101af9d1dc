//! This process's terminal, connected to that of a command in a container.

use std::{
    future,
    io::{self, IsTerminal as _, Read as _},
    os::fd::OwnedFd,
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{self, SignalKind},
    sync::mpsc,
};

use super::print;
use crate::host::process::{Input, Size, resize};

/// The size of a terminal that nobody looks at.
const DEFAULT_SIZE: Size = Size { rows: 24, columns: 80 };
/// How much is read at once, in bytes, and how many such pieces may wait to be taken.
const PIECE: usize = 4096;
const PIECES: usize = 8;

/// What a command reads, and whether it has a terminal.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct TerminalArgs {
    /// Let the command read what is typed or piped in
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
}

impl TerminalArgs {
    /// What a command in the foreground is started with.
    ///
    /// # Errors
    /// It is to have this process's terminal, and this process has none.
    pub(super) fn input(self) -> Result<Input> {
        if self.interactive && self.tty && !io::stdin().is_terminal() {
            bail!("the input device is not a TTY");
        }
        Ok(Input { interactive: self.interactive, terminal: self.tty.then(size) })
    }
}

/// What is typed here goes to the command, and what it writes comes here, until this is dropped.
pub(super) struct Session {
    terminal: AsyncFd<OwnedFd>,
    /// What has been typed and not been taken.
    typed: Vec<u8>,
    keyboard: Option<mpsc::Receiver<Vec<u8>>>,
    resized: unix::Signal,
    /// Nothing more can come from it.
    closed: bool,
    _raw: Option<RawMode>,
}

impl Session {
    /// Connects this process's terminal to `terminal`, the other side of the command's.
    ///
    /// # Errors
    /// One of them is none.
    pub(super) fn open(terminal: OwnedFd, interactive: bool) -> Result<Self> {
        let resized = unix::signal(SignalKind::window_change()).context("wait for signals")?;
        resize(&terminal, size())?;
        rustix::io::ioctl_fionbio(&terminal, true).context("use a terminal without waiting")?;
        // SAFETY: an OwnedFd is open and stays the same one until it is dropped, and the AsyncFd owns it.
        let terminal =
            unsafe { AsyncFd::register_with_interest(terminal, Interest::READABLE | Interest::WRITABLE) };
        let terminal = terminal.map_err(io::Error::from).context("wait for a terminal")?;
        let raw = interactive.then(RawMode::enter).transpose()?;
        let keyboard = interactive.then(keyboard).transpose()?;
        Ok(Self { terminal, typed: Vec::new(), keyboard, resized, closed: false, _raw: raw })
    }

    /// Does what there is to do next. May be given up at any point without a loss.
    ///
    /// # Errors
    /// What the command writes cannot be printed.
    pub(super) async fn step(&mut self) -> Result<()> {
        let (closed, idle) = (self.closed, self.typed.is_empty());
        tokio::select! {
            readable = self.terminal.readable(), if !closed => {
                readable.context("wait for a terminal")?.clear_ready();
                self.print()
            }
            writable = self.terminal.writable(), if !closed && !idle => {
                writable.context("wait for a terminal")?.clear_ready();
                self.pass_on();
                Ok(())
            }
            typed = next(&mut self.keyboard), if idle => {
                self.typed = typed;
                self.pass_on();
                Ok(())
            }
            _ = self.resized.recv() => {
                // Fails when the command has just ended.
                let _ = resize(self.terminal.get_ref(), size());
                Ok(())
            }
        }
    }

    /// Prints what the command has written.
    ///
    /// # Errors
    /// It cannot be printed.
    pub(super) fn print(&mut self) -> Result<()> {
        let mut piece = [0; PIECE];
        loop {
            match rustix::io::read(self.terminal.get_ref(), &mut piece) {
                Ok(length @ 1..) => print::bytes(piece.get(..length).unwrap_or_default())?,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                // EIO: no process has it open any more.
                Ok(0) | Err(_) => {
                    self.closed = true;
                    return Ok(());
                }
            }
        }
    }

    fn pass_on(&mut self) {
        match rustix::io::write(self.terminal.get_ref(), &self.typed) {
            Ok(length) => drop(self.typed.drain(..length)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // Nobody is there to take it.
            Err(_) => self.typed.clear(),
        }
    }
}

/// What is typed next; waits for ever when nothing more can be.
async fn next(keyboard: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Vec<u8> {
    if let Some(open) = keyboard {
        if let Some(typed) = open.recv().await {
            return typed;
        }
        *keyboard = None;
    }
    future::pending().await
}

/// Reads this process's stdin on a thread of its own, which ends with the process at the latest.
pub(super) fn keyboard() -> Result<mpsc::Receiver<Vec<u8>>> {
    let (typed, keyboard) = mpsc::channel(PIECES);
    let read = move || {
        let mut piece = [0; PIECE];
        while let Ok(length @ 1..) = io::stdin().read(&mut piece) {
            let text = piece.get(..length).unwrap_or_default().to_vec();
            if typed.blocking_send(text).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("keyboard".into()).spawn(read).context("start a thread")?;
    Ok(keyboard)
}

/// This process's terminal passes every key on as it is. Dropping it makes the terminal what it was.
pub(super) struct RawMode(Termios);

impl RawMode {
    pub(super) fn enter() -> Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).context("look at the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("take over the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nobody is left to look at it when this fails.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The size of this process's terminal.
pub(super) fn size() -> Size {
    let found = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout()));
    match found {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Size { rows: size.ws_row, columns: size.ws_col },
        Ok(_) | Err(_) => DEFAULT_SIZE,
    }
}
