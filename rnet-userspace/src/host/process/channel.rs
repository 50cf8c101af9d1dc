//! Between who starts a shim in the foreground and the shim: its stdin is a socket, through which it gets the
//! command's stdin, and tells once the command runs.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use anyhow::{Context, Result};
use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

/// One end of it.
pub(super) struct Channel(UnixStream);

/// What is said of a command that runs.
#[derive(Debug)]
pub(super) struct Runs {
    /// The process by which it is known, by its id for whoever is outside.
    pub(super) pid: u32,
    /// The other side of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

impl Channel {
    /// Both ends, the second to become a shim's stdin.
    pub(super) fn pair() -> Result<(Self, OwnedFd)> {
        let (here, there) = UnixStream::pair().context("make a socket to the shim")?;
        Ok((Self(here), there.into()))
    }

    /// The shim's end.
    pub(super) fn of_shim() -> Result<Self> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("take the socket")?;
        Ok(Self(stdin.into()))
    }

    pub(super) fn send_stdin(&self, stdin: BorrowedFd<'_>) -> Result<()> {
        self.send(b"stdin", Some(stdin)).context("pass on stdin")
    }

    pub(super) fn receive_stdin(&self) -> Result<OwnedFd> {
        let (_, stdin) = self.receive().context("receive stdin")?;
        stdin.context("receive stdin: there is none")
    }

    pub(super) fn announce(&self, runs: &Runs) -> Result<()> {
        let terminal = runs.terminal.as_ref().map(AsFd::as_fd);
        self.send(runs.pid.to_string().as_bytes(), terminal).context("tell that the command runs")
    }

    /// Waits until the command runs. `None` when it does not, as the shim's exit status tells.
    pub(super) fn wait(self) -> Result<Option<Runs>> {
        let (text, terminal) = self.receive().context("wait for the command to start")?;
        if text.is_empty() {
            return Ok(None);
        }
        let pid = text.parse().with_context(|| format!("the shim says {text:?} for a process id"))?;
        Ok(Some(Runs { pid, terminal }))
    }

    fn send(&self, text: &[u8], file: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = file.as_slice();
        if !files.is_empty() {
            // The buffer is made for one.
            ancillary.push(SendAncillaryMessage::ScmRights(files));
        }
        // Shorter than any socket's buffer, so that it is sent whole.
        sendmsg(&self.0, &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self) -> Result<(String, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 32];
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut text)];
            match recvmsg(&self.0, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?,
            }
        };
        let file = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        });
        let text = text.get(..received.bytes).unwrap_or_default();
        Ok((String::from_utf8_lossy(text).into_owned(), file))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
    };

    use super::*;

    #[test]
    fn a_process_and_its_terminal_are_told() {
        let (here, there) = Channel::pair().unwrap();
        let mut sent = tempfile::tempfile().unwrap();
        sent.write_all(b"passed").unwrap();
        sent.rewind().unwrap();
        let there = Channel(there.into());
        there.announce(&Runs { pid: 4_194_304, terminal: Some(sent.into()) }).unwrap();
        let runs = here.wait().unwrap().unwrap();
        let mut text = String::new();
        File::from(runs.terminal.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((runs.pid, text.as_str()), (4_194_304, "passed"));
    }

    #[test]
    fn without_a_word_nothing_runs() {
        let (here, there) = Channel::pair().unwrap();
        drop(there);
        assert!(here.wait().unwrap().is_none());
    }
}
