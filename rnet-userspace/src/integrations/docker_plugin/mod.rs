//! rnet as Docker's remote network and address driver (`docker network create -d rnet`): libnetwork's protocol, JSON by
//! POST on a unix socket, on dockerd's side; a client of the daemon on the other.
//!
//! ```text
//! dockerd ── /NetworkDriver.Join ─▶ messages ─▶ network ─┬─ translate ─▶ client ─▶ rnet daemon
//!            /IpamDriver.RequestPool ─────────▶ ipam ────┴─ state: promised pools, removals to be made up for
//! ```
//!
//! Every endpoint is a container of the daemon's, with the endpoint's id: dockerd does not tell whose it is.

mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod ipam;
mod messages;
mod network;
mod state;
#[cfg(test)]
mod tests;
mod translate;

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use axum::{
    Router,
    body::{self, Body},
    extract::State as Shared,
    http::{Request, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use sd_notify::NotifyState;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, watch},
    time,
};

use self::{error::Error, state::State};
use crate::{
    api::{
        client::Client,
        connections::{self, Connections, Door, Limits},
        daemon::tell_manager,
        socket,
    },
    controller::model::engine::Engine,
};

const ENGINE: Engine = Engine::DockerDriver;
/// What dockerd accepts.
const CONTENT: &str = "application/vnd.docker.plugins.v1.2+json";
/// Connections at once, half of them root's, who is dockerd: when it starts, it has 128 containers for each processor set up at a
/// time, and takes a refusal for a failure.
const CALLS: usize = 8192;
/// A port map with every port of an address is 7 MB.
const BODY_LIMIT: usize = 16 << 20;
/// How often what could not be removed is tried again.
const MAKE_UP_EVERY: Duration = Duration::from_secs(2);
/// How long calls may take to end once the plugin is to.
const DRAIN: Duration = Duration::from_secs(15);

/// What the plugin is told at its start.
#[derive(Debug)]
pub struct Options {
    /// Calls the daemon of the same instance.
    pub client: Client,
    /// Where dockerd finds it.
    pub socket: PathBuf,
    /// Where its state is kept.
    pub state_dir: PathBuf,
}

/// Where the plugin of an instance listens unless another place is named.
pub fn socket_path(instance: &str) -> PathBuf {
    Path::new("/run").join(instance).join("docker-plugin.sock")
}

struct Plugin {
    client: Client,
    state: State,
    /// Held while a pool is being chosen.
    pools: Mutex<()>,
}

/// Serves until `end`.
///
/// # Errors
/// The socket cannot be had, or the state not be read.
pub async fn run(options: Options, end: impl Future<Output = ()> + Send) -> Result<()> {
    let Options { client, socket, state_dir } = options;
    let state = State::load(&state_dir)?;
    socket::refuse_if_taken(&socket).await?;
    let plugin = Arc::new(Plugin { client, state, pools: Mutex::default() });
    let (listener, _file) = socket::bind(&socket)?;
    let router = Router::new().fallback(serve).with_state(Arc::clone(&plugin));
    let ending = watch::Sender::new(false);
    let connections = Connections::new(Limits::within_descriptors(CALLS));
    let mut server = std::pin::pin!(connections.serve(Door::Unix(listener), router, ending.subscribe()));
    tell_manager(&[NotifyState::Ready]);
    tracing::info!(socket = %socket.display(), "ready");
    tokio::select! {
        () = &mut server => bail!("serve dockerd: nobody listens any more"),
        () = make_up(&plugin) => {}
        () = end => {}
    }
    tell_manager(&[NotifyState::Stopping]);
    ending.send_replace(true);
    if time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!("calls are still under way, which are cut off");
    }
    tracing::info!("ended");
    Ok(())
}

async fn make_up(plugin: &Plugin) {
    let mut ticks = time::interval(MAKE_UP_EVERY);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        plugin.make_up().await;
    }
}

