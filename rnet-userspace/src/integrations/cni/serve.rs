//! From what an engine says to what it is answered.

use std::io;

use serde_json::{Value, json};

use super::{
    call::{Call, Command},
    config::{self, Config, Mode},
    container_id,
    daemon::Daemon,
    error::{Code, Error, Result},
    ipam::Ipam,
    network_id,
    version::Version,
};
use crate::controller::{
    model::{engine::Engine, name::short_id, port_spec::PortMapping},
    request::{EngineContainer, EngineInterface},
};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// What goes to standard output.
    pub json: Option<Value>,
    /// It is a refusal.
    pub is_refusal: bool,
}

/// Answers a call: `variable` is the environment, `input` standard input, `instance` that of which the daemon is meant
/// where the configuration does not say.
pub fn serve(
    variable: impl Fn(&str) -> Option<String>,
    input: impl FnOnce() -> io::Result<Vec<u8>>,
    instance: &str,
) -> Reply {
    let mut version = Version::LATEST;
    match answer(variable, input, instance, &mut version) {
        Ok(json) => Reply { json, is_refusal: false },
        Err(error) => Reply { json: Some(error.to_json(version)), is_refusal: true },
    }
}

fn answer(
    variable: impl Fn(&str) -> Option<String>,
    input: impl FnOnce() -> io::Result<Vec<u8>>,
    instance: &str,
    version: &mut Version,
) -> Result<Option<Value>> {
    let call = Call::read(variable)?;
    let input = input().map_err(|e| Error::new(Code::Io, format!("read the configuration: {e}")))?;
    let json: serde_json::Result<Value> = serde_json::from_slice(&input);
    if call.command == Command::Version {
        let asked = json.ok().and_then(|json| json.get("cniVersion")?.as_str().map(str::to_owned));
        let versions = Version::ALL.map(|version| version.to_string());
        let asked = asked.unwrap_or_else(|| version.to_string());
        return Ok(Some(json!({ "cniVersion": asked, "supportedVersions": versions })));
    }
    let json = json.map_err(|e| Error::new(Code::Decode, format!("the configuration is no JSON: {e}")))?;
    *version = config::version(&json)?;
    version.check(call.command)?;
    let config = Config::read(&json, &call)?;
    let session = Session {
        daemon: Daemon::of(config.instance.as_deref().unwrap_or(instance))?,
        container: container_id(&call.container),
        network: network_id(&config.name, config.mode),
        ipam: config.ipam.as_deref().map(|name| Ipam::find(name, &call, &input)).transpose()?,
        version: *version,
        call: &call,
        config: &config,
    };
    session.answer()
}

/// A call with all that answers it.
pub(super) struct Session<'a> {
    pub(super) call: &'a Call,
    pub(super) config: &'a Config,
    pub(super) version: Version,
    pub(super) daemon: Daemon,
    /// Who gives addresses, where it is not rnet.
    pub(super) ipam: Option<Ipam<'a>>,
    /// The daemon's id for the container.
    pub(super) container: String,
    /// The daemon's id for the network.
    pub(super) network: String,
}

impl Session<'_> {
    fn answer(&self) -> Result<Option<Value>> {
        match (self.call.command, self.config.mode) {
            (Command::Add, Mode::Bridge) => self.add().map(Some),
            (Command::Add, Mode::Portmap) => self.add_ports().map(Some),
            (Command::Check, Mode::Bridge) => self.check().map(|()| None),
            (Command::Check, Mode::Portmap) => self.check_ports().map(|()| None),
            (Command::Del, _) => self.remove().map(|()| None),
            (Command::Gc, _) => self.collect().map(|()| None),
            (Command::Status, _) => self.status().map(|()| None),
            // Answered before there is a session.
            (Command::Version, _) => Ok(None),
        }
    }

    fn status(&self) -> Result<()> {
        let not_available = |error: Error| Error { code: Code::NotAvailable, ..error };
        self.daemon.ask(|client| client.status()).map_err(|e| not_available(e.into()))?;
        self.ipam.as_ref().map_or(Ok(()), |ipam| ipam.tell(Command::Status))
    }

    /// Refuses the host's own namespace, and what is no namespace.
    pub(super) fn check_netns(&self) -> Result<()> {
        let netns = self.call.netns()?;
        match crate::host::interfaces::is_own_netns(netns) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::new(
                Code::Environment,
                format!("CNI_NETNS: {} is the host's own network namespace", netns.display()),
            )),
            Err(e) => Err(Error::new(Code::Environment, format!("CNI_NETNS: {e:#}"))),
        }
    }

    /// The network's lowest-numbered interface leads outside, as the first that gives a default route does elsewhere.
    pub(super) fn priority(&self) -> i64 {
        let digits = self.call.interface.trim_start_matches(|c: char| !c.is_ascii_digit());
        -digits.parse::<i64>().unwrap_or_default().abs()
    }

    /// The container with an interface that is to be on the network, and with these ports.
    pub(super) fn with_interface(
        &self,
        interface: EngineInterface,
        ports: Vec<PortMapping>,
    ) -> EngineContainer {
        EngineContainer {
            engine: Engine::Cni,
            id: self.container.clone(),
            name: self.container_name(),
            netns: self.call.netns.clone(),
            interfaces: vec![interface],
            ports,
            keeps_ports: self.config.ports_are_kept(self.call),
        }
    }

    /// What the container is called: Podman's name for it, the pod's, or the short id.
    fn container_name(&self) -> String {
        let args = &self.call.args;
        match (&args.pod_namespace, &args.pod) {
            // No name of a pod has an underscore.
            (Some(namespace), Some(pod)) => format!("{namespace}_{pod}"),
            (None, Some(pod)) => pod.clone(),
            (_, None) => short_id(&self.call.container).to_owned(),
        }
    }
}
