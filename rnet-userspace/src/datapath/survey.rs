//! Which programs are where, rnet's and others', for those who look for a fault.

use std::{collections::BTreeSet, fs, path::Path};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use rnet_common::Program;

use super::{links::read_pin, load};

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

/// The name of the program with this number.
pub fn program(id: u32) -> Option<String> {
    loaded_programs().filter_map(Result::ok).find(|program| program.id() == id).map(|p| name(&p))
}

fn name(program: &ProgramInfo) -> String {
    program.name_as_str().filter(|name| !name.is_empty()).unwrap_or("(without a name)").to_owned()
}

/// Whether a program of this name is one of rnet's.
pub fn is_own(program: &str) -> bool {
    Program::ALL.iter().any(|own| own.name() == program)
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
