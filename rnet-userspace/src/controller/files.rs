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
    model::{name::check_hostname, resolv_conf::nameservers},
};
use crate::{bounded, store::schema::Resolver};

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
    /// What they are.
    pub content: Content,
}

/// What a container's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Its own.
    Own {
        /// Content of `resolv.conf`.
        resolv_conf: String,
        /// Content of `hosts`.
        hosts: String,
        /// The host name, without a line's end.
        hostname: String,
    },
    /// Those in this directory of another container, and whatever they become.
    SharedWith(PathBuf),
}

const RESOLV_CONF: &str = "resolv.conf";
const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";

impl ContainerFiles {
    /// Makes the directory and writes them. A failure may leave some of them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create directory {}", self.dir.display()))?;
        match &self.content {
            Content::Own { resolv_conf, hosts, hostname } => {
                let hostname = format!("{hostname}\n");
                [(RESOLV_CONF, resolv_conf), (HOSTS, hosts), (HOSTNAME, &hostname)].into_iter().try_for_each(
                    |(name, content)| {
                        let path = self.dir.join(name);
                        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
                    },
                )
            }
            Content::SharedWith(other) => [RESOLV_CONF, HOSTS, HOSTNAME].into_iter().try_for_each(|name| {
                let (from, to) = (other.join(name), self.dir.join(name));
                fs::hard_link(&from, &to)
                    .with_context(|| format!("link {} to {}", to.display(), from.display()))
            }),
        }
    }

    /// Writes them over those of `before`, in place, because a container has them mounted. A file that somebody has
    /// changed since stays as it is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn update(&self, before: &Self) -> Result<()> {
        let (
            Content::Own { resolv_conf, hosts, .. },
            Content::Own { resolv_conf: old_resolv_conf, hosts: old_hosts, .. },
        ) = (&self.content, &before.content)
        else {
            return Ok(());
        };
        for (name, old, new) in [(RESOLV_CONF, old_resolv_conf, resolv_conf), (HOSTS, old_hosts, hosts)] {
            let path = self.dir.join(name);
            // An empty one is what an interrupted write has left. The container may have made it as large as it likes.
            let is_ours = || {
                bounded::file(&path, old.len()).is_ok_and(|text| text.is_empty() || text == old.as_bytes())
            };
            if old == new || !is_ours() {
                continue;
            }
            match fs::write(&path, new) {
                // The container has made it read-only, and the daemon does without CAP_DAC_OVERRIDE: so it stays.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                    tracing::warn!("leave {} as it is: {e}", path.display());
                }
                written => written.with_context(|| format!("write {}", path.display()))?,
            }
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
    let read = |path| of_host(path, bounded::SETTINGS).unwrap_or_default();
    let text = read("/etc/resolv.conf");
    let servers: Vec<IpAddr> = nameservers(&text).collect();
    if !servers.is_empty() && servers.iter().all(IpAddr::is_loopback) {
        let behind = read("/run/systemd/resolve/resolv.conf");
        if !behind.is_empty() {
            return behind;
        }
    }
    text
}

/// A file of the host's, which containers do without where it cannot be read.
fn of_host(path: &str, most: usize) -> Option<String> {
    match bounded::text_file(Path::new(path), most) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => {
            tracing::warn!("containers do without what {path} says: {e}");
            None
        }
    }
}

/// Where a container finds the addresses of names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Servers<'a> {
    /// From rnet's own servers at these addresses.
    Rnet(&'a [IpAddr]),
    /// From those that it names, or else the host's.
    Others,
    /// As `Others`; the host's loopback is its own.
    OnHost,
}

