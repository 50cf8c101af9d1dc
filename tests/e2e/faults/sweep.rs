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
pub(super) enum Which {
    All,
    Some(u64),
}

impl Which {
    /// What the environment asks for; else the same calls each time, so that what fails comes of a change.
    pub(super) fn of_this_run() -> Self {
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
    pub(super) fn of(&self, calls: &[(&'static str, u64)]) -> Vec<Try> {
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
    pub(super) fn again(&self) -> String {
        match self {
            Self::All => format!("{WHICH}=all"),
            Self::Some(seed) => format!("{WHICH}={seed}"),
        }
    }
}

/// Where commands are tried, until one has broken something.
struct Place<'h> {
    host: &'h Host,
    rnet: Rnet<'h>,
    before: Snapshot,
    files: BTreeMap<String, usize>,
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
    sweep_by(change, &["sockets", "files"], "interruption");
}

fn sweep_by(change: &Change<'_>, kinds: &[&'static str], failure: &str) {
    let which = Which::of_this_run();
    let calls = in_a_place(|place| {
        let count = |kind: &&'static str| {
            place.prepare(change);
            let counting = place.inject(kind, failure, 0);
            place.rnet.ok(change.command);
            let calls = counting.end().calls;
            change.undo.iter().for_each(|command| _ = place.rnet.ok(command));
            (*kind, calls)
        };
        kinds.iter().map(count).collect::<Vec<_>>()
    });
    let failures = each(&which.of(&calls), |tries, current| {
        in_a_place(|place| {
            for one in tries {
                current.set(Some(*one));
                place.try_one(change, one, failure);
            }
        });
    });
    report(&failures, change.command, &which);
}

/// Says which calls were tried.
#[expect(clippy::print_stderr, reason = "a test that fails says how to make it fail again")]
pub(super) fn report(failures: &[String], command: &[&str], which: &Which) {
    eprintln!("rnet {}: with {}, {} failed", command.join(" "), which.again(), failures.len());
    assert!(failures.is_empty(), "{} failed ({}):\n{}", failures.len(), which.again(), failures.join("\n"));
}

fn in_a_place<T>(f: impl FnOnce(&Place<'_>) -> T) -> T {
    let host = Host::new();
    f(&Place::new(&host))
}

/// Has `try_them` try calls one after another, having noted each before, and returns why which of them failed. It is called
/// again for those behind one that failed, and makes a new place for them: nothing can be told by one where something is
/// left.
pub(super) fn each(tries: &[Try], try_them: impl Fn(&[Try], &Cell<Option<Try>>)) -> Vec<String> {
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

impl<'h> Place<'h> {
    fn new(host: &'h Host) -> Self {
        let rnet = Rnet::start(host);
        let before = Snapshot::take(&host.ns, rnet.instance());
        let files = open_files(rnet.daemon_id());
        Self { host, rnet, before, files }
    }

    fn prepare(&self, change: &Change<'_>) {
        for command in change.prepare {
            self.rnet.ok(command);
        }
    }

    fn inject(&self, kind: &str, failure: &str, at: u64) -> Injection {
        Injection::start(tracer(), self.rnet.daemon_id(), kind, failure, at)
    }

    fn try_one(&self, change: &Change<'_>, one: &Try, failure: &str) {
        let Self { host, rnet, .. } = self;
        self.prepare(change);
        let prepared = Snapshot::take(&host.ns, rnet.instance());
        let listed = self.listed();
        let id = rnet.daemon_id();

        let injection = self.inject(one.kind, failure, one.at);
        let finished = rnet.cmd(change.command);
        let Seen { injected, .. } = injection.end();
        let what = describe(change.command, one, injected.as_ref());

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
        self.before.assert_restored(&host.ns, rnet.instance(), &format!("{once_more}, and undone"));
        self.assert_nothing_left_open(&once_more);
    }

    fn listed(&self) -> [String; 2] {
        let containers = "{{.ID}} {{.Names}} {{.State}} {{.Networks}} {{.Ports}}";
        [self.rnet.ok(&["ps", "-a", "--format", containers]), self.rnet.ok(&["network", "ls"])]
    }

    fn assert_nothing_left_open(&self, what: &str) {
        let id = self.rnet.daemon_id();
        let more = || -> BTreeMap<String, usize> {
            let open = open_files(id).into_iter();
            open.filter(|(file, count)| self.files.get(file).is_none_or(|before| count > before)).collect()
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
pub(super) fn describe(command: &[&str], one: &Try, injected: Option<&Injected>) -> String {
    let (command, Try { kind, at }) = (command.join(" "), one);
    match injected {
        Some(Injected { call, about, error, thread }) => {
            format!("rnet {command}, {kind} call {at} failing ({call} of {about:?} in {thread}: {error})")
        }
        None => format!("rnet {command}, without {kind} call {at}, which it does not make"),
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
