//! A container's own `resolv.conf`, `hosts` and `hostname`.

use std::{
    fmt::Write,
    fs,
    io::ErrorKind,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    error::{Error, Result as ControllerResult},
    model::name::check_hostname,
};

/// Lines of every container's `hosts`.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The files of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerFiles {
    /// The directory that they lie in. It belongs to the container, with all that is put there.
    pub dir: PathBuf,
    /// Content of `resolv.conf`.
    pub resolv_conf: String,
    /// Content of `hosts`.
    pub hosts: String,
    /// The host name, without a line's end.
    pub hostname: String,
}

impl ContainerFiles {
    /// Makes the directory and writes them. A failure may leave some of them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create directory {}", self.dir.display()))?;
        let hostname = format!("{}\n", self.hostname);
        for (name, content) in
            [("resolv.conf", &self.resolv_conf), ("hosts", &self.hosts), ("hostname", &hostname)]
        {
            let path = self.dir.join(name);
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Removes a container's directory, if it is there.
///
/// # Errors
/// When the disk refuses.
pub(super) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("remove directory {}", dir.display())),
    }
}

/// The host's `resolv.conf`; empty if there is none. Where all that it names is a local stub of
/// systemd-resolved, which no container can reach, it is the file with the servers behind the stub.
pub(super) fn host_resolv_conf() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let text = read("/etc/resolv.conf");
    let mut servers = text.lines().filter_map(nameserver).peekable();
    if servers.peek().is_some() && servers.all(|addr| addr.is_loopback()) {
        let behind = read("/run/systemd/resolve/resolv.conf");
        if !behind.is_empty() {
            return behind;
        }
    }
    text
}

/// A container's `resolv.conf`: the host's, with `dns` in place of its name servers if there are any. Name
/// servers on a loopback address are left out, because a container's loopback is its own.
pub(super) fn resolv_conf(host: &str, dns: &[IpAddr]) -> String {
    let mut text = String::new();
    for addr in dns {
        line(&mut text, format_args!("nameserver {addr}"));
    }
    for kept in host.lines().filter(|l| !l.trim_start().starts_with(['#', ';']) && !l.trim().is_empty()) {
        let is_server = kept.split_whitespace().next() == Some("nameserver");
        if !is_server || dns.is_empty() && nameserver(kept).is_some_and(|addr| !addr.is_loopback()) {
            line(&mut text, format_args!("{kept}"));
        }
    }
    text
}

/// A container's `hosts`: localhost, the `extra` ones, then its own addresses under its own name.
pub(super) fn hosts(addrs: &[IpAddr], hostname: &str, extra: &[(String, IpAddr)]) -> String {
    let mut text = LOCALHOST.to_owned();
    for (name, addr) in extra {
        line(&mut text, format_args!("{addr}\t{name}"));
    }
    let short = hostname.split_once('.').map(|(host, _)| format!(" {host}")).unwrap_or_default();
    for addr in addrs {
        line(&mut text, format_args!("{addr}\t{hostname}{short}"));
    }
    text
}

/// Reads `--add-host`'s `name:address`, or `name=address`; the address may be `host-gateway`, which is
/// `gateway`'s.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words.
pub(super) fn extra_host(text: &str, gateway: Option<IpAddr>) -> ControllerResult<(String, IpAddr)> {
    let (name, addr) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| {
            Error::Invalid(format!("bad format for add-host: {text:?}: name:address is allowed"))
        })?;
    check_hostname(name)?;
    let addr = match (addr, gateway) {
        ("host-gateway", Some(gateway)) => gateway,
        ("host-gateway", None) => {
            return Err(Error::Invalid(format!(
                "no address for add-host {text:?}: the container has no gateway"
            )));
        }
        _ => addr
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .map_err(|_| Error::Invalid(format!("invalid IP address in add-host: {addr:?}")))?,
    };
    Ok((name.to_owned(), addr))
}

/// The address of a `nameserver` line. A zone, as in `fe80::1%eth0`, is an interface of the host: no use here.
fn nameserver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\nsearch example.org\nnameserver 127.0.0.53\nnameserver  192.0.2.1\n\
        nameserver ::1\nnameserver fe80::1%eth0\noptions edns0\n";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_name_servers_are_left_out() {
        assert_eq!(resolv_conf(HOST, &[]), "search example.org\nnameserver  192.0.2.1\noptions edns0\n");
    }

    #[test]
    fn own_name_servers_take_the_place_of_the_hosts() {
        let text = resolv_conf(HOST, &[ip("198.51.100.1"), ip("fd00::53")]);
        assert_eq!(text, "nameserver 198.51.100.1\nnameserver fd00::53\nsearch example.org\noptions edns0\n");
    }

    #[test]
    fn hosts_has_the_container_under_its_long_and_short_name() {
        let extra = [("db".to_owned(), ip("10.0.0.9"))];
        let text = hosts(&[ip("172.17.0.2")], "web.example.org", &extra);
        let own = text.strip_prefix(LOCALHOST).unwrap();
        assert_eq!(own, "10.0.0.9\tdb\n172.17.0.2\tweb.example.org web\n");
        assert_eq!(hosts(&[], "web", &[]), LOCALHOST);
    }

    #[test]
    fn extra_hosts_are_read_as_docker_reads_them() {
        let gateway = Some(ip("172.17.0.1"));
        for (text, name, addr) in [
            ("db:10.0.0.9", "db", "10.0.0.9"),
            ("db=10.0.0.9", "db", "10.0.0.9"),
            ("db:fd00::9", "db", "fd00::9"),
            ("db:[fd00::9]", "db", "fd00::9"),
            ("host:host-gateway", "host", "172.17.0.1"),
        ] {
            assert_eq!(extra_host(text, gateway).unwrap(), (name.to_owned(), ip(addr)), "{text}");
        }
        let error = |text| extra_host(text, None).unwrap_err().to_string();
        assert_eq!(error("db"), r#"bad format for add-host: "db": name:address is allowed"#);
        assert_eq!(error("db:10.0.0"), r#"invalid IP address in add-host: "10.0.0""#);
        assert!(error("host:host-gateway").contains("has no gateway"));
        assert!(error("a b:10.0.0.1").contains("invalid host name"));
    }

    #[test]
    fn files_are_written_and_removed_whole() {
        let run = tempfile::tempdir().unwrap();
        let files = ContainerFiles {
            dir: run.path().join("containers/1"),
            resolv_conf: "options edns0\n".into(),
            hosts: LOCALHOST.into(),
            hostname: "web".into(),
        };
        files.write().unwrap();
        let read = |name| fs::read_to_string(files.dir.join(name)).unwrap();
        assert_eq!((read("hostname").as_str(), read("resolv.conf").as_str()), ("web\n", "options edns0\n"));
        fs::write(files.dir.join("log"), "said").unwrap();
        remove(&files.dir).unwrap();
        remove(&files.dir).unwrap();
        assert!(!files.dir.exists());
    }
}
