//! Each call of one kind that the daemon makes for a command fails once, in turn.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng, seq::index};
use testbed::{
    Host, Rnet, Snapshot,
    commands::assert_refused,
    consistency::assert_consistent,
    inject::{Injected, Injection, KINDS, Seen},
};

/// `all`, or the seed of which calls are tried.
const WHICH: &str = "RNET_FAULTS";
/// How many calls of each kind are tried for each command unless all are.
const TRIED: usize = 2;
/// How long files that the daemon has no more use for may stay open: idle connections of its commands.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

/// Kinds among which are calls that can be interrupted.
pub(super) const INTERRUPTIBLE: [&str; 2] = ["sockets", "files"];

/// A command during which a call fails.
pub(super) struct Change<'a> {
    /// Commands that have to come before.
    pub(super) prepare: &'a [&'a [&'a str]],
    /// The command.
    pub(super) command: &'a [&'a str],
    /// What is begun and fails halfway is finished by the same command, instead of being taken back.
    pub(super) removes: bool,
    /// What a repeated command may say where the first has done everything but say so.
    pub(super) done: &'a str,
    /// Commands that leave nothing of all that.
    pub(super) undo: &'a [&'a [&'a str]],
}

/// Which calls are tried.
enum Which {
    All,
    Some(u64),
}

impl Which {
    /// What the environment asks for; else the same calls each time, so that what fails comes of a change.
    fn of_this_run() -> Self {
        const SEED: u64 = 3;
        match std::env::var(WHICH) {
            Ok(all) if all == "all" => Self::All,
            Ok(seed) => {
                Self::Some(seed.parse().unwrap_or_else(|e| panic!("{WHICH}={seed}: all, or a number ({e})")))
            }
            Err(_) => Self::Some(SEED),
        }
    }

    /// Calls of each kind, of so many. Some that come behind are with all of them, as no two runs make the same calls.
    fn of(&self, calls: &[(&'static str, u64)]) -> Vec<Try> {
        let numbers = |calls: u64| match self {
            Self::All => (1..=calls + calls / 20).collect::<Vec<_>>(),
            Self::Some(seed) => {
                let calls = usize::try_from(calls).expect("there are fewer calls than memory");
                let mut random = StdRng::seed_from_u64(*seed);
                let some = index::sample(&mut random, calls, TRIED.min(calls)).into_iter();
                some.map(|at| at as u64 + 1).collect()
            }
        };
        let tries = |&(kind, calls): &(&'static str, u64)| {
            numbers(calls).into_iter().map(move |at| Try { kind, at }).collect::<Vec<_>>()
        };
        calls.iter().flat_map(tries).collect()
    }

    /// How the same ones are tried again.
    fn again(&self) -> String {
        match self {
            Self::All => format!("{WHICH}=all"),
            Self::Some(seed) => format!("{WHICH}={seed}"),
        }
    }
}

/// Where something is tried, until one try has broken something.
pub(super) struct Place<'h, T = ()> {
    pub(super) host: &'h Host,
    pub(super) rnet: Rnet<'h>,
    /// What there was when it had been prepared.
    pub(super) before: Snapshot,
    /// What was prepared beside that.
    pub(super) prepared: T,
}

/// A call that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Try {
    /// Among which it is counted.
    pub(super) kind: &'static str,
    /// Its number.
    pub(super) at: u64,
}

/// Lets each call of every kind fail once, in turn, while a command is carried out.
///
/// # Panics
/// When what comes of one is not as it is to be, with all of which that is so.
pub(super) fn sweep(change: &Change<'_>) {
    sweep_by(change, &KINDS, "resources");
}

/// Interrupts each call that can be, once, in turn, which the command must not notice.
///
/// # Panics
/// Likewise.
pub(super) fn sweep_interruptions(change: &Change<'_>) {
    sweep_by(change, &INTERRUPTIBLE, "interruption");
}

fn sweep_by(change: &Change<'_>, kinds: &[&'static str], failure: &str) {
    let prepare = |rnet: &Rnet<'_>| {
        rnet.start_daemon();
        open_files(rnet.daemon_id())
    };
    sweep_step(change.command, kinds, prepare, |place, one| place.try_change(change, one, failure));
}

