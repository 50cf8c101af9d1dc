//! A daemon that does as it is told.

#![expect(clippy::unused_async, reason = "handlers of axum's are so")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{delete, get, post, put},
};
use serde_json::{Value, json};

/// By ids.
#[derive(Default)]
pub(super) struct Daemon {
    pub(super) networks: Mutex<BTreeMap<String, Value>>,
    pub(super) containers: Mutex<BTreeMap<String, Value>>,
}

type Known = State<Arc<Daemon>>;

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    pub(super) fn router(self: &Arc<Self>) -> Router {
        let remove = |of: fn(&Daemon) -> &Mutex<BTreeMap<String, Value>>| {
            delete(async move |State(daemon): Known, Path(id): Path<String>| {
                lock(of(&daemon)).remove(&id);
                StatusCode::NO_CONTENT
            })
        };
        Router::new()
            .route("/rnet/engines/networks", post(Self::create_network))
            .route("/rnet/engines/docker-driver/networks/{id}", remove(|daemon| &daemon.networks))
            .route("/rnet/engines/containers", put(Self::set_container))
            .route("/rnet/engines/docker-driver/containers/{id}", remove(|daemon| &daemon.containers))
            .route("/rnet/networks/{id}", get(Self::network))
            .route("/rnet/containers/{id}", get(Self::container))
            .route("/rnet/engines/subnets", post(Self::subnet))
            .with_state(Arc::clone(self))
    }

    async fn create_network(State(daemon): Known, Json(asked): Json<Value>) -> Json<Value> {
        let id = asked["id"].as_str().unwrap().to_owned();
        let view = json!({
            "id": id, "name": asked["network"]["name"], "driver": "bridge", "created": "", "bridge": "br-1", "subnets": [],
            "internal": asked["network"]["internal"], "attachable": false, "ipv4": true, "ipv6": false, "predefined": false,
            "options": asked["network"]["options"], "labels": {}, "containers": {}, "asked": asked["network"],
        });
        lock(&daemon.networks).insert(id, view.clone());
        Json(view)
    }

    async fn set_container(State(daemon): Known, Json(asked): Json<Value>) -> Response {
        let id = asked["id"].as_str().unwrap().to_owned();
        let interface = &asked["interfaces"][0];
        let networks = lock(&daemon.networks);
        let Some(network) = networks.get(interface["network"].as_str().unwrap()) else {
            return (StatusCode::NOT_FOUND, Json(json!({ "message": "network not found" }))).into_response();
        };
        let gateways =
            if network["internal"] == true { json!([]) } else { json!(["10.88.5.1", "fd88:5::1"]) };
        let mac = interface["mac"].as_str().unwrap_or("ee:ee:ee:ee:ee:ee");
        let addrs = &interface["addrs"];
        let mut containers = lock(&daemon.containers);
        let has_addr =
            |(other, view): (&String, &Value)| *other != id && view["endpoints"][0]["addrs"] == *addrs;
        if containers.iter().any(has_addr) {
            return (StatusCode::CONFLICT, Json(json!({ "message": "address is in use" }))).into_response();
        }
        let before = containers.remove(&id);
        let ports = asked["ports"].as_array().unwrap().iter().map(|port| {
            let number = port["host"]["exactly"].as_u64().unwrap_or(32768);
            json!({
                "host": { "addr": port["host_ip"].as_str().unwrap_or("0.0.0.0"), "port": number, "protocol": port["protocol"] },
                "addr": "10.88.5.2", "port": port["container"],
            })
        });
        let endpoint = json!({
            "id": interface["id"], "network": "n", "network_id": interface["network"], "interface": "vetheeeeeeeep",
            "host_interface": "vetheeeeeeee", "mac": mac, "addrs": addrs, "gateways": gateways,
            "names": [], "aliases": [], "gw_priority": 0, "fixed": [],
        });
        let view = json!({
            "id": id, "name": asked["name"], "hostname": "", "state": "running", "pid": null, "exit_code": null,
            "created": "", "started": null, "finished": null, "command": [], "remove": true, "rootfs": null,
            "network_mode": "n", "netns": null, "attached": false, "namespaces": "host", "sysctls": {}, "dns": [],
            "dns_search": [], "dns_options": [], "extra_hosts": [], "terminal": false, "dir": "/", "exposed": [],
            "endpoints": [before.map_or(endpoint, |before| before["endpoints"][0].clone())],
            "ports": ports.collect::<Vec<_>>(), "asked": asked,
        });
        containers.insert(id, view.clone());
        Json(view).into_response()
    }

    async fn network(State(daemon): Known, Path(id): Path<String>) -> Response {
        let mut network = lock(&daemon.networks).get(&id).cloned();
        if let Some(network) = &mut network {
            let containers = lock(&daemon.containers);
            let members = containers.iter().map(|(id, view)| {
                let endpoint = &view["endpoints"][0];
                let member =
                    json!({ "name": "", "endpoint": id, "mac": endpoint["mac"], "addrs": endpoint["addrs"] });
                (id.clone(), member)
            });
            network["containers"] = members.collect();
        }
        found("network", network.as_ref())
    }

    async fn container(State(daemon): Known, Path(id): Path<String>) -> Response {
        found("container", lock(&daemon.containers).get(&id))
    }

    async fn subnet(Json(asked): Json<Value>) -> Json<Value> {
        Json(asked["subnet"].as_str().map_or(json!("172.18.0.0/16"), |subnet| json!(subnet)))
    }

    pub(super) fn asked_of(&self, container: &str) -> Value {
        lock(&self.containers)[container]["asked"].clone()
    }
}

fn found(what: &str, value: Option<&Value>) -> Response {
    match value {
        Some(value) => Json(value).into_response(),
        None => {
            (StatusCode::NOT_FOUND, Json(json!({ "message": format!("no such {what}") }))).into_response()
        }
    }
}
