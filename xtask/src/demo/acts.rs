//! What is shown: a published port, two containers, the way out; each with the counters that prove it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::ifaddrs::getifaddrs;

use super::{
    instance::{Instance, xtask},
    interrupt,
    netns::Namespace,
    page::{self, Page},
    screen::{self, bold, dim},
    topology::{CLIENT, HOST, Topology},
};
use crate::command::{find, output};

/// The port that is published on the host.
pub(super) const PUBLISHED: u16 = 8080;
/// The port of the web server in the container.
const WEB: u16 = 80;
/// The port of the server outside.
const OUTSIDE: u16 = 8000;

/// The containers that were started.
pub(super) struct Containers {
    pub(super) web: SocketAddr,
    pub(super) app: Namespace,
}

/// Where the client reaches the container.
pub(super) fn published() -> SocketAddr {
    SocketAddr::from((HOST, PUBLISHED))
}

/// The server outside.
pub(super) fn outside() -> SocketAddr {
    SocketAddr::from((CLIENT, OUTSIDE))
}

/// Starts both containers.
pub(super) fn start_containers(rnet: &Instance) -> Result<Containers> {
    let xtask = xtask()?;
    let publish = format!("{PUBLISHED}:{WEB}");
    let server = [&xtask, "serve-page", "0.0.0.0:80", "hello from web"];
    let web = ["run", "-d", "--name", "web", "-p", &publish, "--"];
    rnet.show(&[&web[..], &server[..]].concat(), false)?;
    rnet.show(&["run", "-d", "--name", "app"], false)?;
    rnet.show(&["ps"], true)?;
    rnet.show(&["port", "web"], true)?;
    let web = address(&rnet.container("web"))?;
    wait_for_server(rnet, &xtask)?;
    Ok(Containers { web: SocketAddr::from((web, WEB)), app: rnet.container("app") })
}

/// A server outside, which runs as long as this process.
pub(super) fn serve_outside(topology: &Topology) -> Result<()> {
    let listener = topology.client.enter(|| page::listen(outside()))?;
    thread::spawn(move || page::serve_on(&listener, "hello from outside"));
    Ok(())
}

/// Shows all ways of a packet and returns how many of them failed.
pub(super) fn show_ways(rnet: &Instance, topology: &Topology, containers: &Containers) -> Result<usize> {
    let mut failures = 0;
    let mut act = |act: Act<'_>| {
        interrupt::check()?;
        let passed = act.play(rnet)?;
        failures += usize::from(!passed);
        anyhow::Ok(())
    };
    act(Act {
        title: "1. from outside to the published port",
        fetch: &|| {
            screen::command("client", format_args!("xtask fetch-page {}", published()));
            let page = topology.client.enter(|| page::fetch(published()))?;
            screen::printed(&page.text);
            Ok(page)
        },
        seen: IpAddr::from(CLIENT),
        why: "the container sees the client's own address",
        carriers: &[("from_uplink", "published"), ("from_container", "published-reply")],
    })?;
    act(Act {
        title: "2. from container to container",
        fetch: &|| fetch_from_app(rnet, containers.web),
        seen: IpAddr::from(address(&containers.app)?),
        why: "the container sees the other's own address",
        carriers: &[("from_container", "switched")],
    })?;
    act(Act {
        title: "3. from a container to the outside",
        fetch: &|| fetch_from_app(rnet, outside()),
        seen: IpAddr::from(HOST),
        why: "the server outside sees the host's address: masquerade",
        carriers: &[("from_container", "masqueraded"), ("from_uplink", "masqueraded-reply")],
    })?;
    interrupt::check()?;
    if !show_rules(&topology.host) {
        failures += 1;
    }
    Ok(failures)
}

/// One fetch of a page and what it must prove.
struct Act<'a> {
    title: &'a str,
    fetch: &'a dyn Fn() -> Result<Page>,
    /// The address that the server must see, and why.
    seen: IpAddr,
    why: &'a str,
    /// Program and reason of every counter that must have moved.
    carriers: &'a [(&'a str, &'a str)],
}

