//! What is asked, as the environment says it.

use std::{
    env, fmt,
    net::IpAddr,
    path::{self, PathBuf},
};

use super::error::{Code, Error, Result};
use crate::controller::model::{
    MacAddr,
    name::{check_interface, check_name},
};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Put a container on the network.
    Add,
    /// Take it off.
    Del,
    /// See whether it is as ADD has made it.
    Check,
    /// Take off all containers but those named.
    Gc,
    /// Say whether ADD would work.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        })
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// What is to be done.
    pub(super) command: Command,
    /// The container; empty where none is meant.
    pub(super) container: String,
    /// Its network namespace, if it is still there.
    pub(super) netns: Option<PathBuf>,
    /// The name of the interface inside; empty where none is meant.
    pub(super) interface: String,
    /// `CNI_ARGS`.
    pub(super) args: Args,
    /// Where other plugins are.
    pub(super) path: Vec<PathBuf>,
}

/// What `CNI_ARGS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Args {
    /// Addresses that are asked for.
    pub(super) ips: Vec<IpAddr>,
    /// The Ethernet address that is asked for.
    pub(super) mac: Option<MacAddr>,
    /// The pod's name. Podman says the container's with it.
    pub(super) pod: Option<String>,
    /// The pod's namespace.
    pub(super) pod_namespace: Option<String>,
    /// A kubelet is behind it: it has named the pod's sandbox, or the pod's number.
    pub(super) has_sandbox: bool,
}

impl Call {
    /// Reads a call from the environment.
    ///
    /// # Errors
    /// [`Code::Environment`], naming the variable.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let command = match variable("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("DEL") => Command::Del,
            Some("CHECK") => Command::Check,
            Some("GC") => Command::Gc,
            Some("STATUS") => Command::Status,
            Some("VERSION") => Command::Version,
            Some(other) => return Err(bad(format!("unknown CNI_COMMAND {other:?}"))),
            None => {
                let message =
                    "CNI_COMMAND is missing: `rnet cni` is called by container engines; see docs/cni.md";
                return Err(bad(message));
            }
        };
        let path = variable("CNI_PATH").unwrap_or_default();
        let mut call = Self {
            command,
            container: String::new(),
            netns: None,
            interface: String::new(),
            args: Args::default(),
            path: env::split_paths(&path).collect(),
        };
        if matches!(command, Command::Gc | Command::Status | Command::Version) {
            return Ok(call);
        }
        let missing = |name: &str| bad(format!("{name} is missing, which {command} needs"));
        call.container = variable("CNI_CONTAINERID").ok_or_else(|| missing("CNI_CONTAINERID"))?;
        check_name("container", &call.container).map_err(|e| bad(format!("CNI_CONTAINERID: {e}")))?;
        call.interface = variable("CNI_IFNAME").ok_or_else(|| missing("CNI_IFNAME"))?;
        check_interface(&call.interface).map_err(|e| bad(format!("CNI_IFNAME: {e}")))?;
        // The daemon's working directory is another.
        let absolute = |netns| path::absolute(netns).map_err(|e| bad(format!("CNI_NETNS: {e}")));
        call.netns = variable("CNI_NETNS").map(absolute).transpose()?;
        if call.netns.is_none() && command != Command::Del {
            return Err(missing("CNI_NETNS"));
        }
        // DEL must do with what ADD has refused.
        if command != Command::Del {
            call.args = Args::parse(&variable("CNI_ARGS").unwrap_or_default())?;
        }
        Ok(call)
    }

    /// The namespace, which is there.
    ///
    /// # Errors
    /// [`Code::Environment`].
    pub(super) fn netns(&self) -> Result<&PathBuf> {
        self.netns.as_ref().ok_or_else(|| bad("CNI_NETNS is missing"))
    }
}

