//! Sockets that the service manager has opened and passes on (sd_listen_fds(3)): they are there before the daemon is, and
//! keep who comes meanwhile waiting rather than refused.
//!
//! Only the daemon's own places are served by them: a socket at any other is refused by name.

use std::{
    os::{
        fd::{FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt;

/// Listening sockets in the file system, each with its place.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(PathBuf, UnixListener)>);

impl Inherited {
    /// Takes over what this process was given at its start; nothing when it is asked for again.
    ///
    /// # Errors
    /// When it was given something else than listening sockets in the file system.
    pub fn take() -> Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let descriptors = sd_notify::listen_fds().context("take the service manager's sockets")?;
        descriptors.map(|descriptor| Self::adopt(own(descriptor))).collect::<Result<_>>().map(Self)
    }

    fn adopt(socket: OwnedFd) -> Result<(PathBuf, UnixListener)> {
        let what = "the service manager passes a socket that the daemon can't use";
        if !sockopt::socket_acceptconn(&socket).context(what)? {
            bail!("{what}: it does not listen");
        }
        let listener = UnixListener::from(socket);
        let address = listener.local_addr().context(what)?;
        let Some(path) = address.as_pathname() else { bail!("{what}: it has no path") };
        Ok((path.to_owned(), listener))
    }

    /// Whether there is one for this place, and clients find it there.
    pub(super) fn has(&self, place: &Path) -> bool {
        self.0.iter().any(|(path, _)| path == place) && place.exists()
    }

    /// The one for this place, unless its file was removed.
    pub(super) fn remove(&mut self, place: &Path) -> Option<UnixListener> {
        let index = self.0.iter().position(|(path, _)| path == place)?;
        let (_, listener) = self.0.swap_remove(index);
        place.exists().then_some(listener)
    }

    /// Makes sure that all have been used.
    ///
    /// # Errors
    /// When one has not, which is named.
    pub(super) fn refuse_rest(self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((path, _)) => bail!(
                "the service manager passes a socket at {}, where the daemon is not told to listen: name it among \
                 `hosts`, or take it out of the socket unit",
                path.display()
            ),
        }
    }
}

/// Makes a descriptor that [`Inherited::take`] was told of its own.
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: `listen_fds` has found it open, the service manager opened it for this process and no other, and nothing
    // else here takes such descriptors: it happens once in a process.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[cfg(test)]
impl From<Vec<(PathBuf, UnixListener)>> for Inherited {
    fn from(sockets: Vec<(PathBuf, UnixListener)>) -> Self {
        Self(sockets)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::unix::net::{UnixDatagram, UnixStream},
    };

    use super::*;

    #[test]
    fn only_what_listens_in_the_file_system_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(Inherited::adopt(listener.into()).unwrap().0, path);
        let (stream, _other) = UnixStream::pair().unwrap();
        let (datagram, _other) = UnixDatagram::pair().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        for socket in [OwnedFd::from(stream), datagram.into(), tcp.into()] {
            let refused = Inherited::adopt(socket).unwrap_err();
            assert!(format!("{refused:#}").contains("can't use: "), "{refused:#}");
        }
    }

    #[test]
    fn one_whose_file_is_gone_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut inherited = Inherited::from(vec![(path.clone(), listener)]);
        assert!(inherited.has(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!inherited.has(&path));
        assert!(inherited.remove(&path).is_none());
        inherited.refuse_rest().unwrap();
    }
}
