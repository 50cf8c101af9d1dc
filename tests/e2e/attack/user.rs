//! A user of the host without any rights.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use testbed::{
    Host, Rnet,
    commands::{COMMAND_LIMIT, assert_refused, binary},
    process, wait_until,
};

const NOBODY: u32 = 65534;

/// The directories and files of an instance, whatever they are for.
fn files_of(rnet: &Rnet<'_>) -> Vec<PathBuf> {
    let roots = ["/run", "/var/lib", "/sys/fs/bpf"].map(|root| Path::new(root).join(rnet.instance()));
    let mut found: Vec<PathBuf> = roots.into_iter().filter(|root| root.exists()).collect();
    let mut at = 0;
    while let Some(path) = found.get(at) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

#[test]
fn whoever_is_not_root_neither_asks_nor_changes_anything() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.run("web", &["-p", "8080:80"]);
    // A program of the tree's may lie where nobody else gets at.
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(NOBODY), None).unwrap();
    let program = dir.path().join("rnet");
    fs::copy(binary(), &program).unwrap();
    for args in [&["ps"][..], &["run", "-d", "--name", "mine"], &["down"], &["conntrack", "ls"], &["daemon"]]
    {
        let mut command = host.ns.command_as(&program, NOBODY);
        command.env_remove("RNET_INSTANCE").arg("--instance").arg(rnet.instance()).args(args);
        let refusal = assert_refused(&args.join(" "), &process::run(command, COMMAND_LIMIT));
        assert!(refusal.contains("root") || refusal.to_lowercase().contains("permission"), "{refusal}");
    }
    assert_eq!(rnet.json(&["ps"]).len(), 1);
    let files = files_of(&rnet);
    assert!(files.len() > 10, "{files:?}");
    for path in &files {
        let there = fs::symlink_metadata(path).unwrap();
        assert_eq!(there.uid(), 0, "{}", path.display());
        assert!(there.is_symlink() || there.mode() & 0o002 == 0, "{}: {:o}", path.display(), there.mode());
    }
    // State and pinned maps are nobody else's to read, either.
    for root in ["/var/lib", "/sys/fs/bpf"].map(|root| Path::new(root).join(rnet.instance())) {
        let mode = fs::metadata(&root).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "{}: {mode:o}", root.display());
    }
    assert!(UnixStream::connect(rnet.socket()).is_ok(), "root may");
}

#[test]
fn a_directory_for_pins_that_others_can_write_to_is_refused() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    // In the root of bpffs every user may make directories, as it is mounted by default.
    let squatted = Path::new("/sys/fs/bpf").join(rnet.instance());
    fs::create_dir(&squatted).unwrap();
    chown(&squatted, Some(NOBODY), None).unwrap();
    let refusal = rnet.fails(&["daemon"]);
    assert!(refusal.contains(&*squatted.to_string_lossy()) && refusal.contains("65534"), "{refusal}");
    assert!(fs::read_dir(&squatted).unwrap().next().is_none(), "nothing was pinned there");
    fs::remove_dir(&squatted).unwrap();
    rnet.start_daemon();
    let own = fs::metadata(&squatted).unwrap();
    assert_eq!((own.uid(), own.mode() & 0o777), (0, 0o700));
}

#[test]
fn a_published_port_is_not_to_be_had_by_others() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let listen = |port: u16| {
        let script = format!(
            "import socket,time\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEPORT,1)\n\
             s.bind(('0.0.0.0',{port}))\ns.listen()\nprint('bound',flush=True)\ntime.sleep(60)"
        );
        let mut command = host.ns.command_as("python3", NOBODY);
        command.args(["-c", &script]);
        command
    };
    rnet.run("web", &["-p", "8080:80"]);
    let finished = process::run(listen(8080), COMMAND_LIMIT);
    assert!(!finished.status.success() && finished.stderr.contains("in use"), "{}", finished.stderr);
    // Who was there before is named, and keeps it.
    let mut squatter = process::Process::start(listen(8081));
    wait_until("the user listens", Duration::from_secs(20), || {
        assert_eq!(squatter.ended(), None);
        host.ns.output_of("ss", &["-Htln", "sport = :8081"]).filter(|listed| listed.contains("8081"))
    });
    let refusal = rnet.fails(&["run", "-d", "--name", "late", "-p", "8081:80"]);
    assert!(refusal.contains("8081") && refusal.contains("python3"), "{refusal}");
    squatter.kill();
}

#[test]
fn what_is_printed_moves_no_terminal() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let evil = "a\u{1b}]0;owned\u{7}\u{9b}31m\rb";
    for args in [
        &["run", "-d", "--name", evil][..],
        &["run", "-d", "--name", "x", "--hostname", evil],
        &["run", "-d", "--name", "x", "--network-alias", evil],
        &["network", "create", evil],
        &["rm", evil],
    ] {
        let refusal = assert_refused(&format!("{args:?}"), &rnet.cmd(args));
        assert!(!refusal.contains(['\u{1b}', '\u{7}', '\u{9b}', '\r']), "{refusal:?}");
    }
    rnet.ok(&["network", "create", "--label", &format!("l={evil}"), "labelled"]);
    for args in
        [&["network", "ls"][..], &["network", "inspect", "labelled"], &["ps"], &["events", "--until", "0"]]
    {
        let shown = rnet.cmd(args).stdout;
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}', '\r']), "{args:?}: {shown:?}");
    }
    assert!(!rnet.log().contains('\u{7}'), "{:?}", rnet.log());
}
