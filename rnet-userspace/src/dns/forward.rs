//! Questions that others answer, passed on as they came but for their id.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::answer::Transport;

/// How many servers are asked, as with Docker.
const SERVERS: usize = 3;
/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// Asks one server after the other, each of which may take so long, and returns the first answer, under the query's own id. A server that fails is as
/// good as one that is silent.
pub(super) async fn ask(
    servers: &[SocketAddr],
    query: &[u8],
    transport: Transport,
    limit: Duration,
) -> Option<Vec<u8>> {
    let asked = Message::from_vec(query).ok()?;
    let mut failed = None;
    for server in servers.iter().take(SERVERS) {
        // Nobody but the server is to be able to guess it (RFC 5452).
        let id: u16 = rand::random();
        let sent = with_id(query, id)?;
        let is_answer = |reply: &[u8]| is_answer(reply, id, &asked);
        let outcome = match transport {
            Transport::Udp => timeout(limit, by_udp(*server, &sent, is_answer)).await,
            Transport::Tcp => timeout(limit, by_tcp(*server, &sent, is_answer)).await,
        };
        match outcome {
            Ok(Ok(reply)) if is_failure(&reply) => failed = Some(reply),
            Ok(Ok(reply)) => return with_id(&reply, asked.metadata.id),
            Ok(Err(error)) => tracing::debug!(%server, "ask for a name: {error}"),
            Err(_) => tracing::debug!(%server, "ask for a name: no answer within {limit:?}"),
        }
    }
    // Better than silence.
    with_id(&failed?, asked.metadata.id)
}

/// Whether a server says no more than that it cannot or will not help.
pub(super) fn is_failure(reply: &[u8]) -> bool {
    Message::from_vec(reply).is_ok_and(|reply| {
        [ResponseCode::ServFail, ResponseCode::Refused].contains(&reply.metadata.response_code)
    })
}

/// From a port that the kernel chooses anew for every question.
async fn by_udp(server: SocketAddr, query: &[u8], is_answer: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let any =
        if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only what comes from the server is received.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if let Some(reply) = buffer.get(..len).filter(|reply| is_answer(reply)) {
            return Ok(reply.to_vec());
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &[u8], is_answer: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write(&mut stream, query).await?;
    let reply = read(&mut stream).await?;
    if is_answer(&reply) { Ok(reply) } else { Err(io::Error::other("the answer is to something else")) }
}

/// Reads a message with its length before it (RFC 1035 4.2.2).
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message, likewise.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    // At once, so that it is one segment.
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}

pub(super) fn is_answer(reply: &[u8], id: u16, asked: &Message) -> bool {
    let Ok(reply) = Message::from_vec(reply) else { return false };
    reply.metadata.id == id
        && reply.metadata.message_type == MessageType::Response
        && (reply.queries == asked.queries || reply.queries.is_empty())
}

/// The id is a message's first two bytes.
pub(super) fn with_id(message: &[u8], id: u16) -> Option<Vec<u8>> {
    Some([&id.to_be_bytes(), message.get(2..)?].concat())
}

#[cfg(test)]
mod tests {
    use std::{future::Future, net::UdpSocket as Blocking};

    use hickory_proto::{
        op::Query,
        rr::{Name, RecordType},
    };
    use tokio::net::TcpListener;

    use super::*;

