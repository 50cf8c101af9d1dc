//! Many ports of one container, published and withdrawn: by rnet, and by the host's own packet filter in the ways in
//! which it can be told.

use std::{fmt::Write as _, ops::Range, process::Command};

use anyhow::{Result, ensure};
use testbed::{Host, Netns, Rnet};

use super::{By, Load, Notes, Sample, What, calls, daemon, estimate, memory::Memory};
use crate::{
    interrupt,
    traffic::{
        netfilter::{self, Tool},
        sites::CONTAINER,
    },
};

/// The first published port.
pub(super) const FIRST: u32 = 10_001;
/// Between how many levels single calls are measured, besides the lowest.
const STEPS: u32 = 4;

/// One call of the client for all, each way. In between the daemon is killed and started.
pub(super) fn rnet(notes: &mut Notes<'_>, count: u32) -> Result<()> {
    let host = Host::new();
    let rnet = Rnet::start(&host);
    calls::run(rnet.command(&["run", "-d", "--name", "web"]))?;
    let load = Load::Ports(count);
    let (first, last) = (FIRST, FIRST + count - 1);
    let range = format!("{first}-{last}:{first}-{last}");
    let change = |command: &str| -> Result<f64> {
        let ended = calls::run(rnet.command(&[command, "web", &range]))?;
        let told = ended.output.lines().count();
        ensure!(told == count as usize, "rnet {command} tells of {told} ports instead of {count}");
        Ok(ended.seconds)
    };
    notes.time(By::Rnet, What::Publish, load, change("publish")?);
    notes.keep(load, Memory::of(&rnet)?);
    rnet.kill9();
    notes.time(By::Rnet, What::Start, load, daemon::start(&rnet)?);
    notes.time(By::Rnet, What::Unpublish, load, change("unpublish")?);
    Ok(())
}

/// One call of iptables for each rule: a few ports at each of several levels, between which the rest is filled up in
/// one call. The time for all is estimated from them.
pub(super) fn iptables_calls(notes: &mut Notes<'_>, count: u32, sample: u32) -> Result<()> {
    let host = Host::new();
    netfilter::docker(&host, Tool::Legacy, 1)?;
    let mut filled = 0;
    let mut samples = Vec::new();
    for level in (0..=STEPS).map(|step| count * step / STEPS) {
        interrupt::check()?;
        restore(&host.ns, "-A", filled..level)?;
        filled = level;
        let next = level..level + sample;
        samples.push(Sample {
            round: notes.round,
            filled_ports: level,
            ports: sample,
            publish_seconds: calls::run_all(single(&host.ns, "-A", next.clone()), 1)?,
            unpublish_seconds: calls::run_all(single(&host.ns, "-D", next), 1)?,
        });
    }
    for (what, seconds) in [
        (What::Publish, (|s| s.publish_seconds) as fn(&Sample) -> f64),
        (What::Unpublish, |s| s.unpublish_seconds),
    ] {
        let levels: Vec<_> =
            samples.iter().map(|s| (f64::from(s.filled_ports), seconds(s) / f64::from(s.ports))).collect();
        notes.time(By::IptablesCalls, what, Load::Ports(count), estimate::integrate(&levels));
    }
    notes.findings.samples.extend(samples);
    Ok(())
}

/// All rules in one call of iptables-restore, each way, beside those that are there.
pub(super) fn iptables_restore(notes: &mut Notes<'_>, count: u32) -> Result<()> {
    let host = Host::new();
    netfilter::docker(&host, Tool::Legacy, 1)?;
    for (what, command) in [(What::Publish, "-A"), (What::Unpublish, "-D")] {
        let seconds = restore(&host.ns, command, 0..count)?;
        notes.time(By::IptablesRestore, what, Load::Ports(count), seconds);
    }
    Ok(())
}

/// All elements of a map in one call of nft, each way.
pub(super) fn nft(notes: &mut Notes<'_>, count: u32) -> Result<()> {
    let host = Host::new();
    netfilter::nft(&host)?;
    for (what, command) in [(What::Publish, "add"), (What::Unpublish, "delete")] {
        let mut nft = host.ns.command("nft");
        nft.args(["-f", "-"]);
        let seconds = calls::feed(nft, &elements(command, 0..count))?.seconds;
        notes.time(By::Nft, what, Load::Ports(count), seconds);
    }
    Ok(())
}

/// The rules of these ports, for iptables-restore. `command` adds or deletes them.
fn batch(command: &str, ports: Range<u32>) -> String {
    let (mut nat, mut filter) = (String::from("*nat\n"), String::from("*filter\n"));
    for (table, rule) in ports.flat_map(rules) {
        let text = if table == "nat" { &mut nat } else { &mut filter };
        let _ = writeln!(text, "{command} {rule}");
    }
    format!("{nat}COMMIT\n{filter}COMMIT\n")
}

fn restore(ns: &Netns, command: &str, ports: Range<u32>) -> Result<f64> {
    let mut restore = ns.command("iptables-legacy-restore");
    restore.args(["--wait", "--noflush"]);
    Ok(calls::feed(restore, &batch(command, ports))?.seconds)
}

/// A call for each rule of these ports.
fn single(ns: &Netns, command: &'static str, ports: Range<u32>) -> impl Iterator<Item = Command> {
    ports.flat_map(rules).map(move |(table, rule)| {
        let mut iptables = ns.command("iptables-legacy");
        iptables.args(["--wait", "--table", table, command]).args(rule.split(' '));
        iptables
    })
}

fn rules(number: u32) -> [(&'static str, String); 3] {
    let port = FIRST + number;
    netfilter::of_port(CONTAINER.into(), "tcp", port, port)
}

fn elements(command: &str, ports: Range<u32>) -> String {
    let port = |number: u32| FIRST + number;
    let elements = ports.map(|n| format!("tcp . {0} : {CONTAINER} . {0}", port(n))).collect::<Vec<_>>();
    format!("{command} element ip published ports {{ {} }}\n", elements.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_each_port_s_rules_under_their_tables() {
        let batch = batch("-A", 0..2);
        let (nat, filter) = batch.split_once("COMMIT\n").unwrap();
        assert_eq!(nat.lines().next(), Some("*nat"));
        for port in [10_001, 10_002] {
            let dnat = format!(
                "-A DOCKER -p tcp -m tcp --dport {port} -j DNAT --to-destination 172.17.0.2:{port}\n"
            );
            let masquerade = format!("--dport {port} -j MASQUERADE\n");
            assert!(nat.contains(&dnat) && nat.contains(&masquerade), "{nat}");
            assert!(filter.contains(&format!("--dport {port} -j ACCEPT\n")), "{filter}");
        }
        assert_eq!((nat.lines().count(), filter.lines().count()), (5, 4));
    }

    #[test]
    fn nft_is_given_one_command_with_all_ports() {
        assert_eq!(
            elements("add", 0..2),
            "add element ip published ports { tcp . 10001 : 172.17.0.2 . 10001, tcp . 10002 : 172.17.0.2 . 10002 }\n"
        );
    }
}
