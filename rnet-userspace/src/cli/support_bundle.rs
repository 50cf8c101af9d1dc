//! `rnet support-bundle`: what somebody needs who looks for a fault from afar, in one file.
//!
//! ```text
//! daemon (JSON) ─┐
//! /proc, pins    ├─ parts: name, text ─ redacted ─▶ INSTANCE-support/NAME in a .tar.gz of mode 0600
//! log, doctor    ┘
//! ```
//!
//! A part that cannot be had says why in its place. Left out by construction: environments and commands of containers, and
//! the content of every file that the configuration names, keys of TLS among them.

mod redact;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use clap::Args;
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use self::redact::Redact;
use super::{doctor::lines, print};
use crate::{
    api::client::{self, Client},
    bounded,
    controller::{self, model::flow_filter::FlowFilter},
    datapath, doctor, host, version,
};

/// Flows that are told of one by one; the rest is in the sums.
const FLOWS: usize = 1000;
/// Lines of the daemon's log, and of the kernel's.
const LINES: usize = 1000;
/// What may be told of a container, of what the daemon says of it.
const SECRET: [&str; 3] = ["command", "sysctls", "extra_hosts"];

/// Arguments of `rnet support-bundle`.
#[derive(Debug, Args)]
pub(super) struct SupportBundleArgs {
    /// Where it is written; INSTANCE-support-TIME.tar.gz in this directory when not given. A file that is there stays
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put numbers in the place of addresses, the same everywhere in it
    #[arg(long)]
    redact: bool,
}

/// A file of the bundle.
struct Part {
    name: &'static str,
    text: String,
}

impl SupportBundleArgs {
    pub(super) async fn run(self, client: &Client) -> Result<()> {
        let instance = client.instance();
        let time = OffsetDateTime::now_utc().unix_timestamp();
        let path = self.output.unwrap_or_else(|| format!("{instance}-support-{time}.tar.gz").into());
        let mut parts = parts(client).await;
        if self.redact {
            // Addresses in there are written as the kernel keeps them.
            parts.retain(|part| !part.name.starts_with("routes"));
            let mut redact = Redact::default();
            for part in &mut parts {
                part.text = redact.addresses(&part.text);
            }
        }
        write(&path, instance, &parts).with_context(|| format!("write {}", path.display()))?;
        print::line(&path.display().to_string())
    }
}

async fn parts(client: &Client) -> Vec<Part> {
    let instance = client.instance().to_owned();
    let findings = doctor::examine(client, &instance, None).await;
    let findings: Vec<String> = findings.iter().map(lines).collect();
    let mut parts = vec![
        Part { name: "version.txt", text: format!("{}\n", version::full()) },
        Part { name: "doctor.txt", text: findings.join("\n") + "\n" },
        part("status.json", client.status().await),
        part("usage.json", client.usage().await),
        part("networks.json", client.every_network().await),
        part("containers.json", containers(client).await),
        part("counters.json", client.counters().await),
        part("ports.json", client.ports().await),
        part("timeouts.json", client.timeouts().await),
        part("conntrack.json", conntrack(client).await),
    ];
    // Netlink is asked by calls that block.
    let local = tokio::task::spawn_blocking(move || local(&instance)).await;
    parts.extend(local.unwrap_or_default());
    parts
}

fn part<T: Serialize>(name: &'static str, value: client::Result<T>) -> Part {
    let text = match value {
        Ok(value) => serde_json::to_string_pretty(&value).unwrap_or_else(|e| e.to_string()),
        Err(e) => json!({ "error": e.to_string() }).to_string(),
    };
    Part { name, text: text + "\n" }
}

async fn containers(client: &Client) -> client::Result<Vec<Value>> {
    let without = |container| {
        let mut value = serde_json::to_value(container).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            for secret in SECRET {
                fields.remove(secret);
            }
        }
        value
    };
    Ok(client.every_container().await?.into_iter().map(without).collect())
}

/// How many flows there are of each protocol, kind and state, and the first of them.
async fn conntrack(client: &Client) -> client::Result<Value> {
    let mut found = client.flows(&FlowFilter::default()).await?;
    let (mut sums, mut first) = (std::collections::BTreeMap::<String, u64>::new(), Vec::new());
    while let Some(flow) = found.next().await? {
        *sums.entry(format!("{} {} {}", flow.protocol, flow.kind, flow.state)).or_default() += 1;
        if first.len() < FLOWS {
            first.push(flow);
        }
    }
    Ok(json!({ "flows": sums, "first": first }))
}

