//! What becomes of a query, from its bytes alone and from who asks.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata},
};
use rand::seq::SliceRandom as _;

use crate::controller::Directory;

/// How long an answer may be kept, in seconds: Docker's.
const TTL: u32 = 600;
/// What is answered by UDP at most, in bytes, whatever the client takes: no fragments (RFC 9715 3.1).
const UDP_LIMIT: u16 = 1232;
/// Length of a message's header, in bytes (RFC 1035 4.1.1).
const HEADER: usize = 12;

/// The server cannot help for now.
pub(super) const SERVFAIL: ResponseCode = ResponseCode::ServFail;
/// The server will not.
pub(super) const REFUSED: ResponseCode = ResponseCode::Refused;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What is to become of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// This is the answer.
    Reply(Vec<u8>),
    /// One of these is to be asked; of none, one of the host's.
    Forward(Vec<IpAddr>),
    /// It is no query.
    Ignore,
}

/// Decides on a query from `source`.
pub(super) fn decide(directory: &Directory, source: IpAddr, query: &[u8], transport: Transport) -> Decision {
    let reply = |code| failure(query, code).map_or(Decision::Ignore, Decision::Reply);
    // QR of RFC 1035 4.1.1: an answer is never answered, however it is formed.
    if query.get(2).is_none_or(|flags| flags & 0x80 != 0) {
        return Decision::Ignore;
    }
    let Some(message) = parse(query) else { return reply(ResponseCode::FormErr) };
    let Some(client) = directory.client(source) else { return reply(REFUSED) };
    if message.metadata.op_code != OpCode::Query {
        return reply(ResponseCode::NotImp);
    }
    let [question] = message.queries.as_slice() else { return reply(ResponseCode::FormErr) };
    if message.version() > 0 {
        return reply(ResponseCode::BADVERS);
    }
    let is_internet = question.query_class() == DNSClass::IN;
    let records =
        is_internet.then(|| known(directory, source, question.name(), question.query_type())).flatten();
    match records {
        Some(records) => {
            encode(&message, records, transport).map_or_else(|| reply(SERVFAIL), Decision::Reply)
        }
        None if client.leads_outside => Decision::Forward(client.servers),
        None => reply(SERVFAIL),
    }
}

/// An answer that says only that there is none. Nothing for what is too short to be answered.
pub(super) fn failure(query: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    if let Some(message) = parse(query) {
        let mut response = respond(&message);
        response.metadata.response_code = code;
        return response.to_vec().ok();
    }
    let id = query.get(..HEADER)?.first_chunk().map(|id| u16::from_be_bytes(*id))?;
    Message::error_msg(id, OpCode::Query, code).to_vec().ok()
}

/// A query that asks one thing. What else it claims to have is not made room for.
fn parse(query: &[u8]) -> Option<Message> {
    let questions = query.get(4..6)?;
    if questions == [0, 1] { Message::from_vec(query).ok() } else { None }
}

/// The records of a name that `source` knows: none at all where it has none of this type, which nobody else is to be
/// asked for.
fn known(directory: &Directory, source: IpAddr, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
    if kind == RecordType::PTR
        && let Ok(net) = name.parse_arpa_name()
        && net.prefix_len() == net.max_prefix_len()
    {
        let target = directory.name_of(source, net.addr())?;
        // What cannot be written as a name is nobody else's to know either. Underscores are no letters of a host's
        // name, and can be in a container's.
        let Ok(mut target) = Name::from_labels(target.split('.').map(str::as_bytes)) else {
            return Some(Vec::new());
        };
        target.set_fqdn(true);
        return Some(vec![Record::from_rdata(name.clone(), TTL, RData::PTR(rdata::PTR(target)))]);
    }
    let mut addrs = directory.find(source, &name.to_utf8())?;
    addrs.shuffle(&mut rand::rng());
    let data = addrs.into_iter().map(|addr| match addr {
        IpAddr::V4(addr) => RData::A(addr.into()),
        IpAddr::V6(addr) => RData::AAAA(addr.into()),
    });
    let wanted = data.filter(|data| kind == RecordType::ANY || data.record_type() == kind);
    Some(wanted.map(|data| Record::from_rdata(name.clone(), TTL, data)).collect())
}

fn encode(query: &Message, records: Vec<Record>, transport: Transport) -> Option<Vec<u8>> {
    let mut response = respond(query);
    response.add_answers(records);
    let bytes = response.to_vec().ok()?;
    let limit = usize::from(query.max_payload().min(UDP_LIMIT));
    if transport == Transport::Udp && bytes.len() > limit {
        return response.truncate().to_vec().ok();
    }
    Some(bytes)
}

