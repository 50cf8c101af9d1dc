//! Name servers on the gateways of user-defined networks: containers find one another by name there, and the rest is
//! asked of the host's resolvers or of the container's own.
//!
//! ```text
//! container ──query──▶ gateway:53 ──▶ answer ──▶ directory: the names of the networks that the container is on
//!                                        └─▶ forward ──▶ upstream, as the query came: UDP by UDP, TCP by TCP
//! ```

mod answer;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod listen;
mod resolvers;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rnet_common::local::NAMES;
use tokio::{task::JoinSet, time};

use self::{
    answer::{Decision, Transport, decide, failure},
    resolvers::Resolvers,
};
use crate::{controller::Directory, shares::Shares};

/// Questions that are under way upstream at once; what comes beyond them is refused, as with Docker.
const FORWARDED: usize = 1024;
/// The same for each address of a container.
const FORWARDED_OF_ONE: usize = 128;
/// How long a server may take that is asked, as with Docker.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause before an address is tried again that somebody else listens on.
const RETRY: Duration = Duration::from_secs(2);

/// Serves the names of one instance until dropped.
pub async fn serve(directory: Arc<Directory>) {
    let server = Arc::new(Server {
        directory: Arc::clone(&directory),
        resolvers: Resolvers::default(),
        forwarded: Shares::new(FORWARDED, FORWARDED_OF_ONE),
    });
    let mut gateways = directory.gateways();
    let mut served = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = gateways.borrow_and_update().clone();
        served.retain(|addr, task: &mut tokio::task::AbortHandle| {
            let stays = wanted.contains(addr);
            if !stays {
                task.abort();
            }
            stays
        });
        for addr in wanted {
            served.entry(addr).or_insert_with(|| tasks.spawn(listen_at(addr, Arc::clone(&server))));
        }
        tokio::select! {
            changed = gateways.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// What every address is served with.
struct Server {
    directory: Arc<Directory>,
    resolvers: Resolvers,
    forwarded: Arc<Shares<IpAddr>>,
}

impl Server {
    /// The answer to a query, if it is to have one.
    async fn answer(&self, source: IpAddr, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let servers = match decide(&self.directory, source, query, transport) {
            Decision::Reply(reply) => return Some(reply),
            Decision::Ignore => return None,
            Decision::Forward(servers) => servers,
        };
        let Ok(_share) = self.forwarded.take(source) else {
            return failure(query, answer::REFUSED);
        };
        let servers = if servers.is_empty() { self.resolvers.of_host() } else { servers };
        // Our own would ask us again.
        let mut servers = servers;
        servers.retain(|addr| !self.directory.is_gateway(*addr));
        let upstreams: Vec<SocketAddr> = servers.into_iter().map(|addr| (addr, NAMES).into()).collect();
        match forward::ask(&upstreams, query, transport, PATIENCE).await {
            Some(reply) => Some(reply),
            None => failure(query, answer::SERVFAIL),
        }
    }
}

async fn listen_at(addr: IpAddr, server: Arc<Server>) {
    let at = SocketAddr::new(addr, NAMES);
    let mut is_told = false;
    loop {
        match listen::bind(at) {
            Ok((udp, tcp)) => {
                if is_told {
                    tracing::info!(%addr, "names are answered");
                }
                tokio::join!(listen::datagrams(udp, &server), listen::connections(tcp, &server));
            }
            Err(error) if !is_told => {
                tracing::warn!(%addr, "names are not answered while port {NAMES} cannot be had there: {error}");
                is_told = true;
            }
            Err(_) => {}
        }
        time::sleep(RETRY).await;
    }
}
