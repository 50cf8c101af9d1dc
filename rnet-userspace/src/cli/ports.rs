//! Published ports in words, as Docker's.

use std::{cmp::Ordering, collections::BTreeMap, net::SocketAddr};

use anyhow::{Result, bail};

use crate::{
    api::docker,
    controller::model::{Binding, Protocol},
};

/// `80/tcp -> 0.0.0.0:8080`, one for each binding, in natural order.
pub(super) fn lines(bindings: &[Binding]) -> Vec<String> {
    let line = |b: &Binding| format!("{}/{} -> {}", b.port, b.host.protocol, host(b));
    let mut lines: Vec<_> = bindings.iter().map(line).collect();
    lines.sort_by(|a, b| natural(a, b));
    lines
}

/// The bindings of one port of a container, asked for as `PORT[/PROTO]`.
pub(super) fn of_port(mut bindings: Vec<Binding>, asked: &str, container: &str) -> Result<Vec<Binding>> {
    let (port, protocol) = asked.split_once('/').unwrap_or((asked, "tcp"));
    let (Ok(port), Ok(protocol)) = (port.parse::<u16>(), protocol.parse::<Protocol>()) else {
        bail!("invalid port '{asked}': it should be as 80, 80/tcp, 80/udp or 80/sctp");
    };
    bindings.retain(|b| (b.port, b.host.protocol) == (port, protocol));
    if bindings.is_empty() {
        bail!("no public port '{asked}' published for {container}");
    }
    Ok(bindings)
}

/// The host's side of each binding, in natural order.
pub(super) fn hosts(bindings: &[Binding]) -> Vec<String> {
    let mut hosts: Vec<_> = bindings.iter().map(host).collect();
    hosts.sort_by(|a, b| natural(a, b));
    hosts
}

/// All in one line, where runs of equal host and container ports are drawn together, and those that are not
/// published: `81/tcp, 0.0.0.0:8000-8002->8000-8002/tcp, 0.0.0.0:8080->80/tcp`.
pub(super) fn summary(ports: &[docker::Port]) -> String {
    let mut ports: Vec<_> = ports.iter().collect();
    ports.sort_by_key(|p| (p.private_port, p.ip, p.public_port, p.protocol.as_str()));

    let mut runs: BTreeMap<_, Vec<(u16, u16)>> = BTreeMap::new();
    let mut others = Vec::new();
    for port in ports {
        if let (Some(ip), Some(public)) = (port.ip, port.public_port)
            && public != port.private_port
        {
            let host = SocketAddr::new(ip, public);
            others.push(format!("{host}->{}/{}", port.private_port, port.protocol));
            continue;
        }
        let of_key = runs.entry((port.ip, port.protocol.as_str())).or_default();
        match of_key.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port.private_port) => *last = port.private_port,
            _ => of_key.push((port.private_port, port.private_port)),
        }
    }
    let drawn = runs.iter().flat_map(|((ip, protocol), runs)| {
        runs.iter().map(move |&(first, last)| {
            let until = if first == last { String::new() } else { format!("-{last}") };
            let host = ip.map(|ip| format!("{}{until}->", SocketAddr::new(ip, first))).unwrap_or_default();
            format!("{host}{first}{until}/{protocol}")
        })
    });
    drawn.chain(others).collect::<Vec<_>>().join(", ")
}

/// Compares text in which runs of digits count as numbers: `80/tcp` comes before `443/tcp`.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (number(&mut a), number(&mut b));
        // Without leading zeros, the longer number is the larger.
        let order = match (x, y) {
            (Some(x), Some(y)) => x.len().cmp(&y.len()).then_with(|| x.cmp(y)),
            _ => {
                let (x, y) = (x.or_else(|| first(&mut a)), y.or_else(|| first(&mut b)));
                if x.is_none() && y.is_none() {
                    return Ordering::Equal;
                }
                x.cmp(&y)
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Takes the digits at the beginning, and returns them without leading zeros.
fn number<'a>(text: &mut &'a str) -> Option<&'a str> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    (!digits.is_empty()).then(|| digits.trim_start_matches('0'))
}

