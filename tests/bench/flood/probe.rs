//! Traffic that should not notice the flood: slow enough to leave the machine room, and each packet timed.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use testbed::Stop;

use crate::load::{MESSAGE, kind};

/// How long an answer may take. A segment that is lost is repeated after 200 ms, and a lost SYN after a second.
const PATIENCE: Duration = Duration::from_millis(900);
/// How often the established connection asks, and a datagram is sent.
const ESTABLISHED_EVERY: Duration = Duration::from_millis(1);
/// How often each of the threads that make new connections begins one.
const CONNECT_EVERY: Duration = Duration::from_millis(20);

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Probe {
    /// Requests on a connection that was there before.
    Established,
    /// Datagrams of a flow that was there before.
    Datagrams,
    /// New connections to another published port than the flooded one.
    NewConnections,
}

impl Probe {
    pub(super) const ALL: [Self; 3] = [Self::Established, Self::Datagrams, Self::NewConnections];

    /// For tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Established => "established, requests",
            Self::Datagrams => "udp flow, answers",
            Self::NewConnections => "new connections",
        }
    }

    /// How many threads of it there are.
    pub(super) fn threads(self) -> usize {
        match self {
            Self::Established | Self::Datagrams => 1,
            Self::NewConnections => 4,
        }
    }

    /// Goes on until it is told to stop.
    ///
    /// # Errors
    /// When it cannot begin.
    pub(super) fn run(self, target: SocketAddr, started: Instant, stop: &Stop) -> Result<Vec<Event>> {
        match self {
            Self::Established => ask(target, started, stop),
            Self::Datagrams => echo(target, started, stop),
            Self::NewConnections => Ok(connect(target, started, stop)),
        }
    }
}

/// An attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// When it was made, after the start.
    pub(super) at: Duration,
    /// How long its answer took; absent when none came.
    pub(super) answered: Option<Duration>,
}

/// What came of the attempts of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Phase {
    pub(super) attempts: usize,
    pub(super) answered: usize,
    pub(super) answered_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Phase {
    /// Of the attempts that were made from `from` on and before `to`.
    pub(super) fn of(events: &[Event], from: Duration, to: Duration) -> Self {
        let within: Vec<&Event> = events.iter().filter(|event| (from..to).contains(&event.at)).collect();
        let mut waits: Vec<Duration> = within.iter().filter_map(|event| event.answered).collect();
        waits.sort_unstable();
        let at = |share: usize| {
            let index = (waits.len() * share / 100).min(waits.len().saturating_sub(1));
            waits.get(index).map_or(0.0, |wait| wait.as_secs_f64() * 1e6)
        };
        Self {
            attempts: within.len(),
            answered: waits.len(),
            // Exact: far below 2^53.
            answered_per_second: waits.len() as f64 / (to - from).as_secs_f64(),
            p50_us: at(50),
            p99_us: at(99),
        }
    }
}

/// Sleeps until the next attempt is due. One that is late is not made up for.
fn pace(next: &mut Instant, every: Duration) {
    *next += every;
    let now = Instant::now();
    match next.checked_duration_since(now) {
        Some(wait) => thread::sleep(wait),
        None => *next = now,
    }
}

fn ask(target: SocketAddr, started: Instant, stop: &Stop) -> Result<Vec<Event>> {
    let mut stream = TcpStream::connect(target).context("connect before the flood")?;
    stream.set_nodelay(true).context("send at once")?;
    stream.set_read_timeout(Some(PATIENCE)).context("limit the wait")?;
    let (mut events, mut next) = (Vec::new(), Instant::now());
    while !stop.requested() {
        let began = Instant::now();
        let mut answer = [0; MESSAGE];
        let outcome =
            stream.write_all(&[kind::REQUEST; MESSAGE]).and_then(|()| stream.read_exact(&mut answer));
        let answered = outcome.is_ok().then(|| began.elapsed());
        events.push(Event { at: began - started, answered });
        pace(&mut next, ESTABLISHED_EVERY);
    }
    Ok(events)
}

fn echo(target: SocketAddr, started: Instant, stop: &Stop) -> Result<Vec<Event>> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("make a socket")?;
    socket.connect(target).context("choose the peer")?;
    socket.set_read_timeout(Some(Duration::from_millis(100))).context("limit the wait")?;
    let (mut events, mut next) = (Vec::new(), Instant::now());
    while !stop.requested() {
        let began = Instant::now();
        let sent = socket.send(&[kind::ECHO; MESSAGE]);
        let answered = sent.and_then(|_| socket.recv(&mut [0; MESSAGE])).is_ok().then(|| began.elapsed());
        events.push(Event { at: began - started, answered });
        if answered.is_none() {
            // A late answer is none to the next datagram.
            socket.set_nonblocking(true).context("look for late answers")?;
            while socket.recv(&mut [0; MESSAGE]).is_ok() {}
            socket.set_nonblocking(false).context("wait for answers")?;
        }
        pace(&mut next, ESTABLISHED_EVERY);
    }
    Ok(events)
}

fn connect(target: SocketAddr, started: Instant, stop: &Stop) -> Vec<Event> {
    let (mut events, mut next) = (Vec::new(), Instant::now());
    while !stop.requested() {
        let began = Instant::now();
        let answered = connect_once(target).is_ok().then(|| began.elapsed());
        events.push(Event { at: began - started, answered });
        pace(&mut next, CONNECT_EVERY);
    }
    events
}

fn connect_once(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[kind::ONE_REQUEST; MESSAGE])?;
    stream.read_exact(&mut [0; MESSAGE])?;
    // The server closes first, so that no port of the client waits for old segments.
    match stream.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_belong_to_the_phase_that_they_were_made_in() {
        let event = |at, answered: Option<u64>| Event {
            at: Duration::from_millis(at),
            answered: answered.map(Duration::from_micros),
        };
        let events = [
            event(0, Some(100)),
            event(500, Some(300)),
            event(999, None),
            event(1000, None),
            event(1999, Some(50)),
            event(2000, Some(1)),
        ];
        let phase = |from| Phase::of(&events, Duration::from_secs(from), Duration::from_secs(from + 1));
        assert_eq!((phase(0).attempts, phase(0).answered, phase(0).p99_us), (3, 2, 300.0));
        assert_eq!((phase(1).attempts, phase(1).answered, phase(1).answered_per_second), (2, 1, 1.0));
        assert_eq!(phase(5), Phase::default());
    }
}
