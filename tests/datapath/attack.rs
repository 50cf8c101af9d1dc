//! Forged packets: what they open, end or change, and the honest ones next to them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::TcpHeader;
use rnet_common::{EndpointFlags, Flow, Ip4, Reason, Side, flow::seen};
use testbed::packet::Ethernet;

use crate::{
    fragments::fragments,
    frames::{Kind, Way, finish_header, frame},
    frames6::{Kind6, Way6, frame6},
    lab::{APP, CLIENT, CLIENT6, From, GATEWAY, GATEWAY6, HOST, HOST6, Lab, OTHER, SHOT, UNSPEC, WEB, tuple},
};

/// Of a connection in the middle of a stream: far from 0, and from where a blind guess would begin.
const ACKNOWLEDGED: u32 = 0x1234_0000;

/// A connection from outside to a published port that is established.
struct Live {
    lab: Lab,
    inward: Way,
    outward: Way,
}

impl Live {
    fn new() -> Self {
        let mut lab = Lab::new();
        lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
        let inward = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
        let outward = Way { link: lab.web.to_gateway(), src: (WEB, 80), dst: (CLIENT, 40_000) };
        let mut live = Self { lab, inward, outward };
        live.inward(&Kind::syn());
        live.outward(&Kind::tcp(|header| (header.syn, header.ack) = (true, true)));
        live.inward(&Kind::tcp(|header| header.ack = true));
        live.outward(&Kind::tcp(|header| {
            (header.ack, header.acknowledgment_number) = (true, ACKNOWLEDGED);
        }));
        live
    }

    fn inward(&mut self, kind: &Kind) {
        let judged = self.lab.judge(From::Uplink, &frame(self.inward, kind)).1;
        assert_eq!(judged, Reason::Published, "it is the container's to judge");
    }

    fn outward(&mut self, kind: &Kind) {
        let web = self.lab.web.from();
        assert_eq!(self.lab.judge(web, &frame(self.outward, kind)).1, Reason::PublishedReply);
    }

    /// Whether an end of the connection has been noted for either direction.
    fn has_ended(&mut self) -> bool {
        const ENDS: u8 = seen::FIN | seen::RST;
        let inward = self.lab.flow(tuple((CLIENT, 40_000), (HOST, 8080)), 6, Side::Uplink).unwrap();
        let outward = self.lab.flow(tuple((WEB, 80), (CLIENT, 40_000)), 6, Side::Container).unwrap();
        (inward.seen | outward.seen) & ENDS != 0
    }
}

fn end(sequence: u32, how: impl Fn(&mut TcpHeader)) -> Kind {
    Kind::tcp(|header| {
        header.sequence_number = sequence;
        how(header);
    })
}

fn reset(header: &mut TcpHeader) {
    header.rst = true;
}

fn fin(header: &mut TcpHeader) {
    (header.fin, header.ack) = (true, true);
}

#[test]
fn an_end_forged_blindly_does_not_end_a_connection() {
    testbed::require_root!();
    for how in [reset, fin] {
        let mut live = Live::new();
        for guess in
            [0, 1, ACKNOWLEDGED - 1, ACKNOWLEDGED + 0x0004_0000, ACKNOWLEDGED ^ 0x8000_0000, u32::MAX]
        {
            live.inward(&end(guess, how));
            assert!(!live.has_ended(), "{guess:#x}");
        }
        // Nor does whoever forges an acknowledgement move what is compared with.
        live.inward(&Kind::tcp(|header| (header.ack, header.acknowledgment_number) = (true, 5)));
        live.inward(&end(5, how));
        assert!(!live.has_ended());

        live.inward(&end(ACKNOWLEDGED + 1500, how));
        assert!(live.has_ended(), "the client's own counts");
    }
}

#[test]
fn a_container_ends_its_connections_at_any_sequence_number() {
    testbed::require_root!();
    for how in [reset, fin] {
        let mut live = Live::new();
        live.outward(&end(77, how));
        assert!(live.has_ended());
    }
}

#[test]
fn a_refusal_of_a_connection_counts() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let outward = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    lab.run(web.from(), &frame(outward, &Kind::syn()));
    let inward = Way { link: lab.client_link(), src: (CLIENT, 80), dst: (HOST, 5000) };
    let refusal = Kind::tcp(|header| {
        (header.rst, header.ack, header.sequence_number) = (true, true, 0);
    });
    assert_eq!(lab.judge(From::Uplink, &frame(inward, &refusal)).1, Reason::MasqueradedReply);
    let answers: Flow<Ip4> = lab.flow(tuple((CLIENT, 80), (HOST, 5000)), 6, Side::Uplink).unwrap();
    assert_eq!(answers.seen & seen::RST, seen::RST);
}

