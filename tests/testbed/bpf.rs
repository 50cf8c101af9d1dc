//! The bpf filesystem, and the kernel's objects that are pinned in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use serde_json::Value;

use crate::{process, snapshot};

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
