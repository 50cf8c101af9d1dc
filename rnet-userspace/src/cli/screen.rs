//! The terminal as a picture that is drawn anew, with keys that are told one by one. Whatever ends the program, short of
//! SIGKILL, leaves the terminal as it was.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    print,
    terminal::{RawMode, keyboard, size},
};

/// The second screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first place; clear to the end of the line, and of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";
/// What Ctrl-C types on a terminal that passes everything on.
const INTERRUPT: u8 = 3;

/// What comes from whoever sits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A character.
    Char(char),
    /// The tabulator.
    Tab,
    /// It is to end: Ctrl-C, a signal, or the terminal is gone.
    End,
    /// The terminal has another size.
    Resized,
}

/// The terminal, until this is dropped.
pub(super) struct Screen {
    keyboard: mpsc::Receiver<Vec<u8>>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    resized: Signal,
    // In this order: the first screen comes back before its settings do.
    _second: Second,
    _raw: RawMode,
}

/// The second screen.
struct Second;

impl Drop for Second {
    fn drop(&mut self) {
        // Nobody is left to look at it when this fails.
        let _ = print::raw(LEAVE.as_bytes());
    }
}

impl Screen {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn open() -> Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            bail!("this needs a terminal; for anything else there is --batch");
        }
        let on = |kind: SignalKind| signal(kind).context("wait for signals");
        let (terminate, interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        let (hangup, resized) = (on(SignalKind::hangup())?, on(SignalKind::window_change())?);
        let raw = RawMode::enter()?;
        print::raw(ENTER.as_bytes())?;
        let second = Second;
        let keyboard = keyboard()?;
        Ok(Self { keyboard, terminate, interrupt, hangup, resized, _second: second, _raw: raw })
    }

    /// Draws a picture: lines that do not fit are cut off.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&self, text: &str) -> Result<()> {
        print::raw(picture(text, size().rows.into(), size().columns.into()).as_bytes())
    }

    /// The next key. May be given up without a loss.
    pub(super) async fn key(&mut self) -> Key {
        loop {
            let typed = tokio::select! {
                typed = self.keyboard.recv() => typed,
                _ = self.terminate.recv() => None,
                _ = self.interrupt.recv() => None,
                _ = self.hangup.recv() => None,
                _ = self.resized.recv() => return Key::Resized,
            };
            // One key at a time is typed by hand; of more, the first counts.
            match typed.map(|typed| typed.first().copied()) {
                None | Some(Some(INTERRUPT)) => return Key::End,
                Some(Some(b'\t')) => return Key::Tab,
                Some(Some(byte)) if byte.is_ascii_graphic() || byte == b' ' => {
                    return Key::Char(char::from(byte));
                }
                Some(_) => {}
            }
        }
    }
}

fn picture(text: &str, rows: usize, columns: usize) -> String {
    let lines = text.lines().take(rows).map(|line| line.chars().take(columns).collect::<String>());
    let lines: Vec<String> = lines.map(|line| format!("{line}{CLEAR_LINE}")).collect();
    // The terminal does not go back to the line's beginning by itself.
    format!("{HOME}{}{CLEAR_REST}", lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_its_terminal() {
        assert_eq!(picture("abcdef\nx\ny", 2, 4), "\x1b[Habcd\x1b[K\r\nx\x1b[K\x1b[J");
    }
}
