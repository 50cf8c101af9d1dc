//! How soon a daemon answers.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use testbed::Rnet;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is tried.
const TRY: Duration = Duration::from_micros(500);
/// How long an answer may take once the socket is there.
const ANSWER: Duration = Duration::from_secs(30);

/// Starts the daemon, and returns the seconds from then until its socket answered a request.
///
/// # Errors
/// When it does not answer.
pub(super) fn start(rnet: &Rnet<'_>) -> Result<f64> {
    let socket = rnet.socket();
    let since = Instant::now();
    thread::scope(|scope| {
        let answered = scope.spawn(|| first_answer(&socket, since));
        rnet.start_daemon();
        answered.join().map_err(|_| anyhow!("waiting for the daemon's answer panicked"))?
    })
}

/// Seconds since then until whoever listens at the socket answers.
fn first_answer(socket: &Path, since: Instant) -> Result<f64> {
    while since.elapsed() < LIMIT {
        // It is not there yet, or is left from the last daemon.
        let Ok(stream) = UnixStream::connect(socket) else {
            thread::sleep(TRY);
            continue;
        };
        ask(stream).with_context(|| format!("ask the daemon at {}", socket.display()))?;
        return Ok(since.elapsed().as_secs_f64());
    }
    bail!("no daemon answers at {} within {LIMIT:?}", socket.display())
}

fn ask(mut stream: UnixStream) -> Result<()> {
    const OK: &[u8] = b"HTTP/1.1 200 ";
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: rnet\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; OK.len()];
    stream.read_exact(&mut status)?;
    if status != *OK {
        bail!("it answers `{}`", String::from_utf8_lossy(&status));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Seconds until a request was answered as told, after connections were refused for a while; or why not.
    fn answered_with(answer: &'static [u8]) -> (Option<f64>, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        // What a daemon that was killed leaves.
        drop(UnixListener::bind(&socket).unwrap());
        let first = thread::scope(|scope| {
            let asked = scope.spawn(|| first_answer(&socket, Instant::now()));
            thread::sleep(Duration::from_millis(20));
            std::fs::remove_file(&socket).unwrap();
            let (mut stream, _) = UnixListener::bind(&socket).unwrap().accept().unwrap();
            let mut request = [0; 64];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /_ping HTTP/1.1\r\n"));
            stream.write_all(answer).unwrap();
            drop(stream);
            asked.join().unwrap()
        });
        first.map_or_else(|error| (None, format!("{error:#}")), |seconds| (Some(seconds), String::new()))
    }

    #[test]
    fn an_answer_is_waited_for_past_a_socket_that_nobody_listens_at() {
        let (seconds, _) = answered_with(b"HTTP/1.1 200 OK\r\n\r\nOK");
        assert!(seconds.unwrap() >= 0.02);
    }

    #[test]
    fn another_answer_is_an_error() {
        let (_, error) = answered_with(b"HTTP/1.1 500 Oh\r\n\r\n");
        assert!(error.ends_with("it answers `HTTP/1.1 500 `"), "{error}");
        assert_eq!(answered_with(b"").0, None);
    }
}
