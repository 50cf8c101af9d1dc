//! Runs steps. A change that fails is undone in reverse order; a removal goes on past errors.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Error, Result, anyhow};

use super::{
    backend::{Datapath, EndpointSpec, Host, Link},
    directory::{Directory, has_names},
    faults::Faults,
    files,
    index::Index,
    model::{Binding, MacAddr, link::LinkKind},
    step::{Change, EndpointIntent, Step},
};
use crate::store::{
    Store,
    schema::{Container, Network, Phase, Record, State},
};

/// All that steps act on.
pub(super) struct Machine<H, D> {
    /// The host's network.
    pub host: H,
    /// The datapath.
    pub datapath: D,
    /// Where the state is kept.
    pub store: Store,
    /// What was asked for; the store has the same.
    pub state: State,
    /// What is taken, drawn from `state`.
    pub index: Index,
    /// Names of containers, drawn from `state`.
    pub directory: Arc<Directory>,
    /// Endpoints as the datapath knows them, by the name of the host's end.
    pub endpoints: BTreeMap<String, EndpointSpec>,
    /// The host's own addresses as the datapath knows them, sorted.
    pub addresses: Vec<IpAddr>,
    /// Containers are to take frames without a packet buffer.
    pub frames: bool,
    /// Names of the host's ends of pairs whose other end does.
    taking: BTreeSet<String>,
    /// Steps that are to fail.
    pub faults: Faults,
}

impl<H: Host, D: Datapath> Machine<H, D> {
    /// A machine with nothing in the datapath yet.
    pub(super) fn new(host: H, datapath: D, store: Store, state: State) -> Self {
        let (endpoints, addresses) = (BTreeMap::new(), Vec::new());
        let index = Index::new(state.containers.values());
        let directory = Arc::<Directory>::default();
        for network in state.networks.values() {
            directory.update_network(None, Some(network));
        }
        for container in state.containers.values() {
            directory.update_container(None, Some(container));
        }
        Self {
            host,
            datapath,
            store,
            state,
            index,
            directory,
            endpoints,
            addresses,
            frames: false,
            taking: BTreeSet::new(),
            faults: Faults::default(),
        }
    }

    /// Runs all steps, or none: when one fails, those before it are undone, last first.
    ///
    /// # Errors
    /// What failed; and, when undoing failed too, what is left. What is left stays in the store as being
    /// removed, so that removing it again, or the next start, finishes the work.
    pub(super) fn apply(&mut self, steps: &[Step]) -> Result<()> {
        for (done, step) in steps.iter().enumerate() {
            if let Err(cause) = self.run(step) {
                let failed = cause.context(step.to_string());
                let undoing = self.undo(&steps[..done + usize::from(step.may_be_partial())]);
                return Err(both(failed, undoing));
            }
        }
        Ok(())
    }

    /// Runs all steps, whatever fails.
    ///
    /// # Errors
    /// Everything that failed, in one line.
    pub(super) fn apply_all(&mut self, steps: &[Step]) -> Result<()> {
        let errors = steps
            .iter()
            .filter_map(|step| self.run(step).with_context(|| step.to_string()).err())
            .collect::<Vec<_>>();
        collected(errors)
    }

    /// Notes what is going to be removed. Where the disk is full this goes without saying: removing needs no room, and a
    /// crash halfway leaves what the next start makes whole again.
    ///
    /// # Errors
    /// When the disk refuses for another reason.
    pub(super) fn note_removal(&mut self, step: Step) -> Result<()> {
        let noted = self.apply(&[step]);
        match &noted {
            Err(e) if is_full(e) => {
                tracing::warn!("{e:#}; what is removed meanwhile is not noted");
                Ok(())
            }
            _ => noted,
        }
    }

    fn run(&mut self, step: &Step) -> Result<()> {
        self.faults.count()?;
        self.execute(step)
    }

    fn undo(&mut self, steps: &[Step]) -> Vec<Error> {
        let mut errors = Vec::new();
        for inverse in steps.iter().rev().filter_map(Step::inverse) {
            let inverse = if errors.is_empty() { inverse } else { keep_record(inverse) };
            if let Err(cause) = self.execute(&inverse) {
                errors.push(cause.context(inverse.to_string()));
            }
        }
        errors
    }

