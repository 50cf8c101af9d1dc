//! The archive, installed and removed as docs/install.md says.

use std::fs;

use crate::system::{System, package, packages};

#[test]
fn it_is_installed_by_unpacking_and_removed_by_its_own_list() {
    let Some(packages) = packages() else { return };
    let Some(system) = System::debian() else { return };
    let archive = system.copy(&package(&packages, ".tar.gz"));
    let before = system.files();
    system.sh(&format!("tar -xzf {archive} -C /usr/local --strip-components=1"));
    let installed = before.changes(&system.files());
    assert!(installed.iter().all(|change| change.starts_with("+ /usr/local/")), "{installed:?}");
    assert!(system.sh("rnet --version").starts_with("rnet "));
    assert_eq!(system.sh("readlink --canonicalize /usr/local/lib/netavark/rnet"), "/usr/local/bin/rnet\n");
    let unit = fs::read_to_string(system.at("/usr/local/lib/systemd/system/rnet.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/rnet daemon"), "{unit}");

    let remove =
        removal(&fs::read_to_string(system.at("/usr/local/share/doc/rnet/docs/install.md")).unwrap());
    system.sh(&format!("cd /usr/local; {}", remove.replace("rnet-VERSION-ARCH.tar.gz", &archive)));
    let left = before.changes(&system.files());
    let is_directory = |change: &String| system.at(&change[2..]).is_dir();
    assert!(left.iter().all(is_directory), "{left:?}");
}

/// The command that the documentation gives.
fn removal(document: &str) -> String {
    let line = document.lines().find(|line| line.starts_with("tar -tzf "));
    line.unwrap_or_else(|| panic!("docs/install.md has no line for it")).replace("sudo ", "")
}
