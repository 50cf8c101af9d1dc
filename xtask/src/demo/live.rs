//! The live view: some traffic on all ways, and what the counters say of it, once a second.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    acts::{self, Containers},
    instance::Instance,
    interrupt,
    netns::Namespace,
    page,
    screen::{self, bold, dim},
    topology::Topology,
};

/// How often the view is drawn.
const REFRESH: Duration = Duration::from_secs(1);

/// Shows the view until somebody ends it.
pub(super) fn watch(rnet: &Instance, topology: &Topology, containers: &Containers) -> Result<()> {
    screen::part("live: pages are fetched on all three ways until Ctrl-C");
    println!("  {}", dim("try it yourself, from another terminal:"));
    let client = topology.client.name();
    screen::command(
        "this machine",
        format_args!("sudo ip netns exec {client} curl http://{}/", acts::published()),
    );
    println!();
    let traffic = Traffic::default();
    thread::scope(|scope| {
        let client: &Namespace = &topology.client;
        scope.spawn(|| traffic.keep_fetching(client, acts::published(), Duration::from_millis(50)));
        scope.spawn(|| traffic.keep_fetching(&containers.app, containers.web, Duration::from_millis(50)));
        scope.spawn(|| traffic.keep_fetching(&containers.app, acts::outside(), Duration::from_millis(100)));
        let outcome = draw(rnet, &traffic);
        traffic.end.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Fetches in the background.
#[derive(Default)]
struct Traffic {
    fetched: AtomicU64,
    failed: AtomicU64,
    end: AtomicBool,
}

impl Traffic {
    fn keep_fetching(&self, from: &Namespace, server: SocketAddr, pause: Duration) {
        let fetching = from.enter(|| {
            while !self.end.load(Ordering::Relaxed) {
                let count = if page::fetch(server).is_ok() { &self.fetched } else { &self.failed };
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(pause);
            }
            Ok(())
        });
        if let Err(error) = fetching {
            screen::failed(format_args!("{error:#}"));
        }
    }
}

fn draw(rnet: &Instance, traffic: &Traffic) -> Result<()> {
    let start = Instant::now();
    let mut earlier = (start, rnet.counters()?);
    let mut drawn = 0;
    loop {
        let next = earlier.0 + REFRESH;
        while Instant::now() < next {
            if interrupt::requested() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let now = (Instant::now(), rnet.counters()?);
        let mut frame = format!(
            "  {}  {} pages fetched, {} failed\n\n",
            bold(format_args!("{} s", start.elapsed().as_secs())),
            traffic.fetched.load(Ordering::Relaxed),
            traffic.failed.load(Ordering::Relaxed)
        );
        for port in rnet.run(&["port", "web"])?.lines() {
            writeln!(frame, "  web: {port}")?;
        }
        write!(frame, "\n{}\n", now.1.rates(&earlier.1, (now.0 - earlier.0).as_secs_f64()))?;
        if drawn > 0 && screen::is_terminal() {
            // Back to the frame's first line, and away with what is below.
            print!("\x1b[{drawn}A\x1b[J");
        }
        print!("{frame}");
        drawn = frame.lines().count();
        earlier = now;
    }
}
