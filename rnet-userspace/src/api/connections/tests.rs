//! Clients that are slow, many or large, on a clock that runs ahead while everybody waits.

use axum::{
    body::Body,
    routing::{get, post},
};
use bytes::Bytes;
use futures::stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(20);

/// What is asked in these tests.
fn router() -> Router {
    let answer = async |body: axum::extract::Request| match axum::body::to_bytes(body.into_body(), 1000).await
    {
        Ok(body) => format!("{} bytes", body.len()).into_response(),
        Err(e) => {
            let (status, message) = refusal(&e, 1000);
            ApiError::new(status, message).into_response()
        }
    };
    // One event an hour.
    let events = async || {
        let hours = stream::unfold(0, async |hour| {
            time::sleep(HOUR).await;
            (hour < 3).then(|| (Ok::<_, Infallible>(Bytes::from(format!("hour {hour}\n"))), hour + 1))
        });
        Body::from_stream(hours)
    };
    Router::new().route("/", get(async || "hello").post(answer)).route("/events", get(events)).route(
        "/slow",
        post(async || {
            time::sleep(HOUR).await;
            "done"
        }),
    )
}

/// A connection to it, and its end.
fn connection() -> (DuplexStream, JoinHandle<()>, watch::Sender<bool>) {
    let (ours, theirs) = duplex(1 << 20);
    let end = watch::Sender::new(false);
    let told = end.subscribe();
    let connections = Connections::new(Limits::new(100));
    let served = tokio::spawn(async move { connections.converse(theirs, router(), told).await });
    (ours, served, end)
}

/// Everything that still comes.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn who_does_not_ask_in_time_is_sent_away() {
    let (mut stream, served, _end) = connection();
    let begun = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nx: " {
        stream.write_all(&[*byte]).await.unwrap();
        time::sleep(Duration::from_secs(1)).await;
    }
    served.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 30, "each byte does not begin the time anew");
    assert_eq!(rest(stream).await, "");

    let (stream, served, _end) = connection();
    served.await.unwrap();
    assert_eq!(rest(stream).await, "", "nor who says nothing");
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_be_silent_for_as_long_as_it_likes() {
    let (mut stream, _served, _end) = connection();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(stream).await;
    assert!(answer.contains("hour 0") && answer.contains("hour 2"), "{answer}");

    let (mut stream, _served, _end) = connection();
    stream.write_all(b"POST /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.ends_with("\r\n\r\ndone"));
}

#[tokio::test(start_paused = true)]
async fn a_body_has_to_come_in_time() {
    let (mut stream, served, _end) = connection();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n").await.unwrap();
    let writing = tokio::spawn(async move {
        // A byte now and then does not help.
        while stream.write_all(b"x").await.is_ok() {
            time::sleep(Duration::from_secs(5)).await;
            if served.is_finished() {
                break;
            }
        }
        rest(stream).await
    });
    let answer = writing.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.ends_with(r#"{"message":"the request's body has not come within 60 s"}"#), "{answer}");

    let (mut stream, _served, _end) = connection();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..10 {
        time::sleep(Duration::from_secs(5)).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(rest(stream).await.ends_with("10 bytes"));
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let large = format!("{:x}\r\n{}\r\n", 1001, "x".repeat(1001));
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 1001\r\n\r\n".to_owned()
                + &"x".repeat(1001),
            "413",
        ),
        (format!("POST / HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{large}"), "413"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(HEAD)), "431"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)), "431"),
    ] {
        let (mut stream, _served, _end) = connection();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = time::timeout(LIMIT, rest(stream)).await;
        let answer = answer.unwrap_or_else(|_| panic!("it goes on after {}", &request[..60]));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let told = answer.contains(r#"{"message":"request body is larger than 1000 bytes"}"#);
        assert_eq!(told, status == "413", "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_work_and_for_nobody_who_is_slow_to_ask() {
    let (mut stream, served, end) = connection();
    stream.write_all(b"GET / HT").await.unwrap();
    time::sleep(Duration::from_secs(1)).await;
    end.send_replace(true);
    let begun = Instant::now();
    served.await.unwrap();
    assert!(begun.elapsed() <= LINGER);

    let (mut stream, served, end) = connection();
    stream.write_all(b"POST /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    time::sleep(Duration::from_secs(1)).await;
    end.send_replace(true);
    served.await.unwrap();
    assert!(rest(stream).await.ends_with("\r\n\r\ndone"));
}

/// A socket that is served within `limits`, by which every client is one of others, not root.
struct Site {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    connections: Arc<Connections>,
    end: watch::Sender<bool>,
    served: JoinHandle<()>,
}

impl Site {
    fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let connections = Connections::new(limits);
        let end = watch::Sender::new(false);
        let served = Arc::clone(&connections).serve(Door::Unix(listener), router(), end.subscribe());
        Self { _dir: dir, path, connections, end, served: tokio::spawn(served) }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    async fn ask(&self) -> String {
        let mut stream = self.connect().await;
        stream.write_all(ASK).await.unwrap();
        time::timeout(LIMIT, rest(stream)).await.unwrap()
    }

    async fn has_open(&self, many: usize) {
        let wait = async {
            while self.connections.open() != many {
                time::sleep(Duration::from_millis(2)).await;
            }
        };
        time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{} are open", self.connections.open()));
    }
}

#[tokio::test]
async fn who_has_too_many_connections_is_told_so_until_one_is_gone() {
    // The test's own user is one of them, whoever it is.
    let site = Site::start(Limits { of_root: 3, of_others: 5, of_one: 3, ..Limits::new(100) });
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = site.connect().await;
        stream.write_all(b"GET / HT").await.unwrap();
        held.push(stream);
    }
    site.has_open(3).await;
    for refused in 1..=2 {
        let answer = site.ask().await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
        assert!(answer.contains(r#"{"message":"too many connections to the API: "#), "{answer}");
        assert!(answer.contains("has 3, which is the most for one"), "{answer}");
        assert_eq!(site.connections.refused(), refused);
    }
    // What is held is as good as before.
    let mut first = held.remove(0);
    first.write_all(b"TP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(time::timeout(LIMIT, rest(first)).await.unwrap().ends_with("hello"));
    site.has_open(2).await;
    assert!(site.ask().await.ends_with("hello"));
    site.end.send_replace(true);
    time::timeout(LIMIT, site.served).await.unwrap().unwrap();
    assert_eq!(site.connections.open(), 0);
}

#[tokio::test]
async fn neither_one_user_nor_all_of_them_shut_root_out() {
    let connections = Connections::new(Limits::new(16));
    let take = |peer| connections.share(peer);
    let of = |id, many: usize| (0..many).map(|_| take(Peer::user(id)).unwrap()).collect::<Vec<_>>();
    let held: Vec<_> = (1..=4).map(|id| of(id, 2)).collect();
    assert_eq!(
        take(Peer::user(1)).unwrap_err(),
        "too many connections to the API: user 1 has 2, which is the most for one"
    );
    assert_eq!(
        take(Peer::user(5)).unwrap_err(),
        "too many connections to the API: there are 8, which is the most"
    );
    let host = Peer::host([192, 0, 2, 1].into());
    assert!(take(host).is_err());
    let root = of(0, 8);
    assert!(take(Peer::Root).is_err(), "in all there are 16");
    assert_eq!(connections.open(), 16);
    drop((held, root));
    assert!(take(host).is_ok());
    assert_eq!(connections.open(), 0);
}
