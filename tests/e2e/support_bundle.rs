//! `rnet support-bundle`: what is in it and what is not, with the daemon and without.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use testbed::{Host, Rnet, topology::HOST, traffic::tcp};

/// The parts by name, unpacked by the system's own tar.
fn parts(file: &Path) -> Vec<(String, String)> {
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let dir = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(file).arg("-C").arg(dir.path()).status().unwrap();
    assert!(unpacked.success());
    let inner = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let files = fs::read_dir(inner).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect()
}

fn bundle(rnet: &Rnet<'_>, args: &[&str]) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.tar.gz");
    let path = file.to_str().unwrap();
    assert_eq!(rnet.ok(&[&["support-bundle", "-o", path], args].concat()), format!("{path}\n"));
    parts(&file)
}

fn part<'a>(parts: &'a [(String, String)], name: &str) -> &'a str {
    let names: Vec<_> = parts.iter().map(|(name, _)| name).collect();
    let part = parts.iter().find(|(n, _)| n == name);
    &part.unwrap_or_else(|| panic!("no {name} in {names:?}")).1
}

#[test]
fn it_holds_what_is_needed_and_no_secret() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let dir = Path::new("/etc").join(rnet.instance());
    fs::create_dir(&dir).unwrap();
    let config = r#"{"tlskey": "/etc/key.pem", "registry": {"password": "hunter2"}}"#;
    fs::write(dir.join("daemon.json"), config).unwrap();
    rnet.ok(&["run", "-d", "--name", "job", "sh", "-c", "exec sleep 600 # s3cret-argument"]);
    let web = rnet.run("web", &["-p", "8080:80"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let _open = tcp::connect(&host.client, host.at(8080)).unwrap();
    let whole = bundle(&rnet, &[]);
    let redacted = bundle(&rnet, &["--redact"]);
    fs::remove_dir_all(&dir).unwrap();

    assert!(part(&whole, "doctor.txt").contains("kernel"));
    assert!(part(&whole, "status.json").contains(rnet.instance()));
    assert!(part(&whole, "containers.json").contains("\"web\""));
    assert!(part(&whole, "networks.json").contains("rnet0"));
    assert!(part(&whole, "counters.json").contains("published"));
    assert!(part(&whole, "conntrack.json").contains("tcp published established"));
    assert!(part(&whole, "links.txt").contains("from_uplink"));
    assert!(part(&whole, "pins.txt").contains("FLOWS4"));
    assert!(part(&whole, "daemon.json").contains("/etc/key.pem"));
    for name in [
        "version.txt",
        "usage.json",
        "ports.json",
        "timeouts.json",
        "kernel.txt",
        "routes.txt",
        "journal.txt",
        "dmesg.txt",
    ] {
        part(&whole, name);
    }
    for (name, text) in &whole {
        assert!(!text.contains("hunter2") && !text.contains("s3cret-argument"), "{name}: {text}");
    }
    let address = HOST.to_string();
    assert!(whole.iter().any(|(_, text)| text.contains(&address)));
    for (name, text) in &redacted {
        assert!(!text.contains(&address), "{name}: {text}");
    }
    assert!(part(&redacted, "conntrack.json").contains("(ip4 "));
}

#[test]
fn without_the_daemon_it_holds_the_rest() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("web", &[]);
    rnet.kill9();
    let parts = bundle(&rnet, &[]);
    assert!(part(&parts, "status.json").contains("no rnet daemon answers"));
    assert!(part(&parts, "pins.txt").contains("FLOWS4"));
    assert!(part(&parts, "links.txt").contains("from_container"));
    rnet.start_daemon();
}
