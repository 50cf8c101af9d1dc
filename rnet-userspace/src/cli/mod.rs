//! Arguments and printing. No logic: every command but `daemon` is a client of the daemon.

mod attach;
mod cni;
mod conntrack;
mod container;
mod create;
mod daemon;
mod docker_plugin;
mod doctor;
mod drops;
mod events;
mod exec;
mod foreground;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generate;
mod joining;
mod list;
mod log;
mod logs;
mod netavark;
mod network;
mod observe;
mod ports;
pub mod print;
mod progress;
mod ps;
mod publish;
mod run;
mod screen;
mod stats;
mod support_bundle;
mod system;
mod table;
mod template;
mod terminal;
mod top;
mod trace;

use std::{ffi::OsString, future::Future, panic, process, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::{self, Runtime};

pub use system::System;

use crate::{
    api::{self, client::Client},
    host::privileges,
    version,
};

/// Docker-style container networking by eBPF
///
/// All commands but `daemon` are clients of the daemon. Exit status: 0 done, 1 refused or failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "rnet", version = version::full(), propagate_version = true)]
pub struct Cli {
    /// The instance that is meant: its socket is /run/INSTANCE/rnet.sock
    #[arg(
        long,
        global = true,
        env = "RNET_INSTANCE",
        hide_env_values = true,
        value_name = "INSTANCE",
        default_value = api::DEFAULT_INSTANCE,
        value_parser = instance_name
    )]
    instance: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    Daemon(daemon::DaemonArgs),
    /// Serve Docker as its network driver, in the foreground
    DockerPlugin(docker_plugin::DockerPluginArgs),
    #[command(flatten)]
    Client(ClientCommand),
    /// Answer a container engine as a CNI plugin: what CNI_COMMAND asks for
    ///
    /// Run without arguments and with CNI_COMMAND in the environment, rnet does the same, so that it can lie among an
    /// engine's plugins.
    Cni,
    /// Write what makes a shell complete this program's arguments
    Completions(generate::CompletionsArgs),
    /// Write the manual's pages into a directory
    Man(generate::ManArgs),
    /// The parent of a process started by the daemon
    #[command(hide = true)]
    Shim {
        /// What to run, as JSON
        spec: String,
    },
}

/// What is asked of the daemon.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// Remove everything that this instance made, containers included
    Down,
    /// Manage networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Create a container and run a command in it
    Run(Box<run::RunArgs>),
    /// Connect a network namespace that somebody else made
    Attach(Box<attach::AttachArgs>),
    /// Publish ports of a running container
    Publish(publish::PublishArgs),
    /// Withdraw published ports of a running container
    Unpublish(publish::UnpublishArgs),
    /// Run a command in a running container
    Exec(exec::ExecArgs),
    /// List containers
    Ps(ps::PsArgs),
    /// Show containers as JSON
    Inspect(container::InspectArgs),
    /// Stop containers: SIGTERM, and SIGKILL after 10 seconds
    Stop(container::Names),
    /// Remove containers
    Rm(container::RmArgs),
    /// Show what a container run with -d has written
    Logs(logs::LogsArgs),
    /// List a container's published ports
    Port(container::PortArgs),
    /// Show the instance at a glance
    Status(FormatArgs),
    /// Show what the datapath has counted and the traffic of every published port, or of containers
    Stats(stats::StatsArgs),
    /// Show who causes the traffic, as it happens
    ///
    /// Keys: Tab goes on to published ports, flows and drops; b, k and f put first what has most bytes, packets and
    /// flows; p pauses, q quits.
    Top(top::TopArgs),
    /// Show how many packets were dropped, and why
    Drops(drops::DropsArgs),
    /// Look for what is wrong with the instance or its host, and say what to do about it
    ///
    /// Works without the daemon, too. Exit status 1 if there is an error; warnings are none.
    Doctor(doctor::DoctorArgs),
    /// Gather in one file what somebody needs who looks for a fault from afar
    SupportBundle(support_bundle::SupportBundleArgs),
    /// Show packets as they pass the programs: what each makes of them, and why
    Trace(trace::TraceArgs),
    /// Show what happens to networks and containers, as it happens
    Events(events::EventsArgs),
    /// Look at tracked connections, and forget them
    #[command(subcommand)]
    Conntrack(conntrack::ConntrackCommand),
    #[command(flatten)]
    Netavark(netavark::NetavarkCommand),
}

/// How something is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Exit status of a command that was done.
const DONE: u8 = 0;
/// Exit status of a command that was refused or failed.
const FAILED: u8 = 1;

impl Cli {
    /// Reads the arguments. Without any, what the environment asks for is done, if that is a container engine's.
    pub fn from_arguments() -> Self {
        let mut arguments: Vec<OsString> = std::env::args_os().collect();
        if arguments.len() == 1 && std::env::var_os("CNI_COMMAND").is_some() {
            arguments.push("cni".into());
        }
        // Wrong usage ends the program in here, with exit status 2.
        Self::parse_from(arguments)
    }