/// Has `step` carry out something again and again, with a call of one of these kinds failing that is another each time, after
/// it has done so with none. It is given the call, and returns what the tracer has seen.
///
/// # Panics
/// When `step` does, with all the calls for which it has.
pub(super) fn sweep_step<T>(
    what: &[&str],
    kinds: &[&'static str],
    prepare: impl Fn(&Rnet<'_>) -> T,
    step: impl Fn(&Place<'_, T>, Try) -> Seen,
) {
    let which = Which::of_this_run();
    let in_a_place = |tries: &mut dyn FnMut(&Place<'_, T>)| {
        let host = Host::new();
        let rnet = Rnet::new(&host);
        let prepared = prepare(&rnet);
        let before = Snapshot::take(&host.ns, rnet.instance());
        tries(&Place { host: &host, rnet, before, prepared });
    };
    let mut calls = Vec::new();
    in_a_place(&mut |place| {
        calls.extend(kinds.iter().map(|kind| (*kind, step(place, Try { kind, at: 0 }).calls)));
    });
    let failures = each(&which.of(&calls), |tries, current| {
        in_a_place(&mut |place| {
            for one in tries {
                current.set(Some(*one));
                step(place, *one);
            }
        });
    });
    report(&failures, what, &which);
}

/// Says which calls were tried.
#[expect(clippy::print_stderr, reason = "a test that fails says how to make it fail again")]
fn report(failures: &[String], command: &[&str], which: &Which) {
    eprintln!("rnet {}: with {}, {} failed", command.join(" "), which.again(), failures.len());
    assert!(failures.is_empty(), "{} failed ({}):\n{}", failures.len(), which.again(), failures.join("\n"));
}

/// Has `try_them` try calls one after another, having noted each before, and returns why which of them failed. It is called
/// again for those behind one that failed, and makes a new place for them: nothing can be told by one where something is
/// left.
fn each(tries: &[Try], try_them: impl Fn(&[Try], &Cell<Option<Try>>)) -> Vec<String> {
    let mut failures = Vec::new();
    let (mut left, current) = (tries, Cell::new(None));
    note(tries);
    while !left.is_empty() {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| try_them(left, &current))) else { break };
        let failed = current.get().and_then(|failed| left.iter().position(|one| *one == failed));
        failures.push(format!("{:?}: {}", current.get(), message(&*panic)));
        left = &left[failed.map_or(left.len(), |at| at + 1)..];
    }
    failures
}

#[expect(clippy::print_stderr, reason = "how much was tried is part of what a test says")]
fn note(tries: &[Try]) {
    for kind in KINDS {
        eprintln!("{} {kind} calls", tries.iter().filter(|one| one.kind == kind).count());
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<String>().map_or("a panic without words", String::as_str)
}

impl<T> Place<'_, T> {
    /// Lets a call of the daemon that runs fail.
    pub(super) fn inject(&self, one: Try, failure: &str) -> Injection {
        Injection::start(tracer(), self.rnet.daemon_id(), one.kind, failure, one.at)
    }

    /// # Panics
    /// When not all is as it was at first.
    pub(super) fn assert_restored(&self, what: &str) {
        self.before.assert_restored(&self.host.ns, self.rnet.instance(), what);
    }
}

/// With the files that the daemon had open.
impl Place<'_, BTreeMap<String, usize>> {
    fn try_change(&self, change: &Change<'_>, one: Try, failure: &str) -> Seen {
        let Self { host, rnet, .. } = self;
        change.prepare.iter().for_each(|command| _ = rnet.ok(command));
        let prepared = Snapshot::take(&host.ns, rnet.instance());
        let listed = self.listed();
        let id = rnet.daemon_id();

        let injection = self.inject(one, failure);
        let finished = rnet.cmd(change.command);
        let seen = injection.end();
        let what = describe(change.command, one, &seen);

        assert_eq!(rnet.daemon_id(), id, "{what}: the daemon lives on");
        assert!(fs::exists(format!("/proc/{id}/ns")).unwrap(), "{what}: the daemon lives on");
        let once_more = format!("{what}, and once more");
        if finished.status.success() {
            assert_consistent(host, rnet, &what);
        } else {
            assert_eq!(
                failure, "resources",
                "{what}: an interrupted call is made again: {}",
                finished.stderr
            );
            assert!(seen.injected.is_some(), "{what}: {}", finished.stderr);
            assert_refused(&what, &finished);
            if !change.removes {
                prepared.assert_restored(&host.ns, rnet.instance(), &what);
                assert_eq!(self.listed(), listed, "{what}");
                assert_consistent(host, rnet, &what);
            }
            let again = rnet.cmd(change.command);
            let is_done = change.removes && again.stderr.contains(change.done);
            assert!(again.status.success() || is_done, "{once_more}: {}", again.stderr);
            assert_consistent(host, rnet, &once_more);
        }
        for command in change.undo {
            let undone = rnet.cmd(command);
            assert!(undone.status.success(), "{once_more}, undone by {command:?}: {}", undone.stderr);
        }
        self.assert_restored(&format!("{once_more}, and undone"));
        self.assert_nothing_left_open(&once_more);
        seen
    }

    fn listed(&self) -> [String; 2] {
        let containers = "{{.ID}} {{.Names}} {{.State}} {{.Networks}} {{.Ports}}";
        [self.rnet.ok(&["ps", "-a", "--format", containers]), self.rnet.ok(&["network", "ls"])]
    }

    fn assert_nothing_left_open(&self, what: &str) {
        let id = self.rnet.daemon_id();
        let more = || -> BTreeMap<String, usize> {
            let open = open_files(id).into_iter();
            open.filter(|(file, count)| self.prepared.get(file).is_none_or(|before| count > before)).collect()
        };
        let mut last = BTreeMap::new();
        let deadline = std::time::Instant::now() + testbed::patient(CLOSE_LIMIT);
        while std::time::Instant::now() < deadline {
            last = more();
            if last.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{what}: the daemon has more files open than before: {last:?}");
    }
}

/// What went wrong, for messages.
pub(super) fn describe(what: &[&str], one: Try, seen: &Seen) -> String {
    let (what, Try { kind, at }) = (what.join(" "), one);
    match &seen.injected {
        Some(Injected { call, about, error, thread }) => {
            format!("rnet {what}, {kind} call {at} failing ({call} of {about:?} in {thread}: {error})")
        }
        None if at == 0 => format!("rnet {what}, with no call failing"),
        None => format!("rnet {what}, without {kind} call {at}, which it does not make"),
    }
}

/// The program that lets calls fail.
pub(super) fn tracer() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rnet-inject"))
}

/// Files that a process has open, but for sockets: how many there are of each, without the numbers that tell them apart.
fn open_files(pid: u32) -> BTreeMap<String, usize> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let file = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        let kind = file.split_once(":[").map_or(file.as_str(), |(kind, _)| kind).to_owned();
        *files.entry(kind).or_default() += 1;
    }
    files
}
