//! rnet as a CNI plugin, called by hand: the corners of the specification that engines seldom get to.

mod bandwidth;
mod chains;
mod life;
mod networks;
mod nodes;

use std::{net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};
use testbed::{Host, Netns, Rnet, commands, process};

const LIMIT: Duration = Duration::from_secs(60);

/// The plugin as an engine calls it.
struct Plugin<'h> {
    host: &'h Host,
    instance: String,
    path: String,
    args: String,
}

/// What a call is refused with.
#[derive(Debug)]
struct Refused {
    code: u64,
    message: String,
}

impl<'h> Plugin<'h> {
    fn new(host: &'h Host, rnet: &Rnet<'h>) -> Self {
        Self { host, instance: rnet.instance().to_owned(), path: String::new(), args: String::new() }
    }

    /// Runs the binary without arguments, as an engine does.
    fn call(
        &self,
        command: &str,
        container: &str,
        netns: &str,
        interface: &str,
        config: &Value,
    ) -> Result<Value, Refused> {
        let mut shell = self.host.ns.command("sh");
        shell.args(["-c", r#"printf %s "$INPUT" | "$PLUGIN""#]);
        shell.env("INPUT", config.to_string()).env("PLUGIN", commands::binary());
        shell.env("RNET_INSTANCE", &self.instance);
        shell.env("CNI_COMMAND", command).env("CNI_CONTAINERID", container).env("CNI_NETNS", netns);
        shell.env("CNI_IFNAME", interface).env("CNI_PATH", &self.path).env("CNI_ARGS", &self.args);
        let finished = process::run(shell, LIMIT);
        let said = serde_json::from_str(&finished.stdout);
        if finished.status.success() {
            return Ok(said.unwrap_or_default());
        }
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let said: Value = said.unwrap_or_else(|e| panic!("{command} says no JSON ({e}): {finished:?}"));
        let (code, message) = (said["code"].as_u64().unwrap(), said["msg"].as_str().unwrap().to_owned());
        assert!(said["cniVersion"].is_string(), "{said}");
        Err(Refused { code, message })
    }

    fn add(&self, container: &str, ns: &Netns, config: &Value) -> Value {
        let added = self.call("ADD", container, path_of(ns), "eth0", config);
        added.unwrap_or_else(|e| panic!("ADD {container}: {e:?}"))
    }

    fn refused(&self, container: &str, ns: &Netns, config: &Value) -> (u64, String) {
        let refused = self.call("ADD", container, path_of(ns), "eth0", config).unwrap_err();
        (refused.code, refused.message)
    }

    fn del(&self, container: &str, netns: &str, config: &Value) {
        let deleted = self.call("DEL", container, netns, "eth0", config);
        deleted.unwrap_or_else(|e| panic!("DEL {container}: {e:?}"));
    }

    /// CHECK, with what ADD has said.
    fn check(&self, container: &str, ns: &Netns, config: &Value, result: &Value) -> Result<Value, Refused> {
        let config = with(config, &json!({ "prevResult": result }));
        self.call("CHECK", container, path_of(ns), "eth0", &config)
    }
}

fn path_of(ns: &Netns) -> &str {
    ns.path().to_str().unwrap()
}

/// A configuration with more in it.
fn with(config: &Value, more: &Value) -> Value {
    let mut config = config.clone();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn network(name: &str) -> Value {
    json!({ "cniVersion": "1.0.0", "name": name, "type": "rnet", "subnet": "10.66.0.0/24" })
}

fn publishing(host: u16, container: u16) -> Value {
    let port = json!({ "hostPort": host, "containerPort": container, "protocol": "tcp" });
    json!({ "runtimeConfig": { "portMappings": [port] } })
}

fn addr_in(result: &Value) -> Ipv4Addr {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()
}