impl Act<'_> {
    fn play(&self, rnet: &Instance) -> Result<bool> {
        screen::part(self.title);
        let before = rnet.counters()?;
        let page = match (self.fetch)() {
            Ok(page) => page,
            Err(error) => {
                screen::failed(format_args!("{error:#}"));
                let difference = rnet.counters()?.since(&before);
                for verdict in ["carried", "passed", "dropped"] {
                    println!("  {verdict}\n{}", difference.table(verdict));
                }
                return Ok(false);
            }
        };
        let mut passed = page.client == self.seen;
        if passed {
            screen::proven(format_args!("{} ({})", self.why, page.client));
        } else {
            screen::failed(format_args!("the server sees {} and not {}", page.client, self.seen));
        }
        let difference = rnet.counters()?.since(&before);
        println!("{}", difference.table("carried"));
        let (left, dropped) = (difference.packets("passed"), difference.packets("dropped"));
        if left + dropped > 0 {
            println!(
                "  {}",
                dim(format_args!("beside them: {left} left to the kernel (such as ARP), {dropped} dropped"))
            );
        }
        for (program, reason) in self.carriers {
            if !difference.carried(program, reason) {
                screen::failed(format_args!("{program} carried nothing as {reason}"));
                passed = false;
            }
        }
        if passed {
            let programs: Vec<_> =
                self.carriers.iter().map(|(program, _)| bold(program).to_string()).collect();
            screen::proven(format_args!("carried by {}", programs.join(" and ")));
        }
        Ok(passed)
    }
}

fn fetch_from_app(rnet: &Instance, server: SocketAddr) -> Result<Page> {
    page::parse(&rnet.show(&["exec", "app", &xtask()?, "fetch-page", &server.to_string()], true)?)
}

/// Shows that no firewall rule had a part in it. `false` when there is one.
fn show_rules(host: &Namespace) -> bool {
    screen::part("4. no firewall rule had a part in it");
    let mut free = true;
    let mut looked = false;
    for tool in [&["nft", "list", "ruleset"][..], &["iptables-save"], &["iptables-legacy-save"]] {
        let Some(program) = find(tool[0]) else { continue };
        screen::command("host", tool.join(" "));
        let listed = host.enter(|| output(Command::new(program).args(&tool[1..])));
        let rules = match listed {
            Ok(rules) => rules,
            Err(error) => {
                // As on a kernel that is built without it.
                println!("  {}", dim(format_args!("it can't tell: {error:#}")));
                continue;
            }
        };
        looked = true;
        let rules: Vec<_> = rules.lines().filter(|line| is_rule(tool[0], line)).collect();
        if rules.is_empty() {
            screen::proven("no rule");
        } else {
            screen::failed(format_args!("{} lines, the first of them: {}", rules.len(), rules[0]));
            free = false;
        }
    }
    if !looked {
        println!("  no tool here can list them: install nftables or iptables to see for yourself");
    }
    free
}

/// Whether a line of a tool's output is a rule, and not a table or a chain that the kernel brings along.
fn is_rule(tool: &str, line: &str) -> bool {
    if tool == "nft" { !line.trim().is_empty() } else { line.starts_with("-A") }
}

/// The IPv4 address of a container's interface.
fn address(container: &Namespace) -> Result<Ipv4Addr> {
    let addresses = container.enter(|| Ok(getifaddrs().context("list addresses")?.collect::<Vec<_>>()))?;
    addresses
        .into_iter()
        .filter(|interface| interface.interface_name == "eth0")
        .find_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .with_context(|| format!("{} has no IPv4 address on eth0", container.name()))
}

/// Waits until the web server listens. Asked through the container's own loopback, which no counter sees.
fn wait_for_server(rnet: &Instance, xtask: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, WEB)).to_string();
    while let Err(error) = rnet.run(&["exec", "web", xtask, "fetch-page", &local]) {
        interrupt::check()?;
        if Instant::now() > deadline {
            let log = rnet.run(&["logs", "web"]).unwrap_or_default();
            bail!("the web server in container web does not answer: {error:#}\n{log}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_tables_are_no_rules() {
        for line in ["# Generated by iptables-save", "*filter", ":INPUT ACCEPT [0:0]", "COMMIT", ""] {
            assert!(!is_rule("iptables-save", line));
        }
        assert!(is_rule("iptables-save", "-A POSTROUTING -j MASQUERADE"));
        assert!(is_rule("nft", "table ip nat {"));
    }
}
