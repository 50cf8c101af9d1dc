//! The client's end: one function a kind of workload.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, RawFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Latency, MESSAGE, Measured, Workload, epoll::Poll, server::kind};

/// How many of one workload's clients there are, where each is a thread.
const CONNECT_CLIENTS: usize = 8;
/// How long an answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a workload for `duration`.
///
/// # Errors
/// When it cannot begin, or nothing passes at all.
pub(super) fn run(workload: Workload, target: SocketAddr, duration: Duration) -> Result<Measured> {
    match workload {
        Workload::Stream | Workload::StreamNoTso => stream(target, 1, duration),
        Workload::Stream4 => stream(target, 4, duration),
        Workload::RequestResponse => request_response(target, 1, duration),
        Workload::RequestResponse16 => request_response(target, 16, duration),
        Workload::Connect => connect(target, duration),
        Workload::Udp => datagrams(target, duration, true),
        Workload::UdpFresh => datagrams(target, duration, false),
    }
}

fn open(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends as much as passes; counts what the server says has arrived.
fn stream(target: SocketAddr, flows: usize, duration: Duration) -> Result<Measured> {
    let streams: Vec<_> = (0..flows).map(|_| open(target)).collect::<Result<_, _>>().context("connect")?;
    for stream in &streams {
        // What BBR makes of a path depends on its pacing timers. A kernel without CUBIC has its own default.
        let _ = socket2::SockRef::from(stream).set_tcp_congestion(b"cubic");
    }
    let started = Instant::now();
    let threads: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || -> io::Result<(u64, Duration)> {
                let chunk = vec![kind::STREAM; 128 << 10];
                while started.elapsed() < duration {
                    stream.write_all(&chunk)?;
                }
                stream.shutdown(Shutdown::Write)?;
                let mut total = [0; 8];
                stream.read_exact(&mut total)?;
                Ok((u64::from_be_bytes(total), started.elapsed()))
            })
        })
        .collect();
    let (mut bytes, mut longest) = (0, Duration::ZERO);
    for thread in threads {
        let (arrived, took) = thread.join().map_err(|_| io::Error::other("a client panicked"))??;
        bytes += arrived;
        longest = longest.max(took);
    }
    // Lossless: far below 2^53.
    Ok(Measured {
        units: bytes as f64 * 8.0 / 1e9,
        seconds: longest.as_secs_f64(),
        latency: None,
        failures: 0,
    })
}

struct Asked {
    stream: TcpStream,
    since: Instant,
    /// Bytes of the answer that have come.
    came: usize,
}

/// One request at a time on each connection.
fn request_response(target: SocketAddr, connections: usize, duration: Duration) -> Result<Measured> {
    let mut poll = Poll::new().context("make an epoll instance")?;
    let mut asked: HashMap<RawFd, Asked> = HashMap::new();
    for _ in 0..connections {
        let mut stream = open(target).context("connect")?;
        stream.set_nonblocking(true).context("make a connection non-blocking")?;
        poll.add(&stream).context("wait for answers")?;
        let since = Instant::now();
        stream.write_all(&[kind::REQUEST; MESSAGE]).context("ask")?;
        asked.insert(stream.as_raw_fd(), Asked { stream, since, came: 0 });
    }
    let (mut samples, mut buffer) = (Vec::with_capacity(1 << 20), [0; MESSAGE]);
    let started = Instant::now();
    while started.elapsed() < duration {
        let ready: Vec<RawFd> = poll.wait(3000).context("wait")?.collect();
        ensure!(!ready.is_empty(), "no answer within 3 s");
        for fd in ready {
            let Some(connection) = asked.get_mut(&fd) else { continue };
            let length = connection.stream.read(&mut buffer).context("read an answer")?;
            ensure!(length > 0, "the server closed the connection");
            connection.came += length;
            if connection.came < MESSAGE {
                continue;
            }
            let now = Instant::now();
            samples.push(nanos(now - connection.since));
            (connection.since, connection.came) = (now, 0);
            connection.stream.write_all(&[kind::REQUEST; MESSAGE]).context("ask")?;
        }
    }
    Ok(of_samples(samples, started.elapsed(), 0))
}

/// Connects, asks, is answered, and sees the server close, so that no port of the client waits for old segments.
fn connect(target: SocketAddr, duration: Duration) -> Result<Measured> {
    let started = Instant::now();
    let clients: Vec<_> = (0..CONNECT_CLIENTS)
        .map(|_| {
            thread::spawn(move || {
                let (mut samples, mut failures) = (Vec::with_capacity(1 << 17), 0);
                while started.elapsed() < duration {
                    let since = Instant::now();
                    match ask_once(target) {
                        Ok(()) => samples.push(nanos(since.elapsed())),
                        Err(_) => failures += 1,
                    }
                }
                (samples, failures)
            })
        })
        .collect();
    let (mut samples, mut failures) = (Vec::new(), 0);
    for client in clients {
        let (more, failed) = client.join().map_err(|_| io::Error::other("a client panicked"))?;
        samples.extend(more);
        failures += failed;
    }
    ensure!(!samples.is_empty(), "none of {failures} connections was answered");
    Ok(of_samples(samples, started.elapsed(), failures))
}

fn ask_once(target: SocketAddr) -> io::Result<()> {
    let mut stream = open(target)?;
    stream.write_all(&[kind::ONE_REQUEST; MESSAGE])?;
    let mut answer = [0; MESSAGE + 1];
    let mut came = 0;
    loop {
        match stream.read(&mut answer[came..])? {
            0 if came == MESSAGE => return Ok(()),
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => came += length,
        }
    }
}

/// Sends datagrams as fast as they go.
fn datagrams(target: SocketAddr, duration: Duration, answered_first: bool) -> Result<Measured> {
    let any = match target {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).context("make a socket")?;
    socket.connect(target).context("choose the peer")?;
    if answered_first {
        socket.set_read_timeout(Some(PATIENCE)).context("limit the wait")?;
        socket.send(&[kind::ECHO; MESSAGE]).context("send the first datagram")?;
        socket.recv(&mut [0; MESSAGE]).context("wait for the answer to the first datagram")?;
    }
    let (mut sent, mut failures) = (0_u64, 0);
    let started = Instant::now();
    while started.elapsed() < duration {
        for _ in 0..64 {
            match socket.send(&[kind::DATAGRAM; MESSAGE]) {
                Ok(_) => sent += 1,
                Err(_) => failures += 1,
            }
        }
    }
    Ok(Measured { units: sent as f64, seconds: started.elapsed().as_secs_f64(), latency: None, failures })
}

fn of_samples(samples: Vec<u64>, took: Duration, failures: u64) -> Measured {
    Measured {
        units: samples.len() as f64,
        seconds: took.as_secs_f64(),
        latency: Latency::of(samples),
        failures,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