fn first<'a>(text: &mut &'a str) -> Option<&'a str> {
    let end = text.chars().next()?.len_utf8();
    let (first, rest) = text.split_at(end);
    *text = rest;
    Some(first)
}

fn host(binding: &Binding) -> String {
    SocketAddr::new(binding.host.addr, binding.host.port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{model::HostPort, view::ExposedPort};

    fn binding(host: &str, port: u16, protocol: Protocol) -> Binding {
        let host: SocketAddr = host.parse().unwrap();
        let host = HostPort { addr: host.ip(), port: host.port(), protocol };
        Binding { host, addr: [172, 17, 0, 2].into(), port, sources: 0, unheld: false }
    }

    #[test]
    fn ports_are_listed_in_natural_order() {
        let bindings = [
            binding("0.0.0.0:8443", 443, Protocol::Tcp),
            binding("[::]:8080", 80, Protocol::Tcp),
            binding("0.0.0.0:5353", 80, Protocol::Udp),
            binding("0.0.0.0:8080", 80, Protocol::Tcp),
            binding("127.0.0.1:999", 80, Protocol::Tcp),
        ];
        let expected = [
            "80/tcp -> 0.0.0.0:8080",
            "80/tcp -> 127.0.0.1:999",
            "80/tcp -> [::]:8080",
            "80/udp -> 0.0.0.0:5353",
            "443/tcp -> 0.0.0.0:8443",
        ];
        assert_eq!(lines(&bindings), expected);
        let of = |port| hosts(&of_port(bindings.to_vec(), port, "web").unwrap());
        assert_eq!(of("443"), ["0.0.0.0:8443"]);
        assert_eq!(of("80/udp"), ["0.0.0.0:5353"]);
        assert_eq!(of("80"), ["0.0.0.0:8080", "127.0.0.1:999", "[::]:8080"]);
    }

    #[test]
    fn a_port_that_is_not_published_is_named_as_it_was_typed() {
        let bindings = [binding("0.0.0.0:8080", 80, Protocol::Tcp)];
        let refused = |asked: &str| of_port(bindings.to_vec(), asked, "web").unwrap_err().to_string();
        assert_eq!(refused("81"), "no public port '81' published for web");
        assert_eq!(refused("80/udp"), "no public port '80/udp' published for web");
        assert!(refused("http").starts_with("invalid port 'http'"));
    }

    #[test]
    fn runs_of_equal_ports_are_drawn_together() {
        let port = |host: &str, port: u16| docker::Port::from(&binding(host, port, Protocol::Tcp));
        let ports = [
            port("0.0.0.0:8002", 8002),
            port("0.0.0.0:8080", 80),
            port("0.0.0.0:8000", 8000),
            port("[::]:8080", 80),
            port("0.0.0.0:8001", 8001),
            port("[::]:9000", 9000),
            port("0.0.0.0:8004", 8004),
            docker::Port::from(&ExposedPort { port: 82, protocol: Protocol::Tcp }),
            docker::Port::from(&ExposedPort { port: 81, protocol: Protocol::Tcp }),
            docker::Port::from(&ExposedPort { port: 53, protocol: Protocol::Udp }),
        ];
        assert_eq!(
            summary(&ports),
            "81-82/tcp, 53/udp, 0.0.0.0:8000-8002->8000-8002/tcp, 0.0.0.0:8004->8004/tcp, [::]:9000->9000/tcp, \
             0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(summary(&[]), "");
    }

    #[test]
    fn digits_compare_as_numbers() {
        let mut texts = ["b", "a10", "a9", "a", "a010b", "10", "9"];
        texts.sort_by(|a, b| natural(a, b));
        assert_eq!(texts, ["9", "10", "a", "a9", "a10", "a010b", "b"]);
    }
}