#[test]
fn nobody_outside_has_an_inside_address() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 17, WEB, 80);
    lab.publish6(8080, 6, lab.web.addr6(), 80);
    let link = lab.client_link();
    let from = |src| Way { link, src: (src, 40_000), dst: (HOST, 8080) };
    let group = Ipv4Addr::new(224, 0, 0, 1);
    for forged in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        group,
        HOST,
        GATEWAY,
        WEB,
        APP,
        OTHER,
    ] {
        let (outcome, reason) = lab.judge(From::Uplink, &frame(from(forged), &Kind::udp(b"x")));
        assert_eq!((outcome.action, reason), (SHOT, Reason::Martian), "{forged}");
    }
    assert!(lab.flows().is_empty());
    assert_eq!(lab.judge(From::Uplink, &frame(from(CLIENT), &Kind::udp(b"x"))).1, Reason::Published);
    let from = |src| Way6::new(link, (src, 40_000), (HOST6, 8080));
    for forged in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, HOST6, GATEWAY6, lab.app.addr6()] {
        let (outcome, reason) = lab.judge(From::Uplink, &frame6(from(forged), Kind6::Syn));
        assert_eq!((outcome.action, reason), (SHOT, Reason::Martian), "{forged}");
    }
    assert_eq!(lab.judge(From::Uplink, &frame6(from(CLIENT6), Kind6::Syn)).1, Reason::Published);
    // What concerns no port of rnet's is the host's to judge.
    let own = Way { src: (GATEWAY, 1), dst: (HOST, 9), ..Way { link, src: (HOST, 0), dst: (HOST, 9) } };
    assert_eq!(lab.judge(From::Uplink, &frame(own, &Kind::udp(b"x"))).1, Reason::NotOurs);
}

#[test]
fn no_container_chooses_the_ports_of_another_s_fragments() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    let honest = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 53) };
    let parts = fragments(&frame(honest, &Kind::udp(&[1; 1000])));
    assert_eq!(lab.judge(web.from(), &parts[0]).1, Reason::Masqueraded);
    let forged = Way { link: app.to_gateway(), src: (WEB, 666), dst: (CLIENT, 666) };
    for part in fragments(&frame(forged, &Kind::udp(&[2; 1000]))) {
        // A later fragment is not put back, either, for as long as it would take to find its first.
        let (outcome, reason) = lab.judge(app.from(), &part);
        assert_eq!((outcome.action, reason), (SHOT, Reason::Spoofed));
    }
    for part in &parts[1..] {
        assert_eq!(lab.judge(web.from(), part).1, Reason::Masqueraded);
    }
}

#[test]
fn a_first_fragment_too_short_for_its_ports_goes_nowhere() {
    testbed::require_root!();
    let mut lab = Lab::new();
    lab.publish(Ipv4Addr::UNSPECIFIED, 8080, 6, WEB, 80);
    let web = lab.web;
    let outward = Way { link: web.to_gateway(), src: (WEB, 5000), dst: (CLIENT, 80) };
    let inward = Way { link: lab.client_link(), src: (CLIENT, 40_000), dst: (HOST, 8080) };
    // RFC 1858 §3: 8 bytes of TCP, the flags in the next fragment.
    let tiny = |way| {
        let mut cut = frame(way, &Kind::syn());
        cut.truncate(34 + 8);
        cut[16..18].copy_from_slice(&28u16.to_be_bytes());
        cut[20] = 0x20;
        finish_header(&mut cut);
        cut
    };
    let (outcome, reason) = lab.judge(web.from(), &tiny(outward));
    assert_eq!((outcome.action, reason), (SHOT, Reason::Malformed));
    let (outcome, reason) = lab.judge(From::Uplink, &tiny(inward));
    assert_eq!((outcome.action, reason), (UNSPEC, Reason::Unparsed));
    assert!(lab.flows().is_empty());
    assert_eq!(lab.judge(web.from(), &frame(outward, &Kind::syn())).1, Reason::Masqueraded);
}

#[test]
fn a_frame_for_all_is_judged_by_whose_address_it_has() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    lab.set_endpoint(&web, EndpointFlags::ICC | EndpointFlags::INTERNAL);
    let to_all = Ethernet { src: web.mac, dst: [0xff; 6] };
    let mut judge = |dst| {
        let way = Way { link: to_all, src: (WEB, 68), dst: (dst, 67) };
        lab.judge(web.from(), &frame(way, &Kind::udp(b"x"))).1
    };
    assert_eq!(judge(HOST), Reason::Internal);
    assert_eq!(judge(OTHER), Reason::OtherNetwork);
    assert_eq!(judge(GATEWAY), Reason::ToHost);
    let subnet = Ipv4Addr::new(172, 17, 255, 255);
    assert_eq!((judge(subnet), judge(Ipv4Addr::BROADCAST)), (Reason::Bridged, Reason::Bridged));
}

#[test]
fn link_local_addresses_of_ipv4_are_not_left_to_the_host() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let (web, app) = (lab.web, lab.app);
    let metadata = (Ipv4Addr::new(169, 254, 169, 254), 80);
    let way = |link, src| Way { link, src: (src, 5000), dst: metadata };
    assert_eq!(
        lab.judge(web.from(), &frame(way(web.to_gateway(), WEB), &Kind::syn())).1,
        Reason::Masqueraded,
        "under the host's address, as to anybody else"
    );
    lab.set_endpoint(&app, EndpointFlags::ICC | EndpointFlags::INTERNAL);
    let (outcome, reason) = lab.judge(app.from(), &frame(way(app.to_gateway(), APP), &Kind::syn()));
    assert_eq!((outcome.action, reason), (SHOT, Reason::Internal));
}

#[test]
fn a_link_local_source_stays_on_the_link() {
    testbed::require_root!();
    let mut lab = Lab::new();
    let web = lab.web;
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    for src in [own, Ipv6Addr::UNSPECIFIED] {
        let mut judge = |dst| {
            let way = Way6::new(web.to_gateway(), (src, 5000), (dst, 53));
            lab.judge(web.from(), &frame6(way, Kind6::Udp(b"x"))).1
        };
        for beyond in [HOST6, GATEWAY6, CLIENT6] {
            assert_eq!(judge(beyond), Reason::Spoofed, "{src} to {beyond}");
        }
        for link in [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)] {
            assert_eq!(judge(link), Reason::Bridged, "{src} to {link}");
        }
    }
}
