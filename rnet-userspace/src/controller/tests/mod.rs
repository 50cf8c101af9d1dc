//! The controller's rules, over a host and a datapath in memory and a store on disk.

mod configuration;
mod connect;
mod containers;
mod engines;
mod flows;
mod gateways;
mod ipv6;
mod links;
mod modes;
mod networks;
mod published;
mod publishing;
mod restart;
mod rollback;
mod via_stack;
mod xdp;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use tempfile::TempDir;

use super::{
    Config, Controller, DefaultNetwork, Error, Result,
    fake::{Fake, Fate, Tables},
    request::{Connect, CreateContainer, CreateNetwork, Subnet},
    view,
};
use crate::store::Store;

type Instance = Controller<Fake, Fake>;

/// A host, and a place for one instance's state and files.
struct Bench {
    fake: Fake,
    dir: TempDir,
}

/// Everything that a change could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    tables: Tables,
    files: BTreeMap<String, String>,
}

impl Bench {
    fn new() -> Self {
        Self { fake: Fake::new(), dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> Config {
        let (state_dir, run_dir) = (self.dir.path().join("state"), self.dir.path().join("run"));
        Config { state_dir, run_dir, fault: None, ..Config::new("rnet").unwrap() }
    }

    fn start(&self) -> Instance {
        self.start_with(self.config()).unwrap()
    }

    fn start_with(&self, config: Config) -> Result<Instance> {
        let store = Store::open(&config.state_dir)?;
        let state = store.load()?;
        Controller::start(config, self.fake.clone(), self.fake.clone(), store, state)
    }

    fn snapshot(&self) -> Snapshot {
        let mut files = BTreeMap::new();
        read_all(self.dir.path(), self.dir.path(), &mut files);
        Snapshot { tables: self.fake.tables(), files }
    }
}

/// Runs `change` with the nth call failing, for every n, until it succeeds. Returns how often it failed.
fn fail_everywhere<T: std::fmt::Debug>(
    prepare: impl Fn() -> (Bench, Instance),
    change: impl Fn(&mut Instance) -> Result<T>,
    after_failure: impl Fn(&Bench, &mut Instance, &Snapshot),
) -> usize {
    for n in 1.. {
        let (bench, mut instance) = prepare();
        let before = bench.snapshot();
        bench.fake.set(Fate::FailAt(n));
        let outcome = change(&mut instance);
        bench.fake.set(Fate::Well);
        if outcome.is_ok() {
            return n - 1;
        }
        assert!(message(outcome).contains(&format!("call {n}, ")));
        after_failure(&bench, &mut instance, &before);
    }
    unreachable!("every change makes a bounded number of calls")
}

/// Runs `change` with the program ending at the nth call, for every n, and starts anew each time. Returns how often it
/// ended.
fn die_everywhere(
    prepare: impl Fn(&mut Instance),
    change: impl Fn(&mut Instance),
    check: impl Fn(&Bench, Instance, &Snapshot),
) -> usize {
    for n in 1.. {
        let bench = Bench::new();
        let mut instance = bench.start();
        prepare(&mut instance);
        let before = bench.snapshot();
        bench.fake.set(Fate::DieAt(n));
        let outcome = catch_unwind(AssertUnwindSafe(|| change(&mut instance)));
        bench.fake.set(Fate::Well);
        if outcome.is_ok() {
            return n - 1;
        }
        check(&bench, bench.start(), &before);
    }
    unreachable!("every change makes a bounded number of calls")
}

/// Directories count as well as files.
fn read_all(root: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() {
            files.insert(name + "/", String::new());
            read_all(root, &path, files);
        } else {
            files.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn network(name: &str) -> CreateNetwork {
    CreateNetwork { name: name.into(), ..CreateNetwork::default() }
}

fn network_in(name: &str, subnet: &str) -> CreateNetwork {
    let subnet = Subnet { subnet: Some(subnet.parse().unwrap()), ..Subnet::default() };
    CreateNetwork { subnets: vec![subnet], ..network(name) }
}

/// A namespace that stays until it is removed.
fn namespace(name: &str) -> CreateContainer {
    CreateContainer { name: Some(name.into()), ..CreateContainer::default() }
}

fn joining(name: &str, connect: Connect) -> CreateContainer {
    CreateContainer { networks: vec![connect], ..namespace(name) }
}

fn publishing(name: &str, specs: &[&str]) -> CreateContainer {
    CreateContainer { publish: specs.iter().map(|s| (*s).to_owned()).collect(), ..namespace(name) }
}

/// A container that runs a process.
fn running(instance: &mut Instance, fake: &Fake, request: CreateContainer, pid: u32) {
    let name = request.name.clone().unwrap();
    let request = CreateContainer { command: vec!["server".into()], detach: true, ..request };
    instance.create_container(&request).unwrap();
    fake.world().foreign.processes.insert(pid, u64::from(pid) * 100);
    instance.mark_started(&name, pid).unwrap();
}

fn addr_of(instance: &Instance, container: &str) -> String {
    instance.container(container).unwrap().endpoints[0].addrs[0].to_string()
}

fn message<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    let message = outcome.unwrap_err().to_string();
    assert!(!message.contains('\n') && !message.ends_with('.'), "not one line: {message}");
    message
}