    fn execute(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::SaveNetwork(change) => {
                keep(&self.store, change)?;
                self.directory.update_network(change.before.as_deref(), change.after.as_deref());
                note(&mut self.state.networks, change);
                Ok(())
            }
            Step::SaveContainer(change) => {
                keep(&self.store, change)?;
                self.index.update(change.before.as_deref(), change.after.as_deref());
                self.directory.update_container(change.before.as_deref(), change.after.as_deref());
                note(&mut self.state.containers, change);
                Ok(())
            }
            Step::AdoptBridge { spec, .. } => self.host.adopt_bridge(spec).map(drop),
            Step::LendBridge { name, .. } => self.host.lend_bridge(name),
            Step::ReturnBridge { name, before } => self.host.return_bridge(name, before),
            Step::RestoreBridge { name, state } => self.host.restore_bridge(name, state),
            Step::CreateBridge(spec) => self.host.create_bridge(spec).map(drop),
            Step::DeleteBridge(name) | Step::DeletePair(name) => self.host.delete_link(name),
            Step::SetAddresses { after, .. } => self.set_addresses(after.clone()),
            Step::WriteFiles(files) => files.write(),
            Step::UpdateFiles { before, after } => after.update(before),
            Step::RemoveFiles(dir) => files::remove(dir),
            Step::CreateNetns(name) => self.host.create_netns(name).map(drop),
            Step::DeleteNetns(name) => self.host.delete_netns(name),
            Step::HoldNamespaces { dir, hostname } => self.host.hold_namespaces(dir, hostname),
            Step::ReleaseNamespaces(dir) => self.host.release_namespaces(dir),
            Step::SetSysctls { netns, dir, settings } => self.host.set_sysctls(netns, dir, settings),
            Step::IsolatePort(name) => self.host.isolate_port(name, true),
            Step::ReleasePort(name) => self.host.isolate_port(name, false),
            Step::CreatePair(spec) => {
                self.host.create_pair(spec)?;
                if let Some(netns) = &spec.netns {
                    self.take_frames(spec.kind, &spec.host_name, netns, &spec.name);
                }
                Ok(())
            }
            Step::AddEndpoint(endpoint) => self.add_endpoint(endpoint),
            Step::RemoveEndpoint(endpoint) => self.remove_endpoint(endpoint),
            Step::SetDefaultRoutes(change) => {
                self.host.set_default_routes(&change.netns, &change.interfaces, &change.after)
            }
            Step::SetSources { number, after, .. } => self.datapath.set_sources(*number, after),
            Step::Publish(bindings) => self.datapath.publish(bindings),
            Step::Unpublish(bindings) => self.datapath.unpublish(bindings),
            Step::Republish { before, after } => self.republish(before, after),
        }
    }

    /// What is to stay never stops, and a port that leads elsewhere does so from one packet to the next.
    fn republish(&mut self, before: &[Binding], after: &[Binding]) -> Result<()> {
        let known: BTreeSet<_> = before.iter().collect();
        let new: Vec<_> = after.iter().filter(|binding| !known.contains(binding)).copied().collect();
        if !new.is_empty() {
            self.datapath.publish(&new)?;
        }
        let hosts: BTreeSet<_> = after.iter().map(|binding| binding.host).collect();
        let gone: Vec<_> = before.iter().filter(|binding| !hosts.contains(&binding.host)).copied().collect();
        if gone.is_empty() { Ok(()) } else { self.datapath.unpublish(&gone) }
    }

    /// Tells the datapath the host's own addresses, and which of them answer for names.
    ///
    /// # Errors
    /// When the datapath refuses.
    pub(super) fn set_addresses(&mut self, mut addresses: Vec<IpAddr>) -> Result<()> {
        addresses.sort_unstable();
        addresses.dedup();
        let named = |network: &&Network| has_names(network) && network.phase != Phase::Removing;
        let named = self.state.networks.values().filter(named);
        let gateways = named.flat_map(|network| network.subnets.iter().filter_map(|s| s.gateway)).collect();
        self.datapath.set_addresses(&addresses, &gateways)?;
        self.addresses = addresses;
        Ok(())
    }

    /// Has a container's interface take frames without a packet buffer, if that is asked for. One that does not is
    /// delivered to as ever; a netkit never does, as it has no `ndo_xdp_xmit`.
    pub(super) fn take_frames(&mut self, kind: LinkKind, host_name: &str, netns: &Path, interface: &str) {
        self.taking.remove(host_name);
        if !self.frames || kind != LinkKind::Veth {
            return;
        }
        match self.host.take_frames(netns, interface) {
            Ok(()) => drop(self.taking.insert(host_name.to_owned())),
            Err(e) => tracing::warn!(link = host_name, "XDP does not deliver to it: {e:#}"),
        }
    }

    fn add_endpoint(&mut self, intent: &EndpointIntent) -> Result<()> {
        let link = self.host.find_link(&intent.host_name)?;
        let link = link.with_context(|| format!("find link {}: it is gone", intent.host_name))?;
        let bridge = self.host.find_bridge(&intent.bridge)?;
        let bridge = bridge.with_context(|| format!("find bridge {}: it is gone", intent.bridge))?;
        let takes_frames = self.taking.contains(&intent.host_name);
        let spec = EndpointSpec { takes_frames, ..endpoint(intent, link.index, bridge) };
        self.datapath.add_endpoint(&spec)?;
        self.endpoints.insert(spec.host_name.clone(), spec);
        Ok(())
    }

    fn remove_endpoint(&mut self, intent: &EndpointIntent) -> Result<()> {
        let spec = match self.endpoints.get(&intent.host_name) {
            Some(known) => known.clone(),
            None => {
                let index = self.host.find_link(&intent.host_name)?.map_or(0, |link| link.index);
                let bridge = self.host.find_bridge(&intent.bridge).ok().flatten();
                endpoint(intent, index, bridge.unwrap_or(Link { index: 0, mac: MacAddr([0; 6]) }))
            }
        };
        self.datapath.remove_endpoint(&spec)?;
        self.endpoints.remove(&intent.host_name);
        self.taking.remove(&intent.host_name);
        Ok(())
    }
}