    fn query() -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_utf8("example.org.").unwrap(), RecordType::A));
        query
    }

    /// The answer of an upstream to what it was asked.
    fn answered(asked: &[u8], change: impl Fn(&mut Message)) -> Vec<u8> {
        let mut reply = Message::from_vec(asked).unwrap().into_response();
        reply.metadata.response_code = ResponseCode::NXDomain;
        change(&mut reply);
        reply.to_vec().unwrap()
    }

    async fn upstream() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        (socket, addr)
    }

    async fn asked<T>(
        servers: &[SocketAddr],
        transport: Transport,
        serve: impl Future<Output = T>,
    ) -> (Option<Message>, T) {
        let query = query();
        let bytes = query.to_vec().unwrap();
        let (reply, served) = tokio::join!(ask(servers, &bytes, transport, Duration::from_secs(30)), serve);
        let reply = reply.map(|reply| Message::from_vec(&reply).unwrap());
        assert!(reply.iter().all(|reply| reply.metadata.id == query.metadata.id));
        (reply, served)
    }

    #[tokio::test]
    async fn only_what_answers_the_question_is_taken() {
        let (socket, addr) = upstream().await;
        let serve = async {
            let mut buffer = [0; 512];
            let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
            let question = &buffer[..len];
            let other = Query::query(Name::from_utf8("example.com.").unwrap(), RecordType::A);
            let wrong: [Vec<u8>; 4] = [
                answered(question, |reply| reply.metadata.id = reply.metadata.id.wrapping_add(1)),
                answered(question, |reply| reply.queries = vec![other.clone()]),
                question.to_vec(),
                vec![1, 2, 3],
            ];
            for wrong in wrong {
                socket.send_to(&wrong, client).await.unwrap();
            }
            // Somebody else's guess.
            Blocking::bind("127.0.0.1:0").unwrap().send_to(&answered(question, |_| {}), client).unwrap();
            socket
                .send_to(&answered(question, |reply| reply.metadata.authoritative = true), client)
                .await
                .unwrap();
        };
        let (reply, ()) = asked(&[addr], Transport::Udp, serve).await;
        let reply = reply.unwrap().metadata;
        assert!(reply.authoritative && reply.response_code == ResponseCode::NXDomain);
    }

    #[tokio::test]
    async fn the_next_is_asked_when_one_fails() {
        let gone = upstream().await.1;
        let (socket, addr) = upstream().await;
        let serve = async {
            let mut buffer = [0; 512];
            let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(&answered(&buffer[..len], |_| {}), client).await.unwrap();
        };
        let (reply, ()) = asked(&[gone, addr], Transport::Udp, serve).await;
        assert!(reply.is_some());
        let ((refusing, first), (helping, second)) = (upstream().await, upstream().await);
        let answer_with = async |socket: &UdpSocket, code| {
            let mut buffer = [0; 512];
            let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
            let reply = answered(&buffer[..len], |reply| reply.metadata.response_code = code);
            socket.send_to(&reply, client).await.unwrap();
        };
        let serve = async {
            answer_with(&refusing, ResponseCode::Refused).await;
            answer_with(&helping, ResponseCode::NoError).await;
        };
        let (reply, ()) = asked(&[first, second], Transport::Udp, serve).await;
        assert_eq!(reply.unwrap().metadata.response_code, ResponseCode::NoError);
        let serve = answer_with(&refusing, ResponseCode::ServFail);
        let (reply, ()) = asked(&[first], Transport::Udp, serve).await;
        assert_eq!(reply.unwrap().metadata.response_code, ResponseCode::ServFail);
        let (reply, ()) = asked(&[], Transport::Udp, async {}).await;
        assert_eq!(reply, None);
    }

    #[tokio::test]
    async fn a_silent_server_is_not_waited_for_for_ever() {
        let ((_silent, silent), (socket, addr)) = (upstream().await, upstream().await);
        let bytes = query().to_vec().unwrap();
        let serve = async {
            let mut buffer = [0; 512];
            let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(&answered(&buffer[..len], |_| {}), client).await.unwrap();
        };
        let servers = [silent, silent, addr];
        let (reply, ()) =
            tokio::join!(ask(&servers, &bytes, Transport::Udp, Duration::from_millis(300)), serve);
        assert!(reply.is_some());
        let four = [silent, silent, silent, addr];
        assert_eq!(
            ask(&four, &bytes, Transport::Udp, Duration::from_millis(20)).await,
            None,
            "three are asked"
        );
    }

    #[tokio::test]
    async fn what_came_by_tcp_is_asked_by_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let question = read(&mut stream).await.unwrap();
            write(&mut stream, &answered(&question, |_| {})).await.unwrap();
        };
        let (reply, ()) = asked(&[addr], Transport::Tcp, serve).await;
        assert!(reply.is_some());
    }
}
