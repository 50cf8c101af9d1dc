//! What a program costs a packet, by `BPF_PROG_TEST_RUN`: the program alone, without the kernel's part before and after.
//!
//! A packet of a flow must find its entry each time, although it is translated: two entries lead from one tuple to
//! another and back, and a packet goes to and fro until its time to live has run out. What opens a flow can do so
//! once; the time of one run has the clock's own and cold caches in it, which are measured on a packet that changes
//! nothing and taken off.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use rnet_common::{
    Be16, Family, Flow, FlowKey, Ip4, Ip6, Mac, Reason, Side, Tuple,
    flow::{flow_flags, proto, seen},
};
use serde::Serialize;
use serde_json::json;
use testbed::{
    lab::{APP, CLIENT, CLIENT_MAC, CLIENT6, Container, From, HOST, HOST6, Lab, REDIRECT, SHOT, UNSPEC, WEB},
    packet::Ethernet,
};

use crate::{
    Bench, interrupt,
    report::{Bar, Chart, Group, Part, Spread, Table},
};

/// The time to live that packets begin with, and how often that lets them pass.
const HOPS: u8 = 255;
const REPEAT: u32 = 250;
const PORT: u16 = 8080;

/// A packet and what is expected of it.
struct Case {
    name: &'static str,
    from: From,
    expected: i32,
    frames: Frames,
}

enum Frames {
    /// One, as often as its time to live lets it pass.
    Again(Vec<u8>),
    /// One after the other, each once.
    Once(Vec<Vec<u8>>),
}

#[derive(Serialize)]
struct Figure {
    program: &'static str,
    case: &'static str,
    /// Nanoseconds a packet.
    ns: Spread,
}

/// The part's name on the command line.
pub(crate) const NAME: &str = "cost";

/// Measures every case.
///
/// # Errors
/// A program does not do with a packet what the case is about.
///
/// # Panics
/// When the programs cannot be loaded.
pub(crate) fn run(bench: &Bench) -> Result<Part> {
    let samples = if bench.quick { 20 } else { 400 };
    let before = nix::sched::sched_getaffinity(Pid::from_raw(0)).context("ask for this thread's CPUs")?;
    let mut cpu = CpuSet::new();
    cpu.set(1).or_else(|_| cpu.set(0)).context("choose a CPU")?;
    // Moving from one CPU to another would be measured. On a machine with one there is nowhere to move.
    let _ = sched_setaffinity(Pid::from_raw(0), &cpu);
    let measured = measure(bench, samples);
    sched_setaffinity(Pid::from_raw(0), &before).context("give this thread its CPUs back")?;
    let (figures, programs) = measured?;

    let mut costs = Table::new("Nanoseconds a packet: median (least to most)", &["program", "packet", "ns"]);
    let mut chart = Chart {
        file: "cost",
        title: "What a program costs a packet".to_owned(),
        about: "nanoseconds".to_owned(),
        line: None,
        groups: Vec::new(),
    };
    for Figure { program, case, ns } in &figures {
        let spread = format!("{:.0} ({:.0}–{:.0})", ns.median, ns.min, ns.max);
        costs.row([(*program).to_owned(), (*case).to_owned(), spread]);
        if chart.groups.last().is_none_or(|group| group.label != *program) {
            chart.groups.push(Group { label: (*program).to_owned(), bars: Vec::new(), noise: None });
        }
        if let Some(group) = chart.groups.last_mut() {
            group.bars.push(Bar { series: (*case).to_owned(), value: *ns });
        }
    }
    let mut sizes = Table::new(
        "Size of the programs",
        &["program", "instructions", "machine code, bytes", "looked at by the verifier"],
    );
    for size in &programs {
        sizes.row([
            size.program.clone(),
            size.instructions.to_string(),
            size.machine_bytes.to_string(),
            size.verified_instructions.to_string(),
        ]);
    }
    Ok(Part {
        name: NAME,
        title: "What a program costs a packet",
        about: format!(
            "`BPF_PROG_TEST_RUN` on one CPU, {samples} times each: {REPEAT} runs on end, or one where a packet opens a \
             flow, less what one run takes longer than one of many. Redirects are decided on, not carried out."
        ),
        tables: vec![costs, sizes],
        charts: vec![chart],
        figures: json!({"cost_ns": figures, "programs": programs}),
    })
}

