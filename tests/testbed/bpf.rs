//! The bpf filesystem, and the kernel's objects that are pinned in it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    time::Duration,
};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use serde_json::Value;

use crate::{Netns, process, snapshot};

/// Where bpffs is expected.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Mounts bpffs where it is missing. It stays: other programs may have begun to use it.
///
/// # Panics
/// When it cannot be mounted.
pub fn ensure_bpffs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mounted = statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
        if !mounted {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .unwrap_or_else(|e| panic!("mount bpffs on {BPFFS}: {e}"));
        }
    });
}

/// A map, program or link of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `map`, `prog` or `link`.
    pub kind: &'static str,
    /// Its id, which the kernel does not give out again for a long time.
    pub id: u64,
    /// Its name, for maps and programs.
    pub name: String,
    /// Where it is pinned.
    pub pin: PathBuf,
}

impl Object {
    /// Whether the kernel still has it, pinned or not.
    pub fn is_alive(&self) -> bool {
        bpftool(&[self.kind, "show", "id", &self.id.to_string()]).is_some()
    }
}

/// The datapath as it was built.
///
/// # Panics
/// When it has not been.
pub fn object() -> Vec<u8> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/datapath.o");
    let file = std::env::var_os("RNET_BPF_OBJECT").map_or(built, PathBuf::from);
    std::fs::read(&file)
        .unwrap_or_else(|e| panic!("read {}: {e}; run `cargo xtask build` first", file.display()))
}

/// What loads it. The verifier takes many times as long where it writes down what it does.
pub fn loader() -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    loader
}

/// Gives a program to the kernel. The verifier gives up when its thread is to be stopped or frozen, as the whole machine may
/// be: then it is given again.
///
/// # Panics
/// When the kernel refuses it.
pub fn verify(name: &str, mut load: impl FnMut() -> Result<(), ProgramError>) {
    loop {
        match load() {
            Ok(()) => return,
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {
            }
            Err(e) => panic!("load {name}: {e}"),
        }
    }
}

/// A program that is not rnet's; it is gone when this is dropped.
#[derive(Debug)]
pub struct Foreign(#[expect(dead_code, reason = "keeps the program where it is")] Ebpf);

impl Foreign {
    /// Its name.
    pub const NAME: &str = "theirs_here";

    /// Attaches one to the tcx hook for what arrives at an interface, before those that are there.
    ///
    /// # Panics
    /// When it cannot be attached.
    pub fn at_ingress(ns: &Netns, interface: &str) -> Self {
        // With tables of its own, in which nothing is, it lets pass all that it sees, whatever it is called.
        let mut object = object();
        let (ours, theirs) = (b"\0from_uplink\0", format!("\0{}\0", Self::NAME).into_bytes());
        // The symbol, and what describes its type.
        while let Some(at) = object.windows(ours.len()).position(|name| name == ours) {
            object[at..at + ours.len()].copy_from_slice(&theirs);
        }
        let attach = || -> anyhow::Result<Ebpf> {
            let mut ebpf = loader().load(&object)?;
            let program = ebpf.program_mut(Self::NAME).context("it is not in the object")?;
            let program: &mut SchedClassifier = program.try_into()?;
            verify(Self::NAME, || program.load());
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            program.attach_with_options(interface, TcAttachType::Ingress, first)?;
            Ok(ebpf)
        };
        Self(ns.run(attach).unwrap_or_else(|e| panic!("attach another's program to {interface}: {e:#}")))
    }
}

/// Everything pinned by `instance`, asked of bpftool. Empty where that is not installed.
pub fn pinned_by(instance: &str) -> Vec<Object> {
    snapshot::files_below(&Path::new(BPFFS).join(instance))
        .into_iter()
        .filter_map(|pin| object_at(&pin))
        .collect()
}

fn object_at(pin: &Path) -> Option<Object> {
    ["map", "link", "prog"].into_iter().find_map(|kind| {
        let shown = bpftool(&[kind, "show", "pinned", pin.to_str()?])?;
        Some(Object {
            kind,
            id: shown["id"].as_u64()?,
            name: shown["name"].as_str().unwrap_or_default().to_owned(),
            pin: pin.to_owned(),
        })
    })
}

/// How many entries each of the instance's tables has, by name: of hash tables, which are the ones that grow. Those
/// that make room by themselves (LRU) are left out. Empty where bpftool is not installed.
pub fn entries_of(instance: &str) -> BTreeMap<String, usize> {
    let maps = pinned_by(instance).into_iter().filter(|object| object.kind == "map");
    let counted = maps.filter_map(|map| {
        let pin = map.pin.to_str()?;
        let kind = bpftool(&["map", "show", "pinned", pin])?["type"].as_str()?.to_owned();
        if !matches!(kind.as_str(), "hash" | "percpu_hash" | "lpm_trie") {
            return None;
        }
        let entries = bpftool(&["map", "dump", "pinned", pin])?.as_array()?.len();
        let name = map.pin.file_name()?.to_string_lossy().into_owned();
        Some((name, entries))
    });
    counted.collect()
}

/// What bpftool answers as JSON; nothing when it fails or is not installed.
pub fn bpftool(args: &[&str]) -> Option<Value> {
    let mut command = Command::new("bpftool");
    command.arg("--json").args(args);
    let finished = process::try_run(command, Duration::from_secs(20))?;
    finished.status.success().then(|| serde_json::from_str(&finished.stdout).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_objects_are_found_and_seen_to_die() {
        crate::require_root!();
        ensure_bpffs();
        let instance = format!("rnet-t{}-{}-pins", std::process::id(), crate::next_number());
        let dir = Path::new(BPFFS).join(&instance);
        std::fs::create_dir_all(dir.join("v1")).unwrap();
        let pin = dir.join("v1/M");
        let create = format!("map create {} type array key 4 value 4 entries 1 name M", pin.display());
        let made = bpftool(&create.split(' ').collect::<Vec<_>>());
        if made.is_none() {
            std::fs::remove_dir_all(&dir).unwrap();
            return crate::skip("needs bpftool");
        }
        let objects = pinned_by(&instance);
        assert_eq!(objects.len(), 1);
        assert_eq!((objects[0].kind, objects[0].name.as_str(), &objects[0].pin), ("map", "M", &pin));
        assert!(objects[0].is_alive());
        std::fs::remove_dir_all(&dir).unwrap();
        crate::wait_until("the map is freed", Duration::from_secs(10), || {
            (!objects[0].is_alive()).then_some(())
        });
    }
}
