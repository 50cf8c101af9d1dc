//! What the daemon and its BPF maps keep in memory, as the kernel counts it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use serde::Serialize;
use testbed::{Rnet, bpf::BPFFS};

/// What is in memory at one moment.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Memory {
    #[serde(flatten)]
    pub(super) process: Resident,
    /// `memlock` of each map, by name.
    pub(super) maps_bytes: BTreeMap<String, u64>,
    /// `memlock` of all programs together.
    pub(super) programs_bytes: u64,
}

impl Memory {
    /// Of an instance whose daemon runs: the maps that are pinned, and those that only the daemon has open.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(super) fn of(rnet: &Rnet<'_>) -> Result<Self> {
        let process = Path::new("/proc").join(rnet.daemon_id().to_string());
        let rollup = process.join("smaps_rollup");
        let text = fs::read_to_string(&rollup).with_context(|| format!("read {}", rollup.display()))?;
        let mut memory = Self {
            process: Resident::parse(&text).with_context(|| format!("understand {}", rollup.display()))?,
            maps_bytes: BTreeMap::new(),
            programs_bytes: 0,
        };
        let mut objects = pinned(rnet.instance())?;
        objects.extend(opened(&process.join("fdinfo"))?);
        for (object, bytes) in objects {
            match object {
                Object::Map(id) => {
                    let info = MapInfo::from_id(id).with_context(|| format!("ask for BPF map {id}"))?;
                    let name = info.name_as_str().unwrap_or_default();
                    *memory.maps_bytes.entry(name.to_owned()).or_default() += bytes;
                }
                Object::Program(_) => memory.programs_bytes += bytes,
            }
        }
        Ok(memory)
    }

    /// That of all maps.
    pub(super) fn all_maps_bytes(&self) -> u64 {
        self.maps_bytes.values().sum()
    }
}

/// What a process has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Resident {
    /// All of its pages.
    pub(super) rss_kib: u64,
    /// Where several processes share a page, this one's part of it.
    pub(super) pss_kib: u64,
}

impl Resident {
    /// Reads `/proc/PID/smaps_rollup`.
    fn parse(rollup: &str) -> Result<Self> {
        let number = |key: &str| -> Result<u64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(key));
            let value = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            value.with_context(|| format!("no line `{key}`"))?.trim().parse().context("read a size")
        };
        Ok(Self { rss_kib: number("Rss:")?, pss_kib: number("Pss:")? })
    }
}

/// What a descriptor may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Map(u32),
    Program(u32),
}

/// Maps that an instance has pinned.
fn pinned(instance: &str) -> Result<BTreeMap<Object, u64>> {
    let mut objects = BTreeMap::new();
    for layout in entries(&Path::new(BPFFS).join(instance))? {
        // Links are in a directory of their own.
        for pin in entries(&layout)?.into_iter().filter(|path| !path.is_dir()) {
            let map = MapInfo::from_pin(&pin).and_then(|info| info.fd());
            let map = map.with_context(|| format!("open BPF map {}", pin.display()))?;
            let info = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
            let text = fs::read_to_string(&info).with_context(|| format!("read {info}"))?;
            objects.extend(object(&text));
        }
    }
    Ok(objects)
}

/// Maps and programs that a process has open.
fn opened(fdinfo: &Path) -> Result<BTreeMap<Object, u64>> {
    let mut objects = BTreeMap::new();
    for path in entries(fdinfo)? {
        match fs::read_to_string(&path) {
            Ok(text) => objects.extend(object(&text)),
            // Closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(objects)
}

fn entries(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>();
    list().with_context(|| format!("list {}", dir.display()))
}

/// Reads `/proc/PID/fdinfo/FD`: which map or program it is of, and that one's size in bytes. Nothing of anything else.
fn object(fdinfo: &str) -> Option<(Object, u64)> {
    let field = |key: &str| {
        let mut fields = fdinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| *name == key).map(|(_, value)| value.trim())
    };
    let id = |key: &str| field(key)?.parse::<u32>().ok();
    // A link's names its program, too.
    let object = match (field("map_type"), field("prog_type")) {
        (Some(_), _) => Object::Map(id("map_id")?),
        (None, Some(_)) => Object::Program(id("prog_id")?),
        (None, None) => return None,
    };
    Some((object, field("memlock")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_a_process_are_read_by_their_names() {
        let rollup = "55d0c0a00000-7ffd7b5f2000 ---p 00000000 00:00 0    [rollup]
Rss:               28124 kB
Pss:               26261 kB
Pss_Dirty:          6000 kB
SwapPss:               0 kB
";
        assert_eq!(Resident::parse(rollup).unwrap(), Resident { rss_kib: 28124, pss_kib: 26261 });
        assert_eq!(Resident::parse("Rss: 1 kB\n").unwrap_err().to_string(), "no line `Pss:`");
        assert!(Resident::parse("Rss: 1 kB\nPss: x kB\n").is_err());
    }

    #[test]
    fn maps_and_programs_are_told_from_links_and_files() {
        let map = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1064\nmap_type:\t1\nkey_size:\t8\nvalue_size:\t24\n\
                   max_entries:\t131072\nmap_flags:\t0x1\nmap_extra:\t0x0\nmemlock:\t2098048\nmap_id:\t41\nfrozen:\t0\n";
        assert_eq!(object(map), Some((Object::Map(41), 2_098_048)));
        let program =
            "pos:\t0\nprog_type:\t3\nprog_jited:\t1\nprog_tag:\tabcdef\nmemlock:\t94208\nprog_id:\t7\n";
        assert_eq!(object(program), Some((Object::Program(7), 94_208)));
        assert_eq!(object("pos:\t0\nlink_type:\ttcx\nlink_id:\t3\nprog_tag:\tabcdef\nprog_id:\t7\n"), None);
        assert_eq!(object("pos:\t0\nflags:\t02\n"), None);
    }
}
