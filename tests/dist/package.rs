//! Debian's package.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use testbed::{commands, process};

use crate::system::{System, package, packages};

#[test]
fn what_is_installed_works_and_is_gone_when_purged() {
    let Some(packages) = packages() else { return };
    let Some(system) = System::debian() else { return };
    let deb = system.copy(&package(&packages, ".deb"));
    let before = system.files();
    system.sh(&format!("dpkg --install {deb}"));

    let installed = before.changes(&system.files());
    let listed = system.sh("dpkg --listfiles rnet");
    for change in &installed {
        let path = change.strip_prefix("+ ").unwrap_or_else(|| panic!("{change}"));
        assert!(listed.lines().any(|line| line == path), "{path} is not the package's");
        let permissions = fs::symlink_metadata(system.at(path)).unwrap().permissions();
        let expected = if path == "/usr/bin/rnet" { 0o755 } else { 0o644 };
        let is_plain = system.at(path).symlink_metadata().unwrap().is_file();
        assert!(!is_plain || permissions.mode() & 0o7777 == expected, "{path}: {permissions:?}");
    }
    for path in [
        "/etc/docker/plugins/rnet.spec",
        "/opt/cni/bin/rnet",
        "/usr/bin/rnet",
        "/usr/lib/cni/rnet",
        "/usr/lib/netavark/rnet",
        "/usr/lib/systemd/system/rnet-docker-plugin.service",
        "/usr/lib/systemd/system/rnet.service",
        "/usr/lib/systemd/system/rnet.socket",
        "/usr/share/bash-completion/completions/rnet",
        "/usr/share/doc/rnet/changelog.Debian.gz",
        "/usr/share/doc/rnet/copyright",
        "/usr/share/fish/vendor_completions.d/rnet.fish",
        "/usr/share/man/man1/rnet-network-create.1.gz",
        "/usr/share/zsh/vendor-completions/_rnet",
    ] {
        assert!(installed.contains(&format!("+ {path}")), "{path} is missing: {installed:?}");
    }
    let works = "
        dpkg --verify rnet
        for link in /opt/cni/bin/rnet /usr/lib/cni/rnet /usr/lib/netavark/rnet; do
            [ $(readlink --canonicalize $link) = /usr/bin/rnet ]
        done
        rnet completions bash | cmp - /usr/share/bash-completion/completions/rnet
        . /usr/share/bash-completion/completions/rnet; complete -p rnet
        gzip --test /usr/share/man/man1/rnet*.gz /usr/share/doc/rnet/*.gz
        zcat /usr/share/man/man1/rnet.1.gz | grep --quiet '^.TH'
        [ -z \"$(dpkg --listfiles rnet | while read f; do find $f -maxdepth 0 -empty; done)\" ]
    ";
    system.sh(works);
    assert_eq!(fs::read(system.at("/usr/bin/rnet")).unwrap(), fs::read(commands::binary()).unwrap());
    assert!(system.sh("rnet --version").starts_with(concat!("rnet ", env!("CARGO_PKG_VERSION"))));
    assert!(system.sh("rnet daemon --validate").contains("configuration OK"));

    system.sh("dpkg --purge rnet");
    assert_eq!(before.changes(&system.files()), Vec::<String>::new());
    assert_eq!(system.sh("ls /var/lib/dpkg/info | grep '^rnet' || true"), "");
}

#[test]
fn configuration_and_state_outlive_upgrade_and_removal_but_not_the_purge() {
    let Some(packages) = packages() else { return };
    let Some(system) = System::debian() else { return };
    let deb = system.copy(&package(&packages, ".deb"));
    let before = system.files();
    system.sh(&format!("dpkg --install {deb}"));
    system.write("/etc/docker/plugins/rnet.spec", "unix:///run/mine.sock\n");
    system.write("/etc/rnet/daemon.json", "{}");
    system.write("/var/lib/rnet/version", "2");
    system.write("/etc/docker/daemon.json", "{}");
    system.sh(&format!("dpkg --install {deb}; dpkg --remove rnet"));
    let kept = [
        "+ /etc/docker",
        "+ /etc/docker/daemon.json",
        "+ /etc/docker/plugins",
        "+ /etc/docker/plugins/rnet.spec",
        "+ /etc/rnet",
        "+ /etc/rnet/daemon.json",
        "+ /var/lib/rnet",
        "+ /var/lib/rnet/version",
    ];
    assert_eq!(before.changes(&system.files()), kept);
    assert_eq!(
        fs::read_to_string(system.at("/etc/docker/plugins/rnet.spec")).unwrap(),
        "unix:///run/mine.sock\n"
    );
    system.sh("dpkg --purge rnet");
    assert_eq!(before.changes(&system.files()), kept[..2], "what is somebody else's stays");
}

#[test]
fn it_can_be_installed_into_a_system_that_has_nothing_yet() {
    let Some(packages) = packages() else { return };
    let system = System::empty();
    for path in ["info/format", "status", "available"] {
        let content = if path == "info/format" { "1\n" } else { "" };
        system.write(&format!("/var/lib/dpkg/{path}"), content);
    }
    fs::create_dir_all(system.at("/var/lib/dpkg/updates")).unwrap();
    fs::create_dir_all(system.at("/var/log")).unwrap();
    let tools = tempfile::tempdir().unwrap();
    // Scripts run here, beside this machine's own service manager, which is not theirs to speak to.
    let systemctl = tools.path().join("systemctl");
    fs::write(&systemctl, format!("#!/bin/sh\necho $@ >> {}/called\n", tools.path().display())).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let dpkg = |args: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root")
            .arg(system.root())
            .args(["--force-script-chrootless", "--force-not-root"])
            .args(args);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.path().display());
        dpkg.env("PATH", path);
        process::run(dpkg, Duration::from_secs(60)).assert_ok(&format!("dpkg {args:?}"));
    };
    let before = system.files();
    dpkg(&["--install", package(&packages, ".deb").to_str().unwrap()]);
    assert!(system.at("/usr/bin/rnet").is_file());
    system.write("/var/lib/rnet/version", "2");
    dpkg(&["--purge", "rnet"]);
    assert_eq!(before.changes(&system.files()), Vec::<String>::new());
    assert!(!tools.path().join("called").exists());
}

#[test]
fn the_checksums_are_of_what_lies_beside_them() {
    let Some(packages) = packages() else { return };
    let mut check = Command::new("sha256sum");
    check.args(["--strict", "--check", "SHA256SUMS"]).current_dir(packages);
    let checked = process::run(check, Duration::from_secs(60)).assert_ok("check SHA256SUMS");
    assert_eq!(checked.stdout.lines().count(), 2, "{}", checked.stdout);
}