/// What is seen without the daemon.
fn local(instance: &str) -> Vec<Part> {
    let config = crate::config::default_path(instance);
    let mut files = Vec::new();
    list(&controller::pins(instance), &mut files);
    let log = format!("--unit={instance}.service");
    let lines = format!("--lines={LINES}");
    vec![
        Part { name: "daemon.json", text: configuration(bounded::text_file(&config, bounded::SETTINGS)) },
        Part { name: "links.txt", text: links() },
        Part { name: "pins.txt", text: files.join("\n") + "\n" },
        Part { name: "kernel.txt", text: kernel() },
        Part { name: "routes.txt", text: read("/proc/thread-self/net/route") },
        Part { name: "routes6.txt", text: read("/proc/thread-self/net/ipv6_route") },
        Part { name: "interfaces.txt", text: read("/proc/thread-self/net/dev") },
        Part { name: "snmp.txt", text: read("/proc/thread-self/net/snmp") },
        Part {
            name: "journal.txt",
            text: said("journalctl", &[&log, &lines, "--no-pager", "--output=short-iso"]),
        },
        Part { name: "dmesg.txt", text: about_bpf(&said("dmesg", &[])) },
    ]
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| format!("{path}: {e}\n"))
}

/// What a program prints, if it is there.
fn said(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => format!("{program}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)),
        Err(e) => format!("{program}: {e}\n"),
    }
}

/// The kernel's last lines that may concern rnet.
fn about_bpf(messages: &str) -> String {
    const WORDS: [&str; 7] = ["bpf", "netkit", "veth", "xdp", "rnet", "cgroup", "dmesg:"];
    let concerns = |line: &&str| WORDS.iter().any(|word| line.to_ascii_lowercase().contains(word));
    let lines: Vec<&str> = messages.lines().filter(concerns).collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| format!("{line}\n")).collect()
}

/// The configuration, with paths of keys but nothing that they hold. One that cannot be read as JSON is left out: nobody
/// knows what is in it.
fn configuration(text: io::Result<String>) -> String {
    match text {
        Err(e) => format!("{e}\n"),
        Ok(text) => match serde_json::from_str::<Value>(&text) {
            Ok(value) => serde_json::to_string_pretty(&redact::secrets(value)).unwrap_or_default() + "\n",
            Err(e) => format!("not shown, as it is no JSON: {e}\n"),
        },
    }
}

/// Interfaces, and the programs on them.
fn links() -> String {
    let links = match host::survey::links() {
        Ok(links) => links,
        Err(e) => return format!("{e:#}\n"),
    };
    let line = |(name, link): (&String, &host::survey::LinkFacts)| {
        let datapath::survey::Hooks { ingress, egress } = datapath::survey::hooks(name);
        let kind = if link.is_bridge { " bridge" } else { "" };
        let clsact = if link.has_clsact { " clsact" } else { "" };
        let xdp = link.xdp.and_then(datapath::survey::program).map(|program| format!(" xdp {program}"));
        let xdp = xdp.unwrap_or_default();
        format!(
            "{} {name}{kind} mtu {}{clsact}{xdp} ingress [{}] egress [{}]\n",
            link.index,
            link.mtu,
            ingress.join(" "),
            egress.join(" ")
        )
    };
    links.iter().map(line).collect()
}

fn kernel() -> String {
    const FILES: [&str; 7] = [
        "/proc/version",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/ip_local_port_range",
        "/proc/sys/net/ipv6/conf/all/forwarding",
        "/proc/sys/net/ipv4/conf/all/rp_filter",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
        "/proc/sys/net/bridge/bridge-nf-call-iptables",
    ];
    let file = |path: &str| format!("{path}\n    {}\n", read(path).trim_end());
    FILES.into_iter().map(file).collect()
}

fn list(dir: &Path, into: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        into.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), into);
        }
    }
}

fn write(path: &Path, instance: &str, parts: &[Part]) -> Result<()> {
    // A new file: nobody else has it open, or may read it.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let time = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default();
    for Part { name, text } in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(time);
        archive.append_data(&mut header, format!("{instance}-support/{name}"), text.as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn it_is_an_archive_for_its_owner_alone_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.tar.gz");
        let parts =
            [Part { name: "a.txt", text: "one\n".into() }, Part { name: "b.txt", text: String::new() }];
        write(&path, "lab", &parts).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&path, "lab", &parts).is_err());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&path).unwrap()));
        let read = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        let expected = [("lab-support/a.txt", "one\n"), ("lab-support/b.txt", "")];
        assert_eq!(read.collect::<Vec<_>>(), expected.map(|(n, t)| (n.to_owned(), t.to_owned())));
    }

    #[test]
    fn a_configuration_that_cannot_be_understood_is_not_shown() {
        let text = configuration(Ok("{\"password\": \"hunter2\"".into()));
        assert!(!text.contains("hunter2") && text.contains("no JSON"), "{text}");
    }

    #[test]
    fn of_the_kernels_messages_those_about_bpf_are_kept() {
        let messages = "usb 1-1: new device\nBPF: invalid\nveth0: renamed\n";
        assert_eq!(about_bpf(messages), "BPF: invalid\nveth0: renamed\n");
    }
}
