//! rnet at work on real traffic, in network namespaces of its own: nothing of this machine's network is touched,
//! and everything is gone at the end.

mod acts;
mod counters;
mod instance;
pub(crate) mod interrupt;
mod live;
mod netns;
pub(crate) mod page;
mod screen;
mod topology;

use std::{
    path::PathBuf,
    process::{self, ExitCode},
};

use anyhow::Result;
use clap::Args;

use self::{
    instance::Instance,
    topology::{CLIENT, HOST, Topology},
};

#[derive(Args)]
pub(crate) struct Options {
    /// The built binary.
    #[arg(long)]
    pub(crate) rnet: PathBuf,
    /// End with the last step instead of a live view.
    #[arg(long)]
    pub(crate) once: bool,
}

/// Runs the demonstration. Fails when something that it shows does not hold.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    interrupt::catch()?;
    let topology = Topology::build(&format!("demo-{}", process::id()))?;
    let name = format!("rnet-demo-{}", process::id());
    println!("{}", drawing());
    screen::part("the daemon and two containers");
    screen::command("host", format_args!("export RNET_INSTANCE={name}"));
    screen::command("host", "rnet daemon &");
    let rnet = Instance::start(&name, &options.rnet, &topology.host)?;
    let outcome = perform(options, &rnet, &topology);
    if interrupt::requested() {
        println!();
    }
    screen::part("removing everything");
    let removed = rnet.remove();
    let outcome = outcome.and_then(|failures| removed.map(|()| failures));
    drop(topology);
    match outcome {
        Ok(0) => {
            screen::proven("nothing stays behind");
            Ok(ExitCode::SUCCESS)
        }
        Ok(failures) => {
            screen::failed(format_args!("{failures} of the above"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error),
    }
}

/// Everything between start and removal. Returns how much of it failed.
fn perform(options: &Options, rnet: &Instance, topology: &Topology) -> Result<usize> {
    let containers = acts::start_containers(rnet)?;
    println!("  (xtask serve-page and fetch-page stand for any web server and client)");
    acts::serve_outside(topology)?;
    let failures = acts::show_ways(rnet, topology, &containers)?;
    if failures == 0 && !options.once {
        live::watch(rnet, topology, &containers)?;
    }
    Ok(failures)
}

fn drawing() -> String {
    let port = acts::PUBLISHED;
    format!(
        "
  client                 host                                  containers
  +---------------+      +-------------------------------+      +--------+
  | {CLIENT:<13} |------| {HOST}, port {port} published |--+---| web:80 |
  +---------------+      +-------------------------------+  |   +--------+
                           from_uplink    from_container    |   +--------+
                                                            +---| app    |
                                                                +--------+"
    )
}
