//! Which programs are where, rnet's and others', for those who look for a fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use aya_obj::generated::bpf_attach_type::{
    self, BPF_CGROUP_INET4_BIND, BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET4_GETPEERNAME,
    BPF_CGROUP_INET6_BIND, BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_INET6_GETPEERNAME, BPF_CGROUP_UDP4_RECVMSG,
    BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_RECVMSG, BPF_CGROUP_UDP6_SENDMSG,
};
use rnet_common::Program;

use super::{links::read_pin, load, query};
use crate::host::preflight;

/// Where the programs for the host's sockets are on the root cgroup, as libbpf calls it.
const SOCKET_HOOKS: [(&str, bpf_attach_type); 10] = [
    ("bind4", BPF_CGROUP_INET4_BIND),
    ("bind6", BPF_CGROUP_INET6_BIND),
    ("connect4", BPF_CGROUP_INET4_CONNECT),
    ("connect6", BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", BPF_CGROUP_UDP6_SENDMSG),
    ("recvmsg4", BPF_CGROUP_UDP4_RECVMSG),
    ("recvmsg6", BPF_CGROUP_UDP6_RECVMSG),
    ("getpeername4", BPF_CGROUP_INET4_GETPEERNAME),
    ("getpeername6", BPF_CGROUP_INET6_GETPEERNAME),
];

/// Names of programs at an interface's tcx hooks, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// What sees packets that arrive.
    pub ingress: Vec<String>,
    /// What sees packets that leave.
    pub egress: Vec<String>,
}

/// The programs at the tcx hooks of an interface; none when the kernel does not say.
pub fn hooks(interface: &str) -> Hooks {
    let at = |side| {
        let programs = SchedClassifier::query_tcx(interface, side).map(|(_, programs)| programs);
        programs.unwrap_or_default().iter().map(name).collect()
    };
    Hooks { ingress: at(TcAttachType::Ingress), egress: at(TcAttachType::Egress) }
}

/// The programs on the root cgroup at each hook for sockets where rnet has one, in the order in which they run; none
/// where the kernel does not say.
pub fn socket_hooks() -> BTreeMap<&'static str, Vec<String>> {
    let Ok(cgroup) = preflight::cgroup2() else { return BTreeMap::new() };
    let loaded = loaded_programs().filter_map(Result::ok);
    let names: BTreeMap<u32, String> = loaded.map(|program| (program.id(), name(&program))).collect();
    let at = |hook| {
        let programs = query::attached(&cgroup, hook).unwrap_or_default();
        // One that has been taken off since has no name any more.
        programs.iter().filter_map(|id| names.get(id).cloned()).collect()
    };
    SOCKET_HOOKS.into_iter().map(|(name, hook)| (name, at(hook))).collect()
}

/// The name of the program with this number.
pub fn program(id: u32) -> Option<String> {
    loaded_programs().filter_map(Result::ok).find(|program| program.id() == id).map(|p| name(&p))
}

fn name(program: &ProgramInfo) -> String {
    program.name_as_str().filter(|name| !name.is_empty()).unwrap_or("(without a name)").to_owned()
}

/// Whether a program of this name is one of rnet's.
pub fn is_own(program: &str) -> bool {
    Program::ALL.iter().any(|own| own.name() == program) || load::SOCKETS.contains(&program)
}

/// Programs on the root cgroup that have no pin in `pin_dir`.
pub fn unpinned_sockets(pin_dir: &Path) -> Vec<&'static str> {
    let links = pin_dir.join("links");
    load::SOCKETS.into_iter().filter(|program| !links.join(program).exists()).collect()
}

/// Pins of programs on interfaces below `pin_dir`, with the interface's index.
pub fn pinned(pin_dir: &Path) -> BTreeSet<(String, u32)> {
    let entries = fs::read_dir(pin_dir.join("links")).into_iter().flatten().flatten();
    let pin = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        read_pin(&name).map(|(program, index)| (program.to_owned(), index))
    };
    entries.filter_map(pin).collect()
}