/// How large a program is.
#[derive(Serialize)]
struct Size {
    program: String,
    instructions: u32,
    machine_bytes: u32,
    verified_instructions: u32,
}

fn measure(bench: &Bench, samples: usize) -> Result<(Vec<Figure>, Vec<Size>)> {
    let mut lab = Lab::new();
    let cases = prepare(&mut lab, samples);
    let each = Duration::from_millis(samples as u64 / 2);
    bench.progress.expect(each * u32::try_from(cases.len()).unwrap_or(u32::MAX));
    let single = single_run_overhead(&lab, samples)?;
    let mut figures = Vec::new();
    for case in &cases {
        bench.progress.doing(case.name);
        interrupt::check()?;
        let ns: Vec<f64> = match &case.frames {
            Frames::Again(frame) => {
                (0..samples).map(|_| time(&lab, case, frame, REPEAT)).collect::<Result<_>>()?
            }
            Frames::Once(frames) => {
                let runs = frames.iter().map(|frame| Ok((time(&lab, case, frame, 1)? - single).max(0.0)));
                runs.collect::<Result<_>>()?
            }
        };
        let program = match case.from {
            From::Uplink => "from_uplink",
            From::Container(_) => "from_container",
            From::Stack(_) => "to_uplink",
            From::Bridge(_) => "from_bridge",
            From::ToBridge(..) => "to_bridge",
        };
        let ns = Spread::of(&ns).context("nothing was measured")?;
        figures.push(Figure { program, case: case.name, ns });
        bench.progress.done(each);
    }
    let mut sizes = Vec::new();
    for (name, program) in lab.ebpf.programs() {
        let Ok(info) = program.info() else { continue };
        sizes.push(Size {
            program: name.to_owned(),
            // An instruction takes eight bytes (RFC 9669 §3).
            instructions: info.size_translated().unwrap_or(0) / 8,
            machine_bytes: info.size_jitted(),
            verified_instructions: info.verified_instruction_count().unwrap_or(0),
        });
    }
    sizes.sort_by(|a, b| a.program.cmp(&b.program));
    Ok((figures, sizes))
}

fn time(lab: &Lab, case: &Case, frame: &[u8], repeat: u32) -> Result<f64> {
    let (outcome, took) = lab.run_repeatedly(case.from, frame, repeat);
    ensure!(
        outcome.action == case.expected,
        "{}: the program answers {} and not {}",
        case.name,
        outcome.action,
        case.expected
    );
    Ok(took.as_secs_f64() * 1e9)
}

/// What one run by itself takes longer than one of many, in nanoseconds: the clock is read, and caches are cold.
fn single_run_overhead(lab: &Lab, samples: usize) -> Result<f64> {
    let case = passed(lab);
    let Frames::Again(frame) = &case.frames else { return Ok(0.0) };
    let median = |repeat| -> Result<f64> {
        let times: Vec<f64> = (0..samples).map(|_| time(lab, &case, frame, repeat)).collect::<Result<_>>()?;
        Ok(Spread::of(&times).context("nothing was measured")?.median)
    };
    Ok((median(1)? - median(REPEAT)?).max(0.0))
}

/// A packet for the host itself.
fn passed(lab: &Lab) -> Case {
    Case {
        name: "the host's own",
        from: From::Uplink,
        expected: UNSPEC,
        frames: Frames::Again(tcp(lab.client_link(), (CLIENT, 41_000).into(), (HOST, 22).into(), false)),
    }
}