    /// Does what was asked, and returns the exit status.
    ///
    /// # Errors
    /// When it was refused or failed: exit status 1.
    pub fn run(self, system: Arc<dyn System>) -> Result<u8> {
        match self.command {
            Command::Daemon(args) => {
                // Before there are threads, which have capabilities of their own.
                args.give_up_privileges()?;
                let mut threads = runtime::Builder::new_multi_thread();
                start(&mut threads)?.block_on(args.run(self.instance, system))?;
                Ok(DONE)
            }
            Command::DockerPlugin(args) => {
                privileges::drop_all()?;
                let mut threads = runtime::Builder::new_multi_thread();
                start(threads.worker_threads(2))?.block_on(args.run(&self.instance))?;
                Ok(DONE)
            }
            Command::Cni => cni::run(&self.instance),
            Command::Completions(args) => args.run().map(|()| DONE),
            Command::Man(args) => args.run().map(|()| DONE),
            // Enters namespaces, which a process with threads cannot.
            Command::Shim { spec } => Ok(system.shim(&spec)),
            Command::Client(command) => {
                let client = Client::new(api::socket_path(&self.instance), &self.instance);
                let runtime = runtime::Builder::new_current_thread().enable_all().build();
                runtime.context("start an event loop")?.block_on(command.ask(&client, &*system))
            }
        }
    }
}

/// Starts a runtime's threads. Where the kernel has none, tokio panics, and then waits forever for those that it has: the
/// process ends here instead, with what it said.
fn start(threads: &mut runtime::Builder) -> Result<Runtime> {
    let before = panic::take_hook();
    panic::set_hook(Box::new(|panic| {
        let said = panic.payload().downcast_ref::<String>().map_or("tokio panicked", String::as_str);
        print::error(&anyhow!("start threads: {said}"));
        process::exit(1);
    }));
    let runtime = threads.enable_all().build().context("start threads");
    panic::set_hook(before);
    runtime
}

impl ClientCommand {
    async fn ask(self, client: &Client, system: &dyn System) -> Result<u8> {
        match self {
            Self::Down => progress::during("removing everything", client.down()).await?,
            Self::Network(command) => return command.run(client).await,
            Self::Run(args) => return args.run(client, system).await,
            Self::Attach(args) => args.run(client).await?,
            Self::Publish(args) => args.run(client).await?,
            Self::Unpublish(args) => args.run(client).await?,
            Self::Exec(args) => return args.run(client, system).await,
            Self::Ps(args) => args.run(client).await?,
            Self::Inspect(args) => return args.run(client).await,
            Self::Stop(names) => return names.stop(client).await,
            Self::Rm(args) => return args.run(client).await,
            Self::Logs(args) => args.run(client).await?,
            Self::Port(args) => args.run(client).await?,
            Self::Status(args) => observe::status(client, args.format).await?,
            Self::Stats(args) => args.run(client).await?,
            Self::Top(args) => args.run(client).await?,
            Self::Drops(args) => args.run(client).await?,
            Self::Doctor(args) => return args.run(client).await,
            Self::SupportBundle(args) => args.run(client).await?,
            Self::Trace(args) => args.run(client).await?,
            Self::Events(args) => args.run(client).await?,
            Self::Conntrack(command) => command.run(client).await?,
            Self::Netavark(command) => return command.run(client).await,
        }
        Ok(DONE)
    }
}

/// Does something to each of `names` and prints the name, whatever becomes of the others. What takes long shows
/// what it is `doing`.
async fn each<F>(doing: &str, names: &[String], mut act: impl FnMut(String) -> F) -> Result<u8>
where
    F: Future<Output = api::client::Result<()>>,
{
    let mut status = DONE;
    for name in names {
        match progress::during(&format!("{doing} {name}"), act(name.clone())).await {
            Ok(()) => print::line(name)?,
            // It would only be the same for the rest.
            Err(e @ api::client::Error::NoDaemon(..)) => return Err(e.into()),
            Err(e) => {
                print::error(&e.into());
                status = FAILED;
            }
        }
    }
    Ok(status)
}

/// Looks up each of `names` and prints what is found, as one JSON array unless another format is asked for.
async fn inspect<T: serde::Serialize, F>(
    names: &[String],
    format: Option<&list::ObjectFormat>,
    mut look_up: impl FnMut(String) -> F,
) -> Result<u8>
where
    F: Future<Output = api::client::Result<T>>,
{
    let (mut found, mut status) = (Vec::new(), DONE);
    for name in names {
        match look_up(name.clone()).await {
            Ok(object) => found.push(object),
            Err(e) if e.is_not_found() => {
                print::error(&e.into());
                status = FAILED;
            }
            Err(e) => return Err(e.into()),
        }
    }
    match format {
        Some(format) => format.print(&found)?,
        None => print::pretty(&found)?,
    }
    Ok(status)
}

/// Becomes part of paths and of interfaces' names.
fn instance_name(name: &str) -> Result<String, String> {
    let mut chars = name.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    if starts_well && name.len() <= 32 && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        Ok(name.to_owned())
    } else {
        Err("it should be up to 32 letters, digits, '_', '.' and '-', and begin with a letter or digit"
            .to_owned())
    }
}

#[cfg(test)]
mod tests;
