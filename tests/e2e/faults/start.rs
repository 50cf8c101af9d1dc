//! The daemon's start, and `rnet down`.

use std::cell::RefCell;

use testbed::{
    Rnet,
    commands::assert_refused,
    consistency::assert_consistent,
    inject::{Injection, KINDS, Seen},
    process::Finished,
    traffic::tcp,
};

use super::sweep::{INTERRUPTIBLE, Place, Try, describe, sweep_step, tracer};

const START: &[&str] = &["daemon"];
const DOWN: &[&str] = &["down"];
const PREPARE: &[&[&str]] = &[
    &["network", "create", "--subnet", "10.88.0.0/24", "a"],
    &["run", "-d", "--name", "web", "--network", "a", "-p", "8080:80"],
    &["run", "-d", "--name", "other", "-p", "8081:80", "sleep", "infinity"],
];

/// Starts the daemon with one of its calls failing in this way.
fn start(rnet: &Rnet<'_>, one: Try, failure: &str) -> (Result<(), Finished>, Seen) {
    let injection = RefCell::new(None);
    let started = rnet.try_start_daemon("", &[], |pid| {
        injection.replace(Some(Injection::start(tracer(), pid, one.kind, failure, one.at)));
    });
    let injection = injection.into_inner().expect("the daemon was given to the tracer");
    (started, injection.end())
}

/// A start that failed had a call fail, and has said so in one line, behind what it had to say before.
fn assert_said(what: &str, finished: &Finished, seen: &Seen) {
    assert!(seen.injected.is_some(), "{what}: {}", finished.stderr);
    // The shell could not run it.
    if seen.injected.as_ref().is_some_and(|injected| injected.thread == "sh") {
        return;
    }
    // Without its first thread that may wait, or what it hears of signals by, tokio panics, before anything is made, and
    // nothing of rnet could say so in other words.
    if ["OS can't spawn worker thread", "failed to create UnixStream"]
        .iter()
        .any(|said| finished.stderr.contains(said))
    {
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
    sweep_step(
        START,
        &KINDS,
        |_| (),
        |place, one| {
            let Place { host, rnet, .. } = place;
            let (started, seen) = start(rnet, one, "resources");
            let what = describe(START, one, &seen);
            if let Err(finished) = &started {
                assert_said(&what, finished, &seen);
                place.assert_restored(&what);
                rnet.start_daemon();
            }
            assert_consistent(host, rnet, &what);
            rnet.down();
            place.assert_restored(&format!("{what}, and rnet down"));
            seen
        },
    );
}

#[test]
fn a_daemon_takes_over_whatever_is_interrupted() {
    testbed::require_root!();
    let prepare = |rnet: &Rnet<'_>| {
        rnet.start_daemon();
        prepare(rnet);
    };
    sweep_step(START, &INTERRUPTIBLE, prepare, |place, one| {
        let Place { host, rnet, .. } = place;
        rnet.terminate();
        let (started, seen) = start(rnet, one, "interruption");
        let what = describe(START, one, &seen);
        assert!(started.is_ok(), "{what}: {started:?}");
        assert_consistent(host, rnet, &what);
        place.assert_restored(&what);
        seen
    });
}

#[test]
fn any_call_may_fail_while_a_daemon_takes_over() {
    testbed::require_root!();
    let prepare = |rnet: &Rnet<'_>| {
        rnet.start_daemon();
        prepare(rnet);
        tcp::echo(&rnet.container("web").ns, "0.0.0.0:80")
    };
    sweep_step(START, &KINDS, prepare, |place, one| {
        let Place { host, rnet, .. } = place;
        rnet.terminate();
        let (started, seen) = start(rnet, one, "resources");
        let what = describe(START, one, &seen);
        // Whatever comes of it, who is served goes on being served.
        tcp::ask(&host.client, host.at(8080));
        if let Err(finished) = &started {
            assert_said(&what, finished, &seen);
            rnet.start_daemon();
        }
        assert_consistent(host, rnet, &what);
        tcp::ask(&host.client, host.at(8080));
        place.assert_restored(&what);
        seen
    });
}

#[test]
fn any_call_may_fail_while_all_is_taken_down() {
    testbed::require_root!();
    sweep_step(
        DOWN,
        &KINDS,
        |_| (),
        |place, one| {
            let Place { rnet, .. } = place;
            rnet.start_daemon();
            prepare(rnet);
            let injection = place.inject(one, "resources");
            let finished = rnet.cmd(DOWN);
            let seen = injection.end();
            let what = describe(DOWN, one, &seen);
            if finished.status.success() {
                rnet.wait_ended();
            } else {
                assert!(seen.injected.is_some(), "{what}: {}", finished.stderr);
                assert_refused(&what, &finished);
                rnet.down();
            }
            place.assert_restored(&what);
            seen
        },
    );
}

fn prepare(rnet: &Rnet<'_>) {
    for command in PREPARE {
        rnet.ok(command);
    }
}
