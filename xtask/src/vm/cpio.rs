//! The archive that a kernel makes its first file system of: cpio's "newc" format, of which
//! Documentation/driver-api/early-userspace/buffer-format.rst of the kernel tells.
//!
//! Everything in it is root's. Directories that are missing on the way to a file are made.

use std::{collections::BTreeSet, path::Path};

/// File types and permissions (inode(7)).
const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

/// An archive that grows.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory.
    pub(super) fn directory(&mut self, path: &str) {
        let mut name = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            name.push_str(part);
            if self.is_new(&name) {
                self.entry(&name, DIRECTORY, &[]);
            }
            name.push('/');
        }
    }

    /// Adds a file that is only read.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.add(path, FILE, content);
    }

    /// Adds a file that is executed.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) {
        self.add(path, PROGRAM, content);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.add(path, LINK, to.as_bytes());
    }

    /// Whether there is something of that name.
    pub(super) fn has(&self, path: &str) -> bool {
        self.names.contains(path.trim_matches('/'))
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// What is there already stays.
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_matches('/');
        if let Some(parent) = Path::new(name).parent().and_then(Path::to_str) {
            self.directory(parent);
        }
        if self.is_new(name) {
            self.entry(name, mode, content);
        }
    }

    fn is_new(&mut self, name: &str) -> bool {
        self.names.insert(name.to_owned())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        const MAGIC: &str = "070701";
        let number = self.names.len();
        let (length, name_length) = (content.len(), name.len() + 1);
        // Inode, mode, user, group, links, time, length, two device numbers of two parts each, length of the name,
        // checksum.
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in [number, mode as usize, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.program("/init", b"#!/bin/sh");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes).unwrap();
        let (mode, length, name_length) = (&text[14..22], &text[54..62], &text[94..102]);
        assert_eq!((mode, length, name_length), ("000081ed", "00000009", "00000005"));
        // Header and name are filled up to a word, and so is the content.
        assert_eq!(&text[110..128], "init\0\0#!/bin/sh\0\0\0");
        assert!(text[128..].starts_with("070701") && text.contains("TRAILER!!!"));
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::default();
        archive.directory("/var/tmp");
        archive.file("/usr/lib/a", b"a");
        archive.file("/usr/lib/b", b"b");
        archive.link("/lib", "usr/lib");
        archive.file("/usr/lib/a", b"another");
        assert!(archive.has("/usr/lib") && !archive.has("/usr/bin"));
        let text = String::from_utf8(archive.finish()).unwrap();
        let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert!(at("usr\0") < at("usr/lib\0") && at("usr/lib\0") < at("usr/lib/a\0"), "{text:?}");
        assert!(at("var\0") < at("var/tmp\0"));
        assert_eq!(text.matches("usr/lib/a\0").count(), 1);
        assert!(!text.contains("another"));
    }
}