fn respond(query: &Message) -> Message {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.recursion_available = true;
    response.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT);
        response.set_edns(edns);
    }
    response
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, Query};

    use super::*;
    use crate::controller::directory::testing::{container, directory, network};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// `n1` leads outside, `n2` does not; `web` is on both.
    fn names() -> Directory {
        let containers: Vec<_> = (0..60)
            .map(|n| container(&format!("c{n}"), &[("n1", &format!("10.1.0.{}/24", n + 100), &["many"])]))
            .chain([
                container("web", &[("n1", "10.1.0.2/24", &[]), ("n2", "10.2.0.2/24", &[])]),
                container("my_db", &[("n1", "10.1.0.3/24", &[])]),
                container("inside", &[("n2", "10.2.0.3/24", &[])]),
            ])
            .collect();
        directory(&[network("n1", "10.1.0.1", false), network("n2", "10.2.0.1", true)], &containers)
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
        query
    }

    fn asked_by(source: &str, query: &Message, transport: Transport) -> Decision {
        decide(&names(), ip(source), &query.to_vec().unwrap(), transport)
    }

    fn reply(source: &str, query: &Message) -> Message {
        let Decision::Reply(bytes) = asked_by(source, query, Transport::Udp) else { panic!("no reply") };
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.id, query.metadata.id);
        assert_eq!(reply.queries, query.queries);
        assert!(reply.metadata.recursion_available && reply.metadata.message_type == MessageType::Response);
        reply
    }

    #[test]
    fn a_name_is_answered_with_its_addresses() {
        let asked = query("WEB.", RecordType::A);
        let answered = reply("10.1.0.100", &asked);
        let [record] = answered.answers.as_slice() else { panic!("{answered:?}") };
        assert_eq!(
            (record.ttl, record.data.clone()),
            (600, RData::A(std::net::Ipv4Addr::new(10, 1, 0, 2).into()))
        );
        assert_eq!(record.name, asked.queries[0].name, "as it was asked for");
        assert!(answered.edns.is_none());
    }

    #[test]
    fn a_name_without_such_an_address_is_nobody_elses_to_answer() {
        for kind in [RecordType::AAAA, RecordType::MX] {
            let answered = reply("10.1.0.100", &query("web.", kind));
            assert_eq!(answered.metadata.response_code, ResponseCode::NoError);
            assert!(answered.answers.is_empty());
        }
    }

    #[test]
    fn an_address_is_answered_with_its_name() {
        let answered = reply("10.1.0.100", &query("2.0.1.10.in-addr.arpa.", RecordType::PTR));
        let [record] = answered.answers.as_slice() else { panic!("{answered:?}") };
        assert_eq!(record.data, RData::PTR(rdata::PTR(Name::from_utf8("web.n1.").unwrap())));
        let answered = reply("10.1.0.100", &query("3.0.1.10.in-addr.arpa.", RecordType::PTR));
        assert_eq!(answered.answers[0].data.to_string(), "my_db.n1.");
        let unknown = query("1.1.1.1.in-addr.arpa.", RecordType::PTR);
        assert_eq!(asked_by("10.1.0.100", &unknown, Transport::Udp), Decision::Forward(Vec::new()));
    }

    #[test]
    fn the_rest_is_forwarded_where_a_network_leads_outside() {
        let rest = query("example.org.", RecordType::A);
        assert_eq!(asked_by("10.1.0.2", &rest, Transport::Udp), Decision::Forward(Vec::new()));
        assert_eq!(asked_by("10.2.0.2", &rest, Transport::Udp), Decision::Forward(Vec::new()));
        assert_eq!(reply("10.2.0.3", &rest).metadata.response_code, SERVFAIL);
        assert_eq!(reply("192.0.2.1", &rest).metadata.response_code, REFUSED);
    }

    #[test]
    fn what_is_too_long_for_a_datagram_is_truncated() {
        let asked = query("many.", RecordType::A);
        let answered = reply("10.1.0.100", &asked);
        assert!(answered.metadata.truncation && answered.answers.is_empty());
        let Decision::Reply(bytes) = asked_by("10.1.0.100", &asked, Transport::Tcp) else {
            panic!("no reply")
        };
        assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 60);
        let mut asked = asked;
        asked.set_edns(Edns::new().set_max_payload(4096).clone());
        let answered = reply("10.1.0.100", &asked);
        assert!(!answered.metadata.truncation && answered.answers.len() == 60);
        assert_eq!(answered.edns.unwrap().max_payload(), UDP_LIMIT);
    }

    #[test]
    fn what_cannot_be_answered_is_told_so() {
        let code = |message: &Message| reply("10.1.0.100", message).metadata.response_code;
        let mut update = query("web.", RecordType::A);
        update.metadata.op_code = OpCode::Status;
        assert_eq!(code(&update), ResponseCode::NotImp);
        let mut newer = query("web.", RecordType::A);
        newer.set_edns(Edns::new().set_version(1).clone());
        // BADSIG has the same number.
        assert_eq!(u16::from(code(&newer)), u16::from(ResponseCode::BADVERS));

        let bytes = query("web.", RecordType::A).to_vec().unwrap();
        let mut many = bytes.clone();
        many[4..6].fill(0xff);
        for malformed in [&bytes[..20], &many] {
            let decision = decide(&names(), ip("10.1.0.100"), malformed, Transport::Udp);
            let Decision::Reply(answered) = decision else { panic!("no reply") };
            let answered = Message::from_vec(&answered).unwrap();
            assert_eq!(answered.metadata.response_code, ResponseCode::FormErr);
        }
        many[2] |= 0x80;
        assert_eq!(decide(&names(), ip("10.1.0.100"), &many, Transport::Udp), Decision::Ignore);
        assert_eq!(decide(&names(), ip("10.1.0.100"), &bytes[..11], Transport::Udp), Decision::Ignore);
        let response = query("web.", RecordType::A).into_response();
        assert_eq!(asked_by("10.1.0.100", &response, Transport::Udp), Decision::Ignore);
    }
}
