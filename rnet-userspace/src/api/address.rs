//! Where the daemon listens beside its own socket, in Docker's words.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// Docker's ports for its API, without and with TLS.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// An address of the daemon's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:///run/other.sock`.
    Unix(PathBuf),
    /// `tcp://127.0.0.1:2375`; without a port it is Docker's.
    Tcp(IpAddr, Option<u16>),
}

impl Address {
    /// Whether other machines reach it.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Tcp(ip, _) => !ip.is_loopback(),
        }
    }

    /// What a TCP listener is bound to; nothing for a socket in the file system.
    pub(super) fn socket_addr(ip: IpAddr, port: Option<u16>, tls: bool) -> SocketAddr {
        SocketAddr::new(ip, port.unwrap_or(if tls { TLS_PORT } else { PLAIN_PORT }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(ip, Some(port)) => write!(f, "tcp://{}", SocketAddr::new(*ip, *port)),
            Self::Tcp(IpAddr::V6(ip), None) => write!(f, "tcp://[{ip}]"),
            Self::Tcp(IpAddr::V4(ip), None) => write!(f, "tcp://{ip}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "invalid address {text:?}: it should be as unix:///run/rnet/other.sock or tcp://127.0.0.1:2376"
            )
        };
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            // sockaddr_un has 108 bytes, the terminating zero included; the name that it is bound under first has
            // a process id more.
            let fits = path.is_absolute() && path.file_name().is_some() && path.as_os_str().len() <= 90;
            return if fits { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let rest = text.strip_prefix("tcp://").ok_or_else(wrong)?;
        let (host, port) = match rest.rsplit_once(':') {
            // The last colon of an IPv6 address that has no port.
            Some((_, tail)) if tail.contains(']') => (rest, None),
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        };
        let ip = match host {
            // As with Docker; a name that resolves to something else tomorrow is no place to listen at.
            "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                Some(v6) => IpAddr::V6(v6.parse().map_err(|_| wrong())?),
                None => IpAddr::V4(host.parse().map_err(|_| wrong())?),
            },
        };
        let port =
            port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)).transpose()?;
        Ok(Self::Tcp(ip, port))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_dockers() {
        for (text, same) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("tcp://127.0.0.1:2376", "tcp://127.0.0.1:2376"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
            ("tcp://[::]", "tcp://[::]"),
            ("tcp://0.0.0.0", "tcp://0.0.0.0"),
            ("tcp://:2375", "tcp://127.0.0.1:2375"),
            ("tcp://localhost:1", "tcp://127.0.0.1:1"),
            ("tcp://", "tcp://127.0.0.1"),
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(same.to_owned()), "{text}");
        }
        for wrong in [
            "",
            "127.0.0.1:1",
            "fd://",
            "unix://x.sock",
            "unix:///",
            "tcp://host:1",
            "tcp://::1:80",
            "tcp://1.2.3.4:0",
            "tcp://1.2.3.4:65536",
            "tcp://1.2.3.4:",
            "http://127.0.0.1",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_others_reach_is_told_apart() {
        let remote = |text: &str| text.parse::<Address>().unwrap().is_remote();
        assert!(!remote("unix:///run/x.sock") && !remote("tcp://127.9.9.9:1") && !remote("tcp://[::1]:1"));
        // An IPv4 address in IPv6's clothes is not taken for the loopback one that it is.
        assert!(remote("tcp://0.0.0.0:1") && remote("tcp://[::]:1") && remote("tcp://[::ffff:127.0.0.1]:1"));
        let port = |tls| Address::socket_addr(Ipv4Addr::LOCALHOST.into(), None, tls).port();
        assert_eq!((port(false), port(true)), (2375, 2376));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ip: IpAddr, port in proptest::option::of(1..=u16::MAX)) {
            let address = Address::Tcp(ip, port);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