fn is_full(error: &Error) -> bool {
    let mut causes = error.chain().filter_map(|e| e.downcast_ref::<io::Error>());
    causes.any(|e| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

/// Brings a record to the disk, where it is before it is noted in memory.
fn keep<T: Record + Clone>(store: &Store, change: &Change<T>) -> Result<()> {
    write(store, change).inspect_err(|_| {
        // It may stand there all the same, without its outliving a crash of the host being sure.
        if let Err(e) = write(store, &change.reversed()) {
            tracing::debug!("put back what could not be saved: {e:#}");
        }
    })
}

fn write<T: Record>(store: &Store, change: &Change<T>) -> Result<()> {
    match (&change.before, &change.after) {
        (_, Some(record)) => store.save(&**record),
        (Some(record), None) => store.delete::<T>(record.id()),
        (None, None) => Ok(()),
    }
}

fn note<T: Record + Clone>(records: &mut BTreeMap<String, T>, change: &Change<T>) {
    match (&change.before, &change.after) {
        (_, Some(record)) => drop(records.insert(record.id().to_owned(), (**record).clone())),
        (Some(record), None) => drop(records.remove(record.id())),
        (None, None) => {}
    }
}

/// One error of many; none of none.
///
/// # Errors
/// All of them, joined to one line.
pub(super) fn collected(errors: Vec<Error>) -> Result<()> {
    let texts: Vec<String> = errors.iter().map(|e| format!("{e:#}")).collect();
    if texts.is_empty() { Ok(()) } else { Err(anyhow!(texts.join("; "))) }
}

fn both(failed: Error, undoing: Vec<Error>) -> Error {
    match collected(undoing) {
        Ok(()) => failed,
        Err(left) => {
            anyhow!("{failed:#}; undoing it failed too, which removing it or a restart finishes: {left:#}")
        }
    }
}

/// Instead of striking a record out, notes that its object is to be removed.
fn keep_record(step: Step) -> Step {
    if let Step::SaveNetwork(Change { before: Some(record), after: None }) = &step {
        let removing = Network { phase: Phase::Removing, ..*record.clone() };
        return Step::SaveNetwork(Change::replace(*record.clone(), removing));
    }
    if let Step::SaveContainer(Change { before: Some(record), after: None }) = &step {
        let removing = Container { phase: Phase::Removing, ..*record.clone() };
        return Step::SaveContainer(Change::replace(*record.clone(), removing));
    }
    step
}

fn endpoint(intent: &EndpointIntent, ifindex: u32, bridge: Link) -> EndpointSpec {
    EndpointSpec {
        host_name: intent.host_name.clone(),
        ifindex,
        bridge,
        network: intent.network,
        mac: intent.mac,
        addrs: intent.addrs.clone(),
        mtu: intent.mtu,
        policy: intent.policy,
        takes_frames: false,
    }
}
