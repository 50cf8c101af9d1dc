//! Containers, each with a published port.

use std::process::Command;

use anyhow::Result;
use testbed::{Host, Rnet};

use super::{AT_ONCE, By, Load, Notes, What, calls, daemon, memory::Memory, ports::FIRST};

/// Starts and removes so many, one call of the client after the other.
pub(super) fn one_at_a_time(notes: &mut Notes<'_>, count: u32) -> Result<()> {
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let load = Load::Containers(count);
    notes.time(By::Rnet, What::Run, load, calls::run_all(starting(&rnet, count), 1)?);
    let removing = (0..count).map(|n| rnet.command(&["rm", "-f", &name(n)]));
    notes.time(By::Rnet, What::Remove, load, calls::run_all(removing, 1)?);
    Ok(())
}

/// Starts so many, several calls at once; kills and starts the daemon, and takes all down.
pub(super) fn many_at_once(notes: &mut Notes<'_>, count: u32) -> Result<()> {
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let load = Load::Containers(count);
    notes.time(By::Rnet, What::Start, Load::Nothing, daemon::start(&rnet)?);
    notes.keep(Load::Nothing, Memory::of(&rnet)?);
    notes.time(By::Rnet, What::RunAtOnce, load, calls::run_all(starting(&rnet, count), AT_ONCE)?);
    notes.keep(load, Memory::of(&rnet)?);
    rnet.kill9();
    notes.time(By::Rnet, What::Start, load, daemon::start(&rnet)?);
    notes.time(By::Rnet, What::Down, load, calls::run(rnet.command(&["down"]))?.seconds);
    rnet.wait_ended();
    Ok(())
}

fn starting<'r>(rnet: &'r Rnet<'_>, count: u32) -> impl Iterator<Item = Command> + use<'r> {
    (0..count).map(|n| {
        let port = format!("{}:80", FIRST + n);
        rnet.command(&["run", "-d", "--name", &name(n), "-p", &port])
    })
}

fn name(number: u32) -> String {
    format!("c{number}")
}
