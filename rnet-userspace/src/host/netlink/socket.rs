//! A netlink socket that tells what went wrong with it.
//!
//! The connection that drives requests ends with the first error of its socket, and tells only the log of it. Whoever
//! waits for an answer sees the end of the answers: a request that was never sent would look as one that succeeded, and a
//! list that broke off as a whole one. So the socket keeps the error, and [`super::Netlink::wait`] asks for it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{BufMut, BytesMut};
use rtnetlink::{
    packet_core::{NLM_F_DUMP_INTR, NLMSG_ALIGNTO, NLMSG_DONE, NetlinkBuffer},
    sys::{AsyncSocket, Socket as Raw, SocketAddr, TokioSocket},
};

/// What the connection reserves for a message, in bytes: the kernel makes none above 32 KiB.
const LARGEST: usize = 64 << 10;

/// A netlink socket.
pub(super) struct Socket {
    inner: TokioSocket,
    record: Record,
}

/// What became of a socket and of the last request on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Record(Arc<Mutex<Outcome>>);

#[derive(Debug, Default)]
struct Outcome {
    /// What the connection has ended with.
    broken: Option<Broken>,
    /// The error number of a list that the kernel could not finish.
    unfinished: Option<i32>,
    /// What was listed has changed meanwhile: something may be missing, or be there twice.
    is_inconsistent: bool,
}

#[derive(Debug)]
enum Broken {
    /// An error number of the kernel's.
    Number(i32),
    /// Words of the runtime's.
    Words(String),
}

impl From<&io::Error> for Broken {
    fn from(error: &io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Words(error.to_string()), Self::Number)
    }
}

impl Record {
    /// Begins another request.
    pub(super) fn begin(&self) {
        let mut outcome = self.outcome();
        outcome.unfinished = None;
        outcome.is_inconsistent = false;
    }

    /// Why the answer to the last request is none, or not all.
    pub(super) fn error(&self) -> Option<io::Error> {
        let outcome = self.outcome();
        match &outcome.broken {
            Some(Broken::Number(number)) => Some(io::Error::from_raw_os_error(*number)),
            Some(Broken::Words(words)) => Some(io::Error::other(words.clone())),
            None => outcome.unfinished.map(io::Error::from_raw_os_error),
        }
    }

    /// What the last request has listed changed meanwhile.
    pub(super) fn is_inconsistent(&self) -> bool {
        self.outcome().is_inconsistent
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        // Nothing that can panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a datagram, which holds whole messages.
    fn look(&self, mut datagram: &[u8]) {
        while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
            let mut outcome = self.outcome();
            outcome.is_inconsistent |= message.flags() & NLM_F_DUMP_INTR != 0;
            if message.message_type() == NLMSG_DONE {
                let code = message.payload().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if code < 0 {
                    outcome.unfinished = Some(code.saturating_neg());
                }
            }
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
            let next = length.checked_next_multiple_of(usize::from(NLMSG_ALIGNTO));
            datagram = next.and_then(|next| datagram.get(next..)).unwrap_or_default();
        }
    }

    /// Repeats what a signal has interrupted, and keeps what ends the connection.
    fn keep<T>(&self, mut step: impl FnMut() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        loop {
            return Poll::Ready(match ready!(step()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    self.outcome().broken = Some(Broken::from(&e));
                    // The connection takes ENOBUFS for one of its notifications being lost, and would wait for the answer
                    // for ever.
                    Err(io::Error::other(e))
                }
                done => done,
            });
        }
    }
}

impl Socket {
    /// Where it tells.
    pub(super) fn record(&self) -> Record {
        self.record.clone()
    }
}

impl AsyncSocket for Socket {
    fn socket_ref(&self) -> &Raw {
        self.inner.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Raw {
        self.inner.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        Ok(Self { inner: TokioSocket::new(protocol)?, record: Record::default() })
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.record.keep(|| self.inner.poll_send(cx, buf))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        self.record.keep(|| self.inner.poll_send_to(cx, buf, addr))
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buf).map_ok(drop)
    }

    fn poll_recv_from<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        let mut datagram = BytesMut::with_capacity(LARGEST);
        let received = ready!(self.record.keep(|| self.inner.poll_recv_from(cx, &mut datagram)));
        self.record.look(&datagram);
        buf.put_slice(&datagram);
        Poll::Ready(received)
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        let received = ready!(self.record.keep(|| self.inner.poll_recv_from_full(cx)));
        if let Ok((datagram, _)) = &received {
            self.record.look(datagram);
        }
        Poll::Ready(received)
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::NLM_F_MULTIPART;

    use super::*;

    const RTM_NEWLINK: u16 = 16;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn seen(messages: &[Vec<u8>]) -> Record {
        let record = Record::default();
        record.look(&messages.concat());
        record
    }

    #[test]
    fn a_whole_list_is_told_from_others() {
        let link = |flags| message(RTM_NEWLINK, NLM_F_MULTIPART | flags, &[0; 17]);
        let done = |code: i32| message(NLMSG_DONE, NLM_F_MULTIPART, &code.to_ne_bytes());
        let whole = seen(&[link(0), link(0), done(0)]);
        assert!(whole.error().is_none() && !whole.is_inconsistent());

        let changed = seen(&[link(0), link(NLM_F_DUMP_INTR), done(0)]);
        assert!(changed.error().is_none() && changed.is_inconsistent());

        let unfinished = seen(&[link(0), done(-libc::ENOMEM)]);
        assert_eq!(unfinished.error().unwrap().raw_os_error(), Some(libc::ENOMEM));
        unfinished.begin();
        assert!(unfinished.error().is_none());
    }

    #[test]
    fn what_breaks_a_socket_stays() {
        let record = Record::default();
        let mut errors =
            [libc::ENOBUFS, libc::EINTR].map(io::Error::from_raw_os_error).into_iter().collect::<Vec<_>>();
        let kept = record.keep(|| Poll::Ready(Err::<(), _>(errors.pop().unwrap())));
        assert!(matches!(kept, Poll::Ready(Err(e)) if e.raw_os_error().is_none()));
        record.begin();
        assert_eq!(record.error().unwrap().raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn anything_may_be_in_a_datagram() {
        for garbage in [&[][..], &[0; 15], &[0xff; 64], &[16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let record = Record::default();
            record.look(garbage);
            assert!(record.error().is_none());
        }
    }
}
