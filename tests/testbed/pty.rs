//! Terminals for commands to be run at.
#![expect(clippy::unwrap_used, reason = "a terminal that cannot be had fails its test")]

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{OpenptyResult, Winsize, openpty},
};

/// A terminal: its outside, where is typed and read, and the inside for a command.
///
/// # Panics
/// When there is none to be had.
pub fn terminal(rows: u16, columns: u16) -> (File, OwnedFd) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    (master.into(), slave)
}

/// Reads until `wanted` has come, and returns all that has.
///
/// # Panics
/// When nothing comes for as long as `limit`, and it has not.
pub fn read_until(terminal: &mut File, wanted: &str, limit: Duration) -> String {
    let mut read = Vec::new();
    let mut piece = [0; 1024];
    let limit = PollTimeout::try_from(limit).unwrap();
    while !String::from_utf8_lossy(&read).contains(wanted) {
        let ready = poll(&mut [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)], limit).unwrap();
        assert_eq!(ready, 1, "{wanted:?} does not come: {}", String::from_utf8_lossy(&read));
        let len = terminal.read(&mut piece).unwrap();
        read.extend_from_slice(&piece[..len]);
    }
    String::from_utf8_lossy(&read).into_owned()
}
