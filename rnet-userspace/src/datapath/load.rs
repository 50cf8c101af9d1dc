//! From the embedded object to programs in the kernel, on maps that outlive the daemon.

use std::{io, path::Path, thread};

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::MapData,
    programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp},
};

use super::Sizes;

/// Programs on bridges that engines have made.
pub(super) const FROM_BRIDGE: &str = "from_bridge";
pub(super) const TO_BRIDGE: &str = "to_bridge";
/// The program on uplinks before there is a packet buffer.
pub(super) const XDP: &str = "xdp_uplink";
/// Programs at a cgroup's socket calls.
pub(super) const SOCKETS: [&str; 10] = [
    "sock_bind4",
    "sock_bind6",
    "sock_connect4",
    "sock_connect6",
    "sock_sendmsg4",
    "sock_sendmsg6",
    "sock_recvmsg4",
    "sock_recvmsg6",
    "sock_peername4",
    "sock_peername6",
];

/// Maps whose size the configuration can say, of both address families.
const FLOWS: [&str; 2] = ["FLOWS4", "FLOWS6"];
const PORTS: [&str; 2] = ["PORTS4", "PORTS6"];

/// Maps that outlive the daemon. The others are of use only while a program or the daemon runs.
const MAPS: [&str; 21] = [
    "FLOWS4",
    "FLOWS6",
    "PORTS4",
    "PORTS6",
    "SOURCES4",
    "SOURCES6",
    "ENDPOINTS4",
    "ENDPOINTS6",
    "LOCALS4",
    "LOCALS6",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "PEERS4",
    "PEERS6",
    "VETHS",
    "UPLINKS",
    "FRAME_VETHS",
    "HELD",
    "MAPPINGS",
    "SETTINGS",
    "COUNTS",
];

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath.o"));

/// Loads every program, that for XDP only if it is asked for; the verifier looks at several at once. Maps that are pinned
/// in `pins` are used again, the others are made and pinned there.
///
/// # Errors
/// The kernel refuses a map or a program; or a pinned map has another size than `sizes` asks for, which cannot be
/// changed while it is in use.
pub(super) fn load(pins: &Path, sizes: Sizes, with_xdp: bool) -> Result<Ebpf> {
    if OBJECT.is_empty() {
        bail!("this rnet was built without its datapath: build it with `cargo xtask build`");
    }
    let open = |log| {
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(log);
        for map in MAPS {
            loader.map_pin_path(map, pins.join(map));
        }
        for (map, entries) in wanted(sizes) {
            check_pinned(map, &pins.join(map), entries)?;
            loader.map_max_entries(map, entries);
        }
        loader.load(OBJECT).map_err(one_line).context("make the datapath's maps")
    };
    // What the verifier did takes it many times as long to write down, and is of use only where it refuses a program.
    let mut ebpf = open(VerifierLogLevel::STATS)?;
    let programs: Vec<_> = ebpf.programs_mut().filter(|(name, _)| with_xdp || *name != XDP).collect();
    let refused = thread::scope(|scope| {
        let load = |(name, program): (&str, _)| {
            let name = name.to_owned();
            thread::Builder::new().spawn_scoped(scope, move || verify(program).map_err(|e| (name, e)))
        };
        let loading: io::Result<Vec<_>> = programs.into_iter().map(load).collect();
        let loading = loading.context("start a thread that loads a program")?;
        let loaded: Vec<_> = loading.into_iter().map(thread::ScopedJoinHandle::join).collect();
        if loaded.iter().any(Result::is_err) {
            bail!("a thread that loads a program has panicked");
        }
        Ok(loaded.into_iter().flatten().find_map(Result::err))
    })?;
    let Some((name, error)) = refused else { return Ok(ebpf) };
    let why = open(VerifierLogLevel::default()).and_then(|mut ebpf| Ok(verify(program(&mut ebpf, &name)?)));
    let error = why.ok().and_then(Result::err).unwrap_or(error);
    Err(self::refused(error)).with_context(|| format!("load program {name}"))
}

/// Maps whose size was asked for, with their entries.
fn wanted(sizes: Sizes) -> Vec<(&'static str, u32)> {
    // Each flow has an entry for either direction.
    let flows = sizes.flows.into_iter().flat_map(|n| FLOWS.map(|map| (map, n.saturating_mul(2))));
    let ports = sizes.ports.into_iter().flat_map(|n| PORTS.map(|map| (map, n)));
    flows.chain(ports).collect()
}

/// A map that is pinned is used as it is, whatever was asked for: see that it is that.
fn check_pinned(map: &str, pin: &Path, entries: u32) -> Result<()> {
    if !pin.try_exists().with_context(|| format!("look for map {map}"))? {
        return Ok(());
    }
    let data = MapData::from_pin(pin).with_context(|| format!("open map {map}"))?;
    let there = data.info().with_context(|| format!("ask for the size of map {map}"))?.max_entries();
    if there == entries {
        return Ok(());
    }
    bail!(
        "map {map} is to have {entries} entries, and the one in use has {there}: leave the size out to keep it, or \
         take the instance down first with `rnet down`"
    )
}

/// Gives a program to the kernel, which verifies it. The verifier gives up when its thread is to be stopped, frozen or given
/// a signal (`do_check`): then it is given again, as libbpf does.
fn verify(program: &mut Program) -> Result<(), ProgramError> {
    // A stop each time, for minutes on end.
    const ATTEMPTS: usize = 100;
    let mut give = || {
        if let Program::SchedClassifier(classifier) = program {
            classifier.load()
        } else if let Program::Xdp(xdp) = program {
            xdp.load()
        } else {
            <&mut CgroupSockAddr>::try_from(&mut *program).and_then(CgroupSockAddr::load)
        }
    };
    let was_cut_short = |given: &Result<(), ProgramError>| {
        matches!(
            given,
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock
        )
    };
    let mut given = give();
    for _ in 1..ATTEMPTS {
        if !was_cut_short(&given) {
            break;
        }
        given = give();
    }
    given
}

/// A program at a tcx hook.
pub(super) fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(program(ebpf, name)?.try_into()?)
}

/// The program [`XDP`].
pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(program(ebpf, XDP)?.try_into()?)
}

/// A program of [`SOCKETS`].
pub(super) fn socket<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr> {
    Ok(program(ebpf, name)?.try_into()?)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("the datapath has no program {name}"))
}

/// The verifier writes a whole page on what it did before it says what it has against a program.
fn refused(error: ProgramError) -> anyhow::Error {
    let ProgramError::LoadError { io_error, verifier_log } = &error else { return one_line(error) };
    tracing::debug!("{verifier_log}");
    let log = verifier_log.to_string();
    let statistics = ["processed ", "stack depth ", "verification time "];
    let mut lines = log.lines().rev().filter(|line| !line.is_empty());
    let complaint = lines.find(|line| !statistics.iter().any(|statistic| line.starts_with(statistic)));
    match complaint {
        Some(complaint) => anyhow!("the kernel refused it ({io_error}): {complaint}"),
        None => anyhow!("the kernel refused it: {io_error}"),
    }
}

/// An error of aya's with all its causes, which its own text leaves out.
pub(super) fn one_line<E: std::error::Error>(error: E) -> anyhow::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    anyhow!(text)
}
