//! Questions of containers, and answers of other servers.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType};

use super::{
    answer::{Decision, Transport, decide, failure},
    forward,
};
use crate::{
    controller::directory::testing::{container, directory, network},
    fuzzing::{Shape, Target},
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "dns-question", shape: Shape::Bytes, run: question, words: WORDS },
    Target { name: "dns-answer", shape: Shape::Bytes, run: answer, words: WORDS },
];
const WORDS: &[&str] = &[
    "\x03web\0",
    "\x03web\x02n1\0",
    "\x04many\0",
    "\x07in-addr\x04arpa\0",
    "\x03ip6\x04arpa\0",
    "\u{0}\u{1}",
    "\u{0}\u{c}",
    "\0\x1c\0\x01",
    "\0\x0c\0\x01",
    "\0\0\x29\x10\0",
    "\x012\x010\x011\x0210\x07in-addr\x04arpa\0",
];

/// RFC 9715 3.1: what a datagram never exceeds.
const DATAGRAM: usize = 1232;

fn question(query: &[u8]) {
    let many: Vec<_> = (0..60)
        .map(|n| container(&format!("c{n}"), &[("n1", &format!("10.1.0.{}/24", n + 100), &["many"])]))
        .chain([
            container("web", &[("n1", "10.1.0.2/24", &[]), ("n2", "10.2.0.2/24", &[])]),
            container("my_db", &[("n1", "10.1.0.3/24", &[])]),
            container("inside", &[("n2", "10.2.0.3/24", &[])]),
        ])
        .collect();
    let names = directory(&[network("n1", "10.1.0.1", false), network("n2", "10.2.0.1", true)], &many);
    for source in [[10, 1, 0, 100], [10, 2, 0, 3], [192, 0, 2, 1]].map(IpAddr::from) {
        for transport in [Transport::Udp, Transport::Tcp] {
            match decide(&names, source, query, transport) {
                Decision::Reply(reply) => check_reply(query, &reply, transport),
                Decision::Forward(_) => {
                    let client = names.client(source);
                    assert!(client.is_some_and(|client| client.leads_outside), "{source} leads nowhere");
                    assert!(Message::from_vec(query).is_ok(), "what is passed on is understood");
                }
                Decision::Ignore => {
                    assert!(query.len() < 12 || query[2] & 0x80 != 0, "a question is left unanswered");
                }
            }
        }
    }
    if let Some(reply) = failure(query, super::answer::SERVFAIL) {
        check_reply(query, &reply, Transport::Udp);
    }
}

fn check_reply(query: &[u8], reply: &[u8], transport: Transport) {
    assert_eq!(reply.get(..2), query.get(..2), "the id");
    let read = Message::from_vec(reply).unwrap_or_else(|e| panic!("an answer that is none: {e}"));
    assert_eq!(read.metadata.message_type, MessageType::Response);
    if transport == Transport::Udp {
        assert!(reply.len() <= DATAGRAM, "{} bytes by UDP", reply.len());
    }
    if let (Ok(asked), false) = (Message::from_vec(query), read.queries.is_empty()) {
        assert_eq!(read.queries, asked.queries);
    }
}

/// The first byte says how long the question is.
fn answer(input: &[u8]) {
    let Some((length, rest)) = input.split_first() else { return };
    let (query, reply) = rest.split_at(rest.len().min(usize::from(*length)));
    let changed = forward::with_id(reply, 0x1234);
    assert_eq!(changed.as_ref().map(Vec::len), (reply.len() >= 2).then_some(reply.len()));
    if let Some(changed) = changed {
        assert_eq!((&changed[..2], &changed[2..]), (&[0x12, 0x34][..], &reply[2..]));
    }
    let is_failure = forward::is_failure(reply);
    let Ok(asked) = Message::from_vec(query) else { return };
    let id = asked.metadata.id;
    if forward::is_answer(reply, id, &asked) {
        let read = Message::from_vec(reply);
        assert!(read.is_ok_and(|read| read.metadata.message_type == MessageType::Response));
        assert!(
            !forward::is_answer(reply, id.wrapping_add(1), &asked),
            "the id is all that nobody can guess"
        );
        assert_eq!(forward::is_failure(reply), is_failure);
        assert!(!forward::is_answer(query, id, &asked) || query[2] & 0x80 != 0, "a question is no answer");
    }
}