/// A container's `resolv.conf`: what `asked` does not say, the host's does. Name servers on a loopback address are
/// left out where a container's loopback is its own.
pub(super) fn resolv_conf(host: &str, asked: &Resolver, servers: Servers<'_>) -> String {
    let words = |keyword: &'static str| {
        let lines = host.lines().filter_map(move |line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(keyword)).then_some(words)
        });
        lines.flatten().map(str::to_owned)
    };
    let or_host = |asked: &[String], keyword| {
        if asked.is_empty() { words(keyword).collect() } else { asked.to_vec() }
    };
    let of_host = |reachable: fn(&IpAddr) -> bool| nameservers(host).filter(reachable).collect();
    let is_rnet = matches!(servers, Servers::Rnet(_));
    let servers: Vec<IpAddr> = match servers {
        Servers::Rnet(addrs) => addrs.to_vec(),
        Servers::Others | Servers::OnHost if !asked.servers.is_empty() => asked.servers.clone(),
        Servers::Others => of_host(|addr| !addr.is_loopback()),
        Servers::OnHost => of_host(|_| true),
    };
    let mut options: Vec<String> = or_host(&asked.options, "options");
    // Names without a dot are containers', and asked for as they are.
    if is_rnet && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut search: Vec<String> = or_host(&asked.search, "search");
    search.retain(|domain| domain != ".");
    let mut text = String::new();
    for addr in servers {
        line(&mut text, format_args!("nameserver {addr}"));
    }
    for (keyword, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            line(&mut text, format_args!("{keyword} {}", words.join(" ")));
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

/// The `hosts` of a container in the host's network: the host's own, and the `extra` ones.
pub(super) fn hosts_of_host(extra: &[(String, IpAddr)]) -> String {
    let mut text = of_host("/etc/hosts", bounded::HOSTS).unwrap_or_else(|| LOCALHOST.to_owned());
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, addr) in extra {
        line(&mut text, format_args!("{addr}\t{name}"));
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
                "no address for add-host {text:?}: no network of this instance has a gateway"
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

    fn asked(servers: &[&str], search: &[&str], options: &[&str]) -> Resolver {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Resolver {
            servers: servers.iter().map(|s| ip(s)).collect(),
            search: owned(search),
            options: owned(options),
        }
    }

    #[test]
    fn loopback_name_servers_are_left_out_where_the_loopback_is_another() {
        let nothing = Resolver::default();
        assert_eq!(
            resolv_conf(HOST, &nothing, Servers::Others),
            "nameserver 192.0.2.1\nsearch example.org\noptions edns0\n"
        );
        assert_eq!(
            resolv_conf(HOST, &nothing, Servers::OnHost),
            "nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\nsearch example.org\noptions edns0\n"
        );
    }

    #[test]
    fn what_is_asked_for_takes_the_place_of_the_hosts() {
        assert_eq!(
            resolv_conf(HOST, &asked(&["198.51.100.1", "fd00::53"], &[], &[]), Servers::Others),
            "nameserver 198.51.100.1\nnameserver fd00::53\nsearch example.org\noptions edns0\n"
        );
        assert_eq!(
            resolv_conf(HOST, &asked(&[], &["a.test", "b.test"], &["timeout:1"]), Servers::Others),
            "nameserver 192.0.2.1\nsearch a.test b.test\noptions timeout:1\n"
        );
        assert_eq!(
            resolv_conf(HOST, &asked(&[], &["."], &[]), Servers::Others),
            "nameserver 192.0.2.1\noptions edns0\n"
        );
    }

    #[test]
    fn names_of_containers_are_asked_of_rnet() {
        let gateways = [ip("10.1.0.1")];
        let conf = |asked| resolv_conf(HOST, &asked, Servers::Rnet(&gateways));
        assert_eq!(
            conf(asked(&["198.51.100.1"], &[], &[])),
            "nameserver 10.1.0.1\nsearch example.org\noptions edns0 ndots:0\n"
        );
        assert_eq!(conf(asked(&[], &["."], &["ndots:2"])), "nameserver 10.1.0.1\noptions ndots:2\n");
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
        assert!(error("host:host-gateway").contains("has a gateway"));
        assert!(error("a b:10.0.0.1").contains("invalid host name"));
    }

    #[test]
    fn files_are_written_and_removed_whole() {
        let run = tempfile::tempdir().unwrap();
        let files = ContainerFiles {
            dir: run.path().join("containers/1"),
            content: Content::Own {
                resolv_conf: "options edns0\n".into(),
                hosts: LOCALHOST.into(),
                hostname: "web".into(),
            },
        };
        files.write().unwrap();
        let read = |name| fs::read_to_string(files.dir.join(name)).unwrap();
        assert_eq!((read("hostname").as_str(), read("resolv.conf").as_str()), ("web\n", "options edns0\n"));
        let other = ContainerFiles {
            dir: run.path().join("containers/2"),
            content: Content::SharedWith(files.dir.clone()),
        };
        other.write().unwrap();
        let content = |resolv_conf: &str, hosts: &str| Content::Own {
            resolv_conf: resolv_conf.into(),
            hosts: hosts.into(),
            hostname: "web".into(),
        };
        fs::write(files.dir.join("hosts"), "mine\n").unwrap();
        let after = ContainerFiles { content: content("options rotate\n", "all\n"), ..files.clone() };
        after.update(&files).unwrap();
        assert_eq!((read("resolv.conf").as_str(), read("hosts").as_str()), ("options rotate\n", "mine\n"));
        let shared = fs::read_to_string(other.dir.join("resolv.conf")).unwrap();
        assert_eq!(shared, "options rotate\n", "whoever shares them sees the change");
        fs::write(files.dir.join("log"), "said").unwrap();
        remove(&files.dir).unwrap();
        remove(&files.dir).unwrap();
        assert!(!files.dir.exists());
    }
}
