//! Waiting for many sockets at once.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

/// Sockets by their descriptors.
pub(super) struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    pub(super) fn new() -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); 64] })
    }

    /// Waits for this socket to become readable, too. It is forgotten when it is closed.
    pub(super) fn add(&self, socket: &(impl AsFd + AsRawFd)) -> nix::Result<()> {
        let key = socket.as_raw_fd().unsigned_abs().into();
        self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, key))
    }

    /// No longer waits for this socket.
    pub(super) fn remove(&self, socket: &impl AsFd) -> nix::Result<()> {
        self.epoll.delete(socket)
    }

    /// The sockets that are readable; none when `millis` have passed.
    pub(super) fn wait(&mut self, millis: u16) -> nix::Result<impl Iterator<Item = RawFd>> {
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::from(millis)) {
            Err(Errno::EINTR) => 0,
            outcome => outcome?,
        };
        Ok(self.events[..count].iter().map(|event| RawFd::try_from(event.data()).unwrap_or(-1)))
    }
}
