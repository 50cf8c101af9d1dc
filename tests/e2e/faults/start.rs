//! The daemon's start, and `rnet down`.

use std::cell::RefCell;

use testbed::{
    Host, Rnet, Snapshot,
    commands::assert_refused,
    consistency::assert_consistent,
    inject::{Injection, KINDS, Seen},
    process::Finished,
    traffic::tcp,
};

use super::sweep::{Try, Which, describe, each, report, tracer};

const START: &[&str] = &["daemon"];
const DOWN: &[&str] = &["down"];
const PREPARE: &[&[&str]] = &[
    &["network", "create", "--subnet", "10.88.0.0/24", "a"],
    &["run", "-d", "--name", "web", "--network", "a", "-p", "8080:80"],
    &["run", "-d", "--name", "other", "-p", "8081:80", "sleep", "infinity"],
];

/// Starts the daemon with one of its calls failing.
fn start(rnet: &Rnet<'_>, one: Try) -> (Result<(), Finished>, Seen) {
    let injection = RefCell::new(None);
    let started = rnet.try_start_daemon("", &[], |pid| {
        injection.replace(Some(Injection::start(tracer(), pid, one.kind, "resources", one.at)));
    });
    let injection = injection.into_inner().expect("the daemon was given to the tracer");
    (started, injection.end())
}

/// A start that failed has said so in one line, behind what it had to say before.
fn assert_said(what: &str, finished: &Finished) {
    // Without its first thread tokio panics, before anything of rnet runs that could say so in other words.
    if finished.stderr.contains("OS can't spawn worker thread") {
        assert!(!finished.status.success(), "{what}: {}", finished.stderr);
        return;
    }
    assert_eq!(finished.status.code(), Some(1), "{what}: {}", finished.stderr);
    let errors = finished.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{what}: one line says why:\n{}", finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{what}: {}", finished.stderr);
}

#[test]
fn any_call_may_fail_while_a_daemon_starts_for_the_first_time() {
    testbed::require_root!();
    let which = Which::of_this_run();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let calls = KINDS.map(|kind| {
        let (started, seen) = start(&rnet, Try { kind, at: 0 });
        assert!(started.is_ok(), "{started:?}");
        rnet.down();
        (kind, seen.calls)
    });
    let failures = each(&which.of(&calls), |tries, current| {
        let host = Host::new();
        let rnet = Rnet::new(&host);
        let before = Snapshot::take(&host.ns, rnet.instance());
        for one in tries {
            current.set(Some(*one));
            let (started, seen) = start(&rnet, *one);
            let what = describe(START, one, seen.injected.as_ref());
            if let Err(finished) = &started {
                assert_said(&what, finished);
                before.assert_restored(&host.ns, rnet.instance(), &what);
                rnet.start_daemon();
            }
            assert_consistent(&host, &rnet, &what);
            rnet.down();
            before.assert_restored(&host.ns, rnet.instance(), &format!("{what}, and rnet down"));
        }
    });
    report(&failures, START, &which);
}

#[test]
fn any_call_may_fail_while_a_daemon_takes_over() {
    testbed::require_root!();
    let which = Which::of_this_run();
    let host = Host::new();
    let rnet = prepared(&host);
    let calls = KINDS.map(|kind| {
        rnet.terminate();
        let (started, seen) = start(&rnet, Try { kind, at: 0 });
        assert!(started.is_ok(), "{started:?}");
        (kind, seen.calls)
    });
    let failures = each(&which.of(&calls), |tries, current| {
        let host = Host::new();
        let rnet = prepared(&host);
        let web = rnet.container("web");
        let _server = tcp::echo(&web.ns, "0.0.0.0:80");
        let before = Snapshot::take(&host.ns, rnet.instance());
        for one in tries {
            current.set(Some(*one));
            rnet.terminate();
            let (started, seen) = start(&rnet, *one);
            let what = describe(START, one, seen.injected.as_ref());
            // Whatever comes of it, who is served goes on being served.
            tcp::ask(&host.client, host.at(8080));
            if let Err(finished) = &started {
                assert_said(&what, finished);
                rnet.start_daemon();
            }
            assert_consistent(&host, &rnet, &what);
            tcp::ask(&host.client, host.at(8080));
            before.assert_restored(&host.ns, rnet.instance(), &what);
        }
    });
    report(&failures, START, &which);
}

#[test]
fn any_call_may_fail_while_all_is_taken_down() {
    testbed::require_root!();
    let which = Which::of_this_run();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let calls = KINDS.map(|kind| {
        rnet.start_daemon();
        prepare(&rnet);
        let counting = Injection::start(tracer(), rnet.daemon_id(), kind, "resources", 0);
        rnet.down();
        (kind, counting.end().calls)
    });
    let failures = each(&which.of(&calls), |tries, current| {
        let host = Host::new();
        let rnet = Rnet::new(&host);
        let before = Snapshot::take(&host.ns, rnet.instance());
        for one in tries {
            current.set(Some(*one));
            rnet.start_daemon();
            prepare(&rnet);
            let injection = Injection::start(tracer(), rnet.daemon_id(), one.kind, "resources", one.at);
            let finished = rnet.cmd(DOWN);
            let what = describe(DOWN, one, injection.end().injected.as_ref());
            if finished.status.success() {
                rnet.wait_ended();
            } else {
                assert_refused(&what, &finished);
                rnet.down();
            }
            before.assert_restored(&host.ns, rnet.instance(), &what);
        }
    });
    report(&failures, DOWN, &which);
}

fn prepared(host: &Host) -> Rnet<'_> {
    let rnet = Rnet::start(host);
    prepare(&rnet);
    rnet
}

fn prepare(rnet: &Rnet<'_>) {
    for command in PREPARE {
        rnet.ok(command);
    }
}