impl Args {
    fn parse(text: &str) -> Result<Self> {
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let mut ignores_unknown = false;
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| bad(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")))?;
            let wrong = |what: &dyn fmt::Display| bad(format!("CNI_ARGS: {key}={value}: {what}"));
            let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "IgnoreUnknown" => {
                    ignores_unknown = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
                }
                "IP" => {
                    for ip in value.split(',').filter(|ip| !ip.is_empty()) {
                        args.ips.push(address(ip).map_err(|e| wrong(&e))?);
                    }
                }
                "MAC" if value.is_empty() => {}
                "MAC" => args.mac = Some(value.parse().map_err(|e: String| wrong(&e))?),
                "K8S_POD_NAME" => args.pod = text(),
                "K8S_POD_NAMESPACE" => args.pod_namespace = text(),
                "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => args.has_sandbox |= !value.is_empty(),
                _ => unknown.push(key),
            }
        }
        if !unknown.is_empty() && !ignores_unknown {
            let unknown = unknown.join(", ");
            return Err(bad(format!("CNI_ARGS: unknown {unknown}, and IgnoreUnknown=1 is not among them")));
        }
        Ok(args)
    }
}

/// An address, with or without the length of its prefix.
///
/// # Errors
/// What is wrong with it.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let (addr, prefix) = text.split_once('/').map_or((text, None), |(addr, prefix)| (addr, Some(prefix)));
    let addr: IpAddr = addr.trim().parse().map_err(|_| format!("{text:?} is no IP address"))?;
    match prefix.map(str::parse::<u8>) {
        None => Ok(addr),
        Some(Ok(prefix)) if prefix <= if addr.is_ipv4() { 32 } else { 128 } => Ok(addr),
        Some(_) => Err(format!("{text:?} is no IP address")),
    }
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::Environment, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Call> {
        let find =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Call::read(find)
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
    ];

    fn with<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
        let others = ADD.into_iter().filter(|(n, _)| *n != name);
        others.chain([(name, value)]).collect()
    }

    #[test]
    fn a_call_is_read_from_the_environment() {
        let kubelet = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p1;K8S_POD_UID=u;X=y;IP=10.1.0.7;\
                       MAC=02:00:00:00:00:07;";
        let call = read(&with("CNI_ARGS", kubelet)).unwrap();
        assert_eq!((call.command, call.interface.as_str()), (Command::Add, "eth0"));
        assert!(call.args.has_sandbox);
        assert_eq!(call.args.ips, ["10.1.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(call.args.mac, Some(MacAddr([2, 0, 0, 0, 0, 7])));
        assert_eq!(
            (call.args.pod.as_deref(), call.args.pod_namespace.as_deref()),
            (Some("p1"), Some("default"))
        );
        let podman = read(&with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=c1;")).unwrap();
        assert!(!podman.args.has_sandbox);
        let gone = read(&[("CNI_COMMAND", "DEL"), ADD[1], ADD[3], ("CNI_NETNS", "")]).unwrap();
        assert_eq!(gone.netns, None);
        for command in ["GC", "STATUS", "VERSION"] {
            read(&[("CNI_COMMAND", command)]).unwrap();
        }
    }

    #[test]
    fn a_refusal_names_the_variable() {
        for (name, value) in [
            ("CNI_COMMAND", ""),
            ("CNI_COMMAND", "add"),
            ("CNI_CONTAINERID", ""),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_IFNAME", ""),
            ("CNI_IFNAME", "sixteen-letters-"),
            ("CNI_IFNAME", ".."),
            ("CNI_NETNS", ""),
            ("CNI_ARGS", "IP"),
            ("CNI_ARGS", "IP=nonsense"),
            ("CNI_ARGS", "MAC=nonsense"),
            ("CNI_ARGS", "COLOUR=red"),
        ] {
            let error = read(&with(name, value)).unwrap_err();
            assert_eq!(error.code, Code::Environment);
            assert!(error.message.contains(name), "{name}={value}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_in_the_environment_panics(command in "ADD|DEL|CHECK", id in ".*", args in ".*") {
            let _ = read(&[
                ("CNI_COMMAND", &command), ("CNI_CONTAINERID", &id), ("CNI_IFNAME", &id),
                ("CNI_NETNS", &id), ("CNI_ARGS", &args),
            ]);
        }
    }
}