async fn serve(Shared(plugin): Shared<Arc<Plugin>>, request: Request<Body>) -> Response {
    let call = request.uri().path().trim_start_matches('/').to_owned();
    let body = match body::to_bytes(request.into_body(), BODY_LIMIT).await {
        Ok(body) => body,
        Err(e) => {
            let (status, why) = connections::refusal(&e, BODY_LIMIT);
            return answer(status, &refusal(&why));
        }
    };
    // A dockerd that hangs up must not leave half of what it asked for.
    let name = call.clone();
    let outcome = tokio::spawn(async move { plugin.answer(&name, &body).await }).await;
    match outcome {
        Ok(Ok(value)) => {
            tracing::debug!(call, "done");
            answer(StatusCode::OK, &value)
        }
        Ok(Err(error)) => {
            tracing::warn!(call, "{error}");
            // With another status dockerd puts the call's name before it; 404 it takes for a call that it can do without.
            let status = match error {
                Error::NoSuchCall(_) => StatusCode::NOT_FOUND,
                Error::NotUnderstood(..) | Error::Daemon(_) | Error::Invalid(_) | Error::State(_) => {
                    StatusCode::OK
                }
            };
            answer(status, &refusal(&error.to_string()))
        }
        Err(e) => {
            tracing::error!(call, "{e}");
            answer(StatusCode::INTERNAL_SERVER_ERROR, &refusal("rnet's plugin failed inside"))
        }
    }
}

/// Network drivers have `Err`, address drivers `Error`: dockerd takes an answer without it for a good one.
fn refusal(why: &str) -> Value {
    json!({ "Err": why, "Error": why })
}

fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [(CONTENT_TYPE, CONTENT)], value.to_string()).into_response()
}

impl Plugin {
    async fn answer(&self, call: &str, body: &[u8]) -> error::Result<Value> {
        Ok(match call {
            "Plugin.Activate" => json!({ "Implements": ["NetworkDriver", "IpamDriver"] }),
            "NetworkDriver.GetCapabilities" => json!({ "Scope": "local", "ConnectivityScope": "local" }),
            "NetworkDriver.CreateNetwork" => self.create_network(read(call, body)?).await?,
            "NetworkDriver.DeleteNetwork" => {
                self.delete_network(read::<messages::Network>(call, body)?.network).await?
            }
            "NetworkDriver.CreateEndpoint" => self.create_endpoint(read(call, body)?).await?,
            "NetworkDriver.DeleteEndpoint" => self.delete_endpoint(read(call, body)?).await?,
            "NetworkDriver.EndpointOperInfo" => self.oper_info(&read(call, body)?).await,
            "NetworkDriver.Join" => self.join(read(call, body)?).await?,
            // The interface comes back afterwards, and goes with the endpoint.
            "NetworkDriver.Leave" => json!({}),
            "NetworkDriver.ProgramExternalConnectivity" => self.program(read(call, body)?).await?,
            "NetworkDriver.RevokeExternalConnectivity" => self.revoke(read(call, body)?).await?,
            // Of other nodes, and of networks that span them, which a driver of local scope has none of.
            "NetworkDriver.DiscoverNew" | "NetworkDriver.DiscoverDelete" | "NetworkDriver.FreeNetwork" => {
                json!({})
            }
            "NetworkDriver.AllocateNetwork" => json!({ "Options": {} }),
            "IpamDriver.GetCapabilities" => {
                json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false })
            }
            "IpamDriver.GetDefaultAddressSpaces" => {
                json!({ "LocalDefaultAddressSpace": "rnet-local", "GlobalDefaultAddressSpace": "rnet-global" })
            }
            "IpamDriver.RequestPool" => self.request_pool(read(call, body)?).await?,
            "IpamDriver.ReleasePool" => self.release_pool(&read::<messages::Pool>(call, body)?.pool)?,
            "IpamDriver.RequestAddress" => self.request_address(&read(call, body)?)?,
            "IpamDriver.ReleaseAddress" => self.release_address(&read(call, body)?)?,
            _ => return Err(Error::NoSuchCall(call.to_owned())),
        })
    }
}

fn read<T: DeserializeOwned>(call: &str, body: &[u8]) -> error::Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::NotUnderstood(call.to_owned(), e))
}
