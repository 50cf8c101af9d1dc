//! What the package's scripts ask of systemd, and the units that they are about.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use testbed::process;

use crate::system::{System, package, packages};

/// Where a system of a test notes what was asked of its service manager.
const CALLS: &str = "/root/systemctl";

/// A system whose service manager runs, as far as one can tell, and does nothing.
fn system_with_systemd() -> Option<System> {
    let system = System::debian()?;
    system.write("/usr/bin/systemctl", &format!("#!/bin/sh\necho $@ >> {CALLS}\n"));
    fs::set_permissions(system.at("/usr/bin/systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(system.at("/run/systemd/system")).unwrap();
    Some(system)
}

fn calls(system: &System) -> String {
    let calls = fs::read_to_string(system.at(CALLS)).unwrap();
    fs::remove_file(system.at(CALLS)).unwrap();
    calls
}

#[test]
fn nothing_is_started_that_did_not_run() {
    let Some(packages) = packages() else { return };
    let Some(system) = system_with_systemd() else { return };
    let deb = system.copy(&package(&packages, ".deb"));
    let said = system.sh(&format!("dpkg --install {deb}"));
    assert_eq!(calls(&system), "daemon-reload\n");
    assert!(said.contains("systemctl enable --now rnet"), "{said}");

    let said = system.sh(&format!("dpkg --install {deb}"));
    assert_eq!(
        calls(&system),
        "daemon-reload\ndaemon-reload\ntry-restart rnet.service rnet-docker-plugin.service\n"
    );
    assert!(!said.contains("enable"), "{said}");

    // A daemon that does not start leaves the package installed: traffic goes on.
    let fails = format!("#!/bin/sh\necho $@ >> {CALLS}\n[ \"$1\" != try-restart ]\n");
    fs::write(system.at("/usr/bin/systemctl"), fails).unwrap();
    let said = system.sh(&format!("dpkg --install {deb}; dpkg --status rnet"));
    assert!(said.contains("does not start") && said.contains("install ok installed"), "{said}");
    calls(&system);

    system.sh("dpkg --remove rnet");
    let removed = "stop rnet-docker-plugin.service rnet.socket rnet.service\n\
                   --quiet disable rnet-docker-plugin.service rnet.service rnet.socket\ndaemon-reload\n";
    assert_eq!(calls(&system), removed);
    system.sh("dpkg --purge rnet");
    assert_eq!(calls(&system), "daemon-reload\n");
}

#[test]
fn who_removes_a_running_instance_is_told_what_stays() {
    let Some(packages) = packages() else { return };
    let Some(system) = System::debian() else { return };
    let deb = system.copy(&package(&packages, ".deb"));
    let remove = || system.sh(&format!("dpkg --install {deb}; dpkg --remove rnet"));
    assert!(!remove().contains("stay"));
    fs::create_dir_all(system.at("/sys/fs/bpf/rnet")).unwrap();
    fs::create_dir_all(system.at("/run/rnet/containers")).unwrap();
    assert!(remove().contains("install rnet once more and run `rnet down`"));
    assert!(system.at("/run/rnet/containers").exists());
}

#[test]
fn scripts_are_plain_shell() {
    let Some(packages) = packages() else { return };
    let Some(system) = System::debian() else { return };
    let deb = system.copy(&package(&packages, ".deb"));
    let checked = system.sh(&format!(
        "dpkg-deb --control {deb} /root/control
         for script in postinst prerm postrm; do
             head -1 /root/control/$script | grep --quiet '^#!/bin/sh$'
             dash -n /root/control/$script
             echo $script
         done"
    ));
    assert_eq!(checked, "postinst\nprerm\npostrm\n");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(packages) = packages() else { return };
    let Some(system) = System::debian() else { return };
    let deb = system.copy(&package(&packages, ".deb"));
    let archive = system.copy(&package(&packages, ".tar.gz"));
    system.sh(&format!("dpkg --install {deb}"));
    verify(&system, "/usr/lib/systemd/system");
    system.sh(&format!("dpkg --purge rnet; tar -xzf {archive} -C /usr/local --strip-components=1"));
    verify(&system, "/usr/local/lib/systemd/system");
}

/// How exposed `systemd-analyze security` may find units, in tenths of 10; docs/privileges.md says why the daemon is as much as it
/// is. Newer versions of systemd look at more, so there is some room.
const EXPOSURE: [(&str, u32); 2] = [("rnet.service", 97), ("rnet-docker-plugin.service", 20)];

#[test]
fn the_units_are_confined_as_far_as_the_documentation_says() {
    let Some(packages) = packages() else { return };
    let Some(system) = System::debian() else { return };
    let deb = system.copy(&package(&packages, ".deb"));
    system.sh(&format!("dpkg --install {deb}"));
    let socket = fs::read_to_string(system.at("/usr/lib/systemd/system/rnet.socket")).unwrap();
    for line in
        ["SocketMode=0660", "SocketUser=root", "SocketGroup=root", "DirectoryMode=0755", "RemoveOnStop=yes"]
    {
        assert!(socket.lines().any(|said| said == line), "{line} is missing in {socket}");
    }
    for (unit, most) in EXPOSURE {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--no-pager", "--offline=yes", &format!("--threshold={most}"), "--root"]);
        analyze.arg(system.root()).arg(format!("/usr/lib/systemd/system/{unit}"));
        let Some(finished) = process::try_run(analyze, Duration::from_secs(60)) else {
            return testbed::skip("needs systemd-analyze");
        };
        finished.assert_ok(&format!("{unit}, exposed by {most} tenths at the most"));
    }
}

fn verify(system: &System, directory: &str) {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--recursive-errors=no", "--man=no", "--root"]).arg(system.root());
    analyze.args(
        ["rnet.service", "rnet.socket", "rnet-docker-plugin.service"]
            .map(|unit| format!("{directory}/{unit}")),
    );
    let Some(finished) = process::try_run(analyze, Duration::from_secs(60)) else {
        return testbed::skip("needs systemd-analyze");
    };
    let said = finished.assert_ok("systemd-analyze verify").stderr;
    assert_eq!(said, "");
}
