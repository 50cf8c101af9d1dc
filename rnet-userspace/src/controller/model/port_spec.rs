//! Docker's grammar for a published port: `[[HOSTIP:][HOSTPORT[-HOSTPORT]]:]PORT[-PORT][/PROTOCOL]`, and its
//! long form `published=8080,target=80,protocol=tcp`. Refusals are in Docker's words.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Protocol;

/// A range of ports, both ends included, never reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// From `first` to `last`, if that is not backwards.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Ports in it less one, which always fits.
    fn span(self) -> u16 {
        self.last - self.first
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first != self.last { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}

/// What was asked for with one `-p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// The host address; the instance's default when absent.
    host_ip: Option<IpAddr>,
    /// Host ports. As many as container ports, or any number of them to choose one from.
    host: Option<PortRange>,
    container: PortRange,
    protocol: Protocol,
}

/// Which host port a container port is to be published on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortChoice {
    /// This one.
    Exactly(u16),
    /// The first free one of these.
    OneOf(PortRange),
    /// Any of the ephemeral range.
    Ephemeral,
}

/// One container port of a [`PortSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The host address; the instance's default when absent.
    pub host_ip: Option<IpAddr>,
    /// The host port.
    pub host: PortChoice,
    /// The container port.
    pub container: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl PortSpec {
    /// How many single ports it stands for: at least one.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        usize::from(self.container.span()) + 1
    }

    /// The single ports that it stands for: a range of container ports is paired with the range of host ports.
    pub fn mappings(&self) -> impl Iterator<Item = PortMapping> + use<> {
        let Self { host_ip, host, container, protocol } = *self;
        (0..=container.span()).map(move |i| PortMapping {
            host_ip,
            host: match host {
                None => PortChoice::Ephemeral,
                Some(range) if container.span() == 0 && range.span() > 0 => PortChoice::OneOf(range),
                Some(range) if range.first + i == 0 => PortChoice::Ephemeral,
                Some(range) => PortChoice::Exactly(range.first + i),
            },
            container: container.first + i,
            protocol,
        })
    }
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        if spec.contains('=') {
            return from_long_form(spec)?.parse();
        }
        let (host_ip, host, target) = split(spec);
        let (container, protocol) = target.split_once('/').unwrap_or((target, ""));
        if container.is_empty() {
            return Err(format!("no port specified: {spec}<empty>"));
        }
        let protocol =
            if protocol.is_empty() { Protocol::Tcp } else { protocol.to_ascii_lowercase().parse()? };
        let host_ip = if host_ip.is_empty() { None } else { Some(address(host_ip)?) };
        let ports = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
        let host_ports = match host {
            "" => None,
            _ => Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
        };
        if host_ports.is_some_and(|h| ports.span() > 0 && h.span() != ports.span()) {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            ));
        }
        Ok(Self { host_ip, host: host_ports, container: ports, protocol })
    }
}

impl fmt::Display for PortSpec {
    /// The canonical spelling, which parses to the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(addr)) => write!(f, "{addr}:")?,
            Some(IpAddr::V6(addr)) => write!(f, "[{addr}]:")?,
            None => {}
        }
        match self.host {
            Some(ports) => write!(f, "{ports}:")?,
            None if self.host_ip.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}/{}", self.container, self.protocol)
    }
}

/// Host address, host ports, container ports. Split from the right, so that an IPv6 address needs no
/// brackets.
fn split(spec: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = spec.rsplit_once(':') else {
        return ("", "", spec);
    };
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    (ip, host, container)
}

fn address(text: &str) -> Result<IpAddr, String> {
    let invalid = || format!("invalid IP address: {text}");
    let Some(inner) = text.strip_prefix('[') else {
        return text.parse().map(|addr: IpAddr| addr.to_canonical()).map_err(|_| invalid());
    };
    let Some((inner, behind)) = inner.split_once(']') else {
        return Err(format!("invalid IP address {text}: missing ']' in address"));
    };
    if !behind.is_empty() {
        return Err(format!("invalid IP address {text}: missing port in address"));
    }
    inner.parse().map(|addr: IpAddr| addr.to_canonical()).map_err(|_| format!("invalid IP address: {inner}"))
}

fn range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(port(first)?, port(last)?)
}