fn prepare(lab: &mut Lab, samples: usize) -> Vec<Case> {
    // What leads to the next hop finds its Ethernet address, as it does where packets come and go.
    let mac = CLIENT_MAC.map(|byte| format!("{byte:02x}")).join(":");
    lab.ns.ip(&format!(
        "neigh replace {CLIENT} lladdr {mac} dev up0
         neigh replace {CLIENT6} lladdr {mac} dev up0"
    ));
    for proto in [proto::TCP, proto::UDP] {
        lab.publish(Ipv4Addr::UNSPECIFIED, PORT, proto, WEB, 80);
    }
    let (web, app) = (lab.web, lab.app);
    let (client, client6) = (SocketAddr::from((CLIENT, 40_000)), SocketAddr::from((CLIENT6, 40_000)));
    let (host, host6) = (SocketAddr::from((HOST, PORT)), SocketAddr::from((HOST6, PORT)));
    let (server, server6) = (SocketAddr::from((WEB, 80)), SocketAddr::from((web.addr6(), 80)));
    let neighbour = SocketAddr::from((APP, 40_000));
    for proto in [proto::TCP, proto::UDP] {
        shuttle(lab, proto, (None, Some(web)), (client, host), (client, server));
        shuttle(lab, proto, (None, Some(web)), (client6, host6), (client6, server6));
        shuttle(lab, proto, (Some(web), None), (server, client), (host, client));
        shuttle(lab, proto, (Some(web), None), (server6, client6), (host6, client6));
        shuttle(lab, proto, (Some(app), Some(web)), (neighbour, host), (neighbour, server));
    }
    let at = |addr: Ipv4Addr, port: u16| SocketAddr::from((addr, port));
    let fresh =
        |make: &dyn Fn(u16) -> Vec<u8>| Frames::Once((10_000..u16::MAX).take(samples).map(make).collect());
    let (link, out) = (lab.client_link(), web.to_gateway());
    let (outside, inside) = (From::Uplink, web.from());
    use Frames::Again;
    let case = |name, from, frames| Case { name, from, expected: REDIRECT, frames };
    vec![
        case("published TCP", outside, Again(tcp(link, client, host, false))),
        case("published UDP", outside, Again(udp(link, client, host))),
        case("published TCP over IPv6", outside, Again(tcp(link, client6, host6, false))),
        case("published TCP, new", outside, fresh(&|port| tcp(link, at(CLIENT, port), host, true))),
        case("published UDP, new", outside, fresh(&|port| udp(link, at(CLIENT, port), host))),
        passed(lab),
        Case { expected: UNSPEC, ..case("not of IP", outside, Again(other(link))) },
        Case {
            expected: SHOT,
            ..case("a container's own address", outside, Again(tcp(link, client, at(WEB, 81), true)))
        },
        case("TCP answer", inside, Again(tcp(out, server, client, false))),
        case("UDP answer", inside, Again(udp(out, server, client))),
        case("TCP answer over IPv6", inside, Again(tcp(out, server6, client6, false))),
        case("masqueraded TCP, new", inside, fresh(&|port| tcp(out, at(WEB, port), at(CLIENT, 80), true))),
        case("masqueraded UDP, new", inside, fresh(&|port| udp(out, at(WEB, port), at(CLIENT, 80)))),
        case("neighbour's published port", app.from(), Again(tcp(app.to_gateway(), neighbour, host, false))),
        case("neighbour", inside, {
            let link = Ethernet { src: web.mac, dst: app.mac };
            Again(tcp(link, server, neighbour, false))
        }),
        Case { expected: UNSPEC, ..case("the host", inside, Again(tcp(out, server, at(HOST, 22), false))) },
        Case {
            expected: SHOT,
            ..case("another's source address", inside, Again(tcp(out, at(APP, 80), client, false)))
        },
    ]
}

