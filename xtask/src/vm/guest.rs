//! The first and only file system of a guest: busybox, the programs that the tests call, with the libraries that this
//! machine has them with, what is tested, and the kernel's modules.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, modules, plan::Step};
use crate::{
    command::{find, output},
    setup::{Emulator, Kernel},
};

/// The first process.
const INIT: &str = include_str!("init.sh");

/// What the tests call and busybox is not, or not well enough.
const PROGRAMS: [&str; 8] = ["ip", "bridge", "iptables", "nft", "ethtool", "tcpdump", "bpftool", "ping"];

/// What they go without where a machine has none.
const OPTIONAL: [&str; 7] =
    ["ip6tables", "ip6tables-save", "iptables-legacy-save", "iptables-save", "pgrep", "ss", "unshare"];

/// The library that brings its own plugins, in a directory beside it.
const XTABLES: (&str, &str) = ("libxtables.so", "xtables");

const DIRECTORIES: [&str; 8] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var/lib", "/var/tmp"];

const FILES: [(&str, &str); 4] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ntcpdump:x:101:101::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    ),
    ("/etc/group", "root:x:0:\ntcpdump:x:101:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    // Of a block of addresses that nobody has (RFC 5737).
    ("/etc/resolv.conf", "nameserver 192.0.2.53\n"),
];

/// A file that goes below `/work`.
pub(super) struct Work<'a> {
    pub(super) name: &'a str,
    pub(super) file: &'a Path,
}

/// What all guests have in common.
#[derive(Default)]
pub(super) struct Guest {
    archive: Archive,
}

impl Guest {
    /// A guest with everything but a kernel's modules and what is run.
    pub(super) fn new(emulator: &Emulator, programs: &[Work<'_>], data: &[Work<'_>]) -> Result<Self> {
        let mut guest = Self::default();
        for directory in DIRECTORIES {
            guest.archive.directory(directory);
        }
        for (path, content) in FILES {
            guest.archive.file(path, content.as_bytes());
        }
        guest.archive.program("/init", INIT.as_bytes());
        // As Debian has it; libraries of either path are found.
        for directory in ["lib", "lib64"] {
            guest.archive.directory(&format!("/usr/{directory}"));
            guest.archive.link(directory, &format!("usr/{directory}"));
        }
        guest.busybox(&emulator.busybox())?;
        for name in PROGRAMS {
            let file = find(name).with_context(|| format!("the tests call {name}, which is not here"))?;
            guest.program(&format!("/usr/sbin/{name}"), &file, &read(&file)?)?;
        }
        for (name, file) in OPTIONAL.iter().filter_map(|name| Some((name, find(name)?))) {
            guest.program(&format!("/usr/sbin/{name}"), &file, &read(&file)?)?;
        }
        for Work { name, file } in programs {
            guest.program(&format!("/work/{name}"), file, &without_debug_info(file)?)?;
        }
        for Work { name, file } in data {
            guest.archive.file(&format!("/work/{name}"), &read(file)?);
        }
        Ok(guest)
    }

    /// The file system with a kernel's modules, for running these steps.
    pub(super) fn finish(mut self, kernel: &Kernel, steps: &[Step]) -> Result<Vec<u8>> {
        let place = format!("/usr/lib/modules/{}", kernel.release);
        let dependencies = fs::read_to_string(kernel.modules.join("modules.dep"))
            .with_context(|| format!("read what modules of {} depend on", kernel.release))?;
        for module in modules::wanted(&dependencies) {
            self.archive.file(&format!("{place}/{module}"), &read(&kernel.modules.join(module))?);
        }
        for index in ["modules.dep", "modules.alias", "modules.symbols", "modules.builtin"] {
            // What is built into Debian's Linux 7 is written down nowhere.
            if let Ok(content) = fs::read(kernel.modules.join(index)) {
                self.archive.file(&format!("{place}/{index}"), &content);
            }
        }
        let line = |step: &Step| format!("{} {} {}\n", step.name, step.program, step.arguments.join(" "));
        self.archive.file("/work/steps", steps.iter().map(line).collect::<String>().as_bytes());
        Ok(self.archive.finish())
    }

    fn busybox(&mut self, file: &Path) -> Result<()> {
        self.archive.program("/bin/busybox", &read(file)?);
        for name in output(Command::new(file).arg("--list"))?.lines() {
            self.archive.link(&format!("/bin/{name}"), "busybox");
        }
        self.archive.link("/sbin", "bin");
        Ok(())
    }

    /// A program and the libraries that it is linked with.
    fn program(&mut self, path: &str, file: &Path, content: &[u8]) -> Result<()> {
        self.archive.program(path, content);
        let libraries = output(Command::new("ldd").arg(file))
            .with_context(|| format!("ask for the libraries of {}", file.display()))?;
        for library in libraries_in(&libraries) {
            let name = library.to_string_lossy();
            let place = if name.starts_with("/usr/") { name.into_owned() } else { format!("/usr{name}") };
            if self.archive.has(&place) {
                continue;
            }
            self.archive.program(&place, &read(&library)?);
            let (with_plugins, directory) = XTABLES;
            if place.contains(with_plugins) {
                self.plugins(&library.with_file_name(directory))?;
            }
        }
        Ok(())
    }

    fn plugins(&mut self, directory: &Path) -> Result<()> {
        let directory =
            directory.canonicalize().with_context(|| format!("look for {}", directory.display()))?;
        let files = fs::read_dir(&directory).with_context(|| format!("look into {}", directory.display()))?;
        for file in files.filter_map(|file| Some(file.ok()?.path())) {
            self.archive.program(&file.to_string_lossy(), &read(&file)?);
        }
        Ok(())
    }
}

/// The libraries that ldd(1) names, and the loader.
fn libraries_in(ldd: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        let file = line.split_once("=> ").map_or(line, |(_, file)| file).split_whitespace().next()?;
        file.starts_with('/').then(|| PathBuf::from(file))
    };
    ldd.lines().filter_map(|line| path(line.trim())).collect()
}

/// A program that has been built here, of which nine tenths are for a debugger.
fn without_debug_info(file: &Path) -> Result<Vec<u8>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stripped = file.with_file_name(format!("{name}.stripped"));
    let mut objcopy = Command::new("objcopy");
    output(objcopy.arg("--strip-debug").arg(file).arg(&stripped))?;
    let content = read(&stripped);
    let _ = fs::remove_file(&stripped);
    content
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_file() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd3b9f0000)
\tlibxtables.so.12 => /lib/x86_64-linux-gnu/libxtables.so.12 (0x00007f52d8a6d000)
\tlibmissing.so.1 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f52d8b2f000)
";
        let all = ["/lib/x86_64-linux-gnu/libxtables.so.12", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries_in(ldd).into_iter().collect::<Vec<_>>(), all.map(PathBuf::from));
        assert!(libraries_in("\tstatically linked\n").is_empty());
    }
}