/// Leading zeros are fine, a sign is not.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The short form of `published=8080,target=80,protocol=tcp`. As with Docker, other keys are ignored.
fn from_long_form(spec: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for option in spec.split(',') {
        match option.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {}
            _ => {
                return Err(format!("invalid publish opts format (should be name=value but got '{option}')"));
            }
        }
    }
    let short = format!("{published}:{target}/{protocol}");
    if short.contains('=') {
        return Err(format!("invalid publish opts format (should be name=value but got '{spec}')"));
    }
    Ok(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_dockers_grammar_is_understood() {
        for (typed, canonical) in [
            ("80", "80/tcp"),
            ("80/", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("8080:80", "8080:80/tcp"),
            ("8080:80/sctp", "8080:80/sctp"),
            (":80", "80/tcp"),
            ("0:80", "0:80/tcp"),
            ("0123:080", "123:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("192.168.64.100:5555:80", "192.168.64.100:5555:80/tcp"),
            ("8000-8002:80-82", "8000-8002:80-82/tcp"),
            ("8000-8010:80", "8000-8010:80/tcp"),
            ("80-82", "80-82/tcp"),
            ("81-81:80-80", "81:80/tcp"),
            ("[::1]:80:80", "[::1]:80:80/tcp"),
            ("::1:80:80", "[::1]:80:80/tcp"),
            ("::::80", "[::]::80/tcp"),
            ("[2001:db8::68]::333", "[2001:db8::68]::333/tcp"),
            ("::ffff:10.0.0.1:1:2", "10.0.0.1:1:2/tcp"),
            ("0.0.0.0:65535:65535", "0.0.0.0:65535:65535/tcp"),
            ("published=8080,target=80", "8080:80/tcp"),
            ("target=80,protocol=udp,mode=host", "80/udp"),
        ] {
            let spec: PortSpec = typed.parse().unwrap_or_else(|e| panic!("{typed}: {e}"));
            assert_eq!(spec.to_string(), canonical, "{typed}");
        }
    }

    #[test]
    fn refusals_are_in_dockers_words() {
        for (typed, error) in [
            ("", "no port specified: <empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("8080:/udp", "no port specified: 8080:/udp<empty>"),
            ("80/icmp", "invalid proto: icmp"),
            ("8080:80/tcp,udp", "invalid proto: tcp,udp"),
            ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("[fe80::1%eth0]:80:80", "invalid IP address: fe80::1%eth0"),
            ("[::1:80:80", "invalid IP address [::1: missing ']' in address"),
            ("[::1]x:80:80", "invalid IP address [::1]x: missing port in address"),
            ("x", "invalid containerPort: x"),
            ("65536", "invalid containerPort: 65536"),
            ("8080:+80", "invalid containerPort: +80"),
            ("8080:82-80", "invalid containerPort: 82-80"),
            ("1-2-3:80", "invalid hostPort: 1-2-3"),
            ("65536:80", "invalid hostPort: 65536"),
            ("-1:80", "invalid hostPort: -1"),
            ("8001-8000:80", "invalid hostPort: 8001-8000"),
            ("8000-8001:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
            ("8000:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000"),
            ("target=80,x", "invalid publish opts format (should be name=value but got 'x')"),
            ("target=80=1", "invalid publish opts format (should be name=value but got 'target=80=1')"),
        ] {
            assert_eq!(typed.parse::<PortSpec>(), Err(error.to_owned()), "{typed}");
        }
    }

    #[test]
    fn ranges_pair_up_unless_there_is_one_container_port() {
        let hosts = |spec: &str| {
            let spec: PortSpec = spec.parse().unwrap();
            spec.mappings().map(|m| (m.host, m.container)).collect::<Vec<_>>()
        };
        use PortChoice::{Ephemeral, Exactly, OneOf};
        assert_eq!(hosts("8000-8002:80-82"), [(Exactly(8000), 80), (Exactly(8001), 81), (Exactly(8002), 82)]);
        assert_eq!(hosts("8000-8010:80"), [(OneOf(PortRange::new(8000, 8010).unwrap()), 80)]);
        assert_eq!(hosts("80-81"), [(Ephemeral, 80), (Ephemeral, 81)]);
        assert_eq!(hosts("0:80"), [(Ephemeral, 80)]);
        assert_eq!(hosts("0-1:80-81"), [(Ephemeral, 80), (Exactly(1), 81)]);
        assert_eq!(hosts("65534-65535:65534-65535"), [(Exactly(65534), 65534), (Exactly(65535), 65535)]);
        assert_eq!(hosts("0-65535:0-65535").len(), 65536);
    }

    fn any_range() -> impl Strategy<Value = PortRange> {
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
    }

    fn any_spec() -> impl Strategy<Value = PortSpec> {
        let shape = prop_oneof![
            any_range().prop_map(|c| (None, c)),
            (any_range(), any::<u16>()).prop_map(|(h, c)| (Some(h), PortRange { first: c, last: c })),
            (0..1000u16, any::<u16>(), any::<u16>()).prop_map(|(span, h, c)| {
                let run = |first: u16| PortRange {
                    first: first.min(u16::MAX - span),
                    last: first.min(u16::MAX - span) + span,
                };
                (Some(run(h)), run(c))
            }),
        ];
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
        (proptest::option::of(any::<IpAddr>()), shape, protocol).prop_map(
            |(ip, (host, container), protocol)| PortSpec {
                host_ip: ip.map(|ip| ip.to_canonical()),
                host,
                container,
                protocol,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(spec in any_spec()) {
            prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec));
        }

        #[test]
        fn whatever_is_typed_is_refused_or_settles(typed in "[0-9a-z:.\\[\\]/=,-]{0,24}") {
            if let Ok(spec) = typed.parse::<PortSpec>() {
                prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec));
                prop_assert!(spec.mappings().count() >= 1);
            }
        }
    }
}