/// Two entries, of packets that arrive from a container or, without one, from outside, and go into one or outside: each
/// makes of its packets what the other takes.
fn shuttle(
    lab: &mut Lab,
    proto: u8,
    ends: (Option<Container>, Option<Container>),
    a: (SocketAddr, SocketAddr),
    b: (SocketAddr, SocketAddr),
) {
    for ((src, dst), to) in [(a, b), (b, a)] {
        match (src.ip(), dst.ip(), to.0.ip(), to.1.ip()) {
            (IpAddr::V4(src_ip), IpAddr::V4(dst_ip), IpAddr::V4(to_src), IpAddr::V4(to_dst)) => {
                let at = tuple::<Ip4>((src_ip.into(), src.port()), (dst_ip.into(), dst.port()));
                let to = tuple((to_src.into(), to.0.port()), (to_dst.into(), to.1.port()));
                insert(lab, "FLOWS4", proto, ends, at, to);
            }
            (IpAddr::V6(src_ip), IpAddr::V6(dst_ip), IpAddr::V6(to_src), IpAddr::V6(to_dst)) => {
                let at = tuple::<Ip6>((src_ip.into(), src.port()), (dst_ip.into(), dst.port()));
                let to = tuple((to_src.into(), to.0.port()), (to_dst.into(), to.1.port()));
                insert(lab, "FLOWS6", proto, ends, at, to);
            }
            _ => unreachable!("a tuple is of one family"),
        }
    }
}

fn insert<A: Family>(
    lab: &mut Lab,
    map: &str,
    proto: u8,
    (from, into): (Option<Container>, Option<Container>),
    at: Tuple<A>,
    to: Tuple<A>,
) where
    FlowKey<A>: aya::Pod,
    Flow<A>: aya::Pod,
{
    let owner = from.or(into).unwrap_or(lab.web);
    let mut flow = Flow {
        to,
        mapping: owner.mapping,
        // The lab's containers have it so.
        generation: owner.mapping,
        from_ifindex: from.map_or(0, |container| container.ifindex),
        to_ifindex: owner.bridge,
        seen: seen::PACKET | seen::ACK,
        carried: Reason::Published as u8,
        ..Flow::default()
    };
    if let Some(container) = into {
        flow.flags = flow_flags::TO_CONTAINER;
        flow.to_ifindex = container.ifindex;
        flow.mac = Mac(container.mac);
        flow.gateway_mac = Mac(container.gateway_mac);
        flow.mtu = 1500;
    }
    let side = if from.is_some() { Side::Container } else { Side::Uplink };
    let added = lab.table(map).insert(FlowKey::new(at, proto, side), flow, 0);
    added.unwrap_or_else(|e| panic!("add a flow: {e}"));
}

fn tuple<A: Family>(src: (A, u16), dst: (A, u16)) -> Tuple<A> {
    Tuple { src: src.0, dst: dst.0, sport: Be16::new(src.1), dport: Be16::new(dst.1) }
}

fn ip(link: Ethernet, src: IpAddr, dst: IpAddr) -> PacketBuilderStep<IpHeaders> {
    let frame = PacketBuilder::ethernet2(link.src, link.dst);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => frame.ipv4(src.octets(), dst.octets(), HOPS),
        (IpAddr::V6(src), IpAddr::V6(dst)) => frame.ipv6(src.octets(), dst.octets(), HOPS),
        _ => unreachable!("a packet is of one family"),
    }
}

/// A frame of an EtherType for experiments (IEEE 802).
fn other(link: Ethernet) -> Vec<u8> {
    [&link.dst[..], &link.src, &[0x88, 0xb5], &[0; 64]].concat()
}

/// 64 bytes, or none to open a connection.
fn tcp(link: Ethernet, src: SocketAddr, dst: SocketAddr, opens: bool) -> Vec<u8> {
    let ip = ip(link, src.ip(), dst.ip());
    let mut frame = Vec::new();
    let tcp = ip.tcp(src.port(), dst.port(), 7, 4096);
    let written =
        if opens { tcp.syn().write(&mut frame, b"") } else { tcp.ack(8).write(&mut frame, &[0; 64]) };
    written.unwrap_or_else(|e| panic!("make a frame: {e}"));
    frame
}

/// 64 bytes.
fn udp(link: Ethernet, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let mut frame = Vec::new();
    let written = ip(link, src.ip(), dst.ip()).udp(src.port(), dst.port()).write(&mut frame, &[0; 64]);
    written.unwrap_or_else(|e| panic!("make a frame: {e}"));
    frame
}
