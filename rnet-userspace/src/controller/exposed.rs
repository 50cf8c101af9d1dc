//! Ports that a container listens at, as `--expose` says, and `-P`, which publishes them all.

use ipnetwork::IpNetwork;

use super::{
    error::{Error, Result},
    model::{
        Protocol,
        port_spec::{PortChoice, PortMapping},
    },
    publishing::publication,
    view::ExposedPort,
};
use crate::store::schema::Publication;

/// Reads `80`, `80-82` or `80-82/udp`. Sorted, each once.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words.
pub(super) fn parse(exposes: &[String]) -> Result<Vec<ExposedPort>> {
    let mut ranges = Vec::new();
    for text in exposes {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol: Protocol = protocol
            .parse()
            .map_err(|e| Error::Invalid(format!("invalid port format for --expose: {text}: {e}")))?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
        let (first, last) = range.filter(|(first, last)| 0 < *first && first <= last).ok_or_else(|| {
            Error::Invalid(format!(
                "invalid range format for --expose: {text}: it takes PORT[-PORT][/PROTOCOL]"
            ))
        })?;
        ranges.push((protocol, first, last));
    }
    // Sorted before they are taken apart, so that a port that is there in many ranges is made once.
    ranges.sort_unstable();
    let mut exposed: Vec<ExposedPort> = Vec::new();
    for (protocol, first, last) in ranges {
        let done = exposed.last().filter(|made| made.protocol == protocol).map_or(0, |made| made.port);
        let new = (first..=last).skip_while(|port| *port <= done);
        exposed.extend(new.map(|port| ExposedPort { port, protocol }));
    }
    exposed.sort_unstable();
    Ok(exposed)
}

/// Adds to `ports` what publishes the exposed ones that are not among them yet, each on a port that nobody asked for.
pub(super) fn publish_all(exposed: &[ExposedPort], ports: &mut Vec<Publication>, from: &[IpNetwork]) {
    for ExposedPort { port, protocol } in exposed {
        let is_it = |p: &Publication| p.mapping.container == *port && p.mapping.protocol == *protocol;
        if !ports.iter().any(is_it) {
            let mapping = PortMapping {
                host_ip: None,
                host: PortChoice::Ephemeral,
                container: *port,
                protocol: *protocol,
            };
            ports.push(publication(mapping, from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(exposes: &[&str]) -> Result<Vec<String>> {
        let exposes: Vec<_> = exposes.iter().map(|e| (*e).to_owned()).collect();
        Ok(parse(&exposes)?.iter().map(|e| format!("{}/{}", e.port, e.protocol)).collect())
    }

    #[test]
    fn ports_and_ranges_are_read() {
        assert_eq!(
            parsed(&["81/udp", "80-82", "81", "9/SCTP"]).unwrap(),
            ["9/sctp", "80/tcp", "81/tcp", "81/udp", "82/tcp"]
        );
        let many = vec!["1-65535"; 5000];
        assert_eq!(parsed(&many).unwrap().len(), 65535);
        assert_eq!(parsed(&["5-9", "1-6", "7", "9/udp"]).unwrap().len(), 10);
        for wrong in ["", "0", "x", "82-80", "65536", "80-", "1-2-3"] {
            let told = parsed(&[wrong]).unwrap_err().to_string();
            assert!(told.starts_with("invalid range format for --expose: "), "{told}");
        }
        assert!(parsed(&["80/icmp"]).unwrap_err().to_string().contains("invalid proto: icmp"));
    }
}
