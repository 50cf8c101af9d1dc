//! Calls as dockerd 20.10 and 28 make them, in their order, to a plugin whose daemon is a list of what it was asked.

mod daemon;

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, client::conn::http1};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use daemon::{Daemon, lock};

const NETWORK: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const ENDPOINT: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

/// A plugin, and perhaps a daemon.
struct Site {
    dir: TempDir,
    daemon: Arc<Daemon>,
    served: Option<JoinHandle<()>>,
    plugin: JoinHandle<Result<()>>,
    end: oneshot::Sender<()>,
}

impl Site {
    async fn start() -> Self {
        let mut site = Self::without_daemon().await;
        site.start_daemon();
        site
    }

    async fn without_daemon() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let options = Options {
            client: Client::new(dir.path().join("rnet.sock"), "fake"),
            socket: dir.path().join("plugin.sock"),
            state_dir: dir.path().join("state"),
        };
        let socket = options.socket.clone();
        let plugin = tokio::spawn(run(options, async { _ = ended.await }));
        while UnixStream::connect(&socket).await.is_err() {
            assert!(!plugin.is_finished(), "{:?}", plugin.await);
            time::sleep(Duration::from_millis(1)).await;
        }
        Self { dir, daemon: Arc::default(), served: None, plugin, end }
    }

    fn start_daemon(&mut self) {
        let socket = self.dir.path().join("rnet.sock");
        _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let router = self.daemon.router();
        self.served = Some(tokio::spawn(async { axum::serve(listener, router).await.unwrap() }));
    }

    /// As Go's client asks: without a host's name, and without saying what it sends.
    async fn call_raw(&self, call: &str, body: Vec<u8>) -> (StatusCode, String, Value) {
        let stream = UnixStream::connect(self.dir.path().join("plugin.sock")).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/{call}"))
            .header("host", "")
            .header("accept", CONTENT)
            .body(Full::new(bytes::Bytes::from(body)))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let kind = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, kind, serde_json::from_slice(&body).unwrap())
    }

    async fn call(&self, call: &str, body: Value) -> Value {
        let (status, kind, answer) = self.call_raw(call, body.to_string().into_bytes()).await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, CONTENT), "{call}: {answer}");
        answer
    }

    async fn done(&self, call: &str, body: Value) {
        assert_eq!(self.call(call, body.clone()).await, json!({}), "{call} {body}");
    }

    async fn create_network(&self, options: Value) {
        let network = json!({
            "NetworkID": NETWORK, "Options": options, "IPv6Data": [],
            "IPv4Data": [{"AddressSpace": "LocalDefault", "Gateway": "10.88.5.1/24", "Pool": "10.88.5.0/24"}],
        });
        self.done("NetworkDriver.CreateNetwork", network).await;
    }
}

fn endpoint() -> Value {
    json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT })
}

fn with(mut value: Value, more: Value) -> Value {
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

fn port(proto: u8, port: u16, host_ip: &str, host: u16) -> Value {
    json!({ "Proto": proto, "IP": "", "Port": port, "HostIP": host_ip, "HostPort": host, "HostPortEnd": host })
}

#[tokio::test]
async fn a_run_of_docker_20_10_and_its_end() {
    let site = Site::start().await;
    let (_, _, activated) = site.call_raw("Plugin.Activate", Vec::new()).await;
    assert_eq!(activated, json!({ "Implements": ["NetworkDriver", "IpamDriver"] }));
    let (_, _, scope) = site.call_raw("NetworkDriver.GetCapabilities", Vec::new()).await;
    assert_eq!(scope, json!({ "Scope": "local", "ConnectivityScope": "local" }));

    let options = json!({
        "com.docker.network.enable_ipv6": false,
        "com.docker.network.generic": {"com.docker.network.driver.mtu": "1400", "rnet.via_stack": "true"},
    });
    site.create_network(options).await;
    let network = lock(&site.daemon.networks)[NETWORK]["asked"].clone();
    assert_eq!(network["name"], "111111111111");
    assert_eq!(network["subnets"][0]["subnet"], "10.88.5.0/24");
    assert_eq!(network["subnets"][0]["gateway"], "10.88.5.1");
    assert_eq!(
        network["options"],
        json!({"com.docker.network.driver.mtu": "1400", "rnet.via_stack": "true"})
    );
    assert_eq!(
        (&network["ipv4"], &network["ipv6"], &network["internal"]),
        (&json!(true), &json!(false), &json!(false))
    );

    let portmap = json!([
        port(6, 80, "", 8081),
        port(6, 7001, "192.0.2.77", 7001),
        port(17, 53, "127.0.0.1", 5353),
        port(6, 90, "", 0),
        port(6, 90, "", 0),
        { "Proto": 132, "IP": "", "Port": 5000, "HostIP": "", "HostPort": 5000, "HostPortEnd": 5009 },
    ]);
    let ports = json!({ "Options": {
        "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}], "com.docker.network.portmap": portmap,
    } });
    let interface = json!({ "Interface": {"Address": "10.88.5.2/24", "AddressIPv6": "", "MacAddress": ""} });
    let made =
        site.call("NetworkDriver.CreateEndpoint", with(with(endpoint(), ports.clone()), interface)).await;
    assert_eq!(
        made,
        json!({ "Interface": { "MacAddress": "02:42:0a:58:05:02" } }),
        "what was asked for is not repeated"
    );
    let asked = site.daemon.asked_of(ENDPOINT);
    assert_eq!(asked["interfaces"][0]["addrs"], json!(["10.88.5.2/24"]));
    assert_eq!((&asked["ports"], &asked["engine"]), (&json!([]), &json!("docker-driver")));

    let join = with(with(endpoint(), ports.clone()), json!({ "SandboxKey": "/var/run/docker/netns/0" }));
    let joined = site.call("NetworkDriver.Join", join).await;
    assert_eq!(joined["InterfaceName"], json!({ "SrcName": "vetheeeeeeeep", "DstPrefix": "eth" }));
    assert_eq!((&joined["Gateway"], &joined["GatewayIPv6"]), (&json!("10.88.5.1"), &json!("fd88:5::1")));
    assert_eq!(joined["DisableGatewayService"], false);

    let program = with(endpoint(), ports);
    site.done("NetworkDriver.ProgramExternalConnectivity", program.clone()).await;
    let published = site.daemon.asked_of(ENDPOINT)["ports"].clone();
    let expected = json!([
        {"host_ip": null, "host": {"exactly": 8081}, "container": 80, "protocol": "tcp"},
        {"host_ip": null, "host": "ephemeral", "container": 90, "protocol": "tcp"},
        {"host_ip": "192.0.2.77", "host": {"exactly": 7001}, "container": 7001, "protocol": "tcp"},
        {"host_ip": "127.0.0.1", "host": {"exactly": 5353}, "container": 53, "protocol": "udp"},
        {"host_ip": null, "host": {"oneof": {"first": 5000, "last": 5009}}, "container": 5000, "protocol": "sctp"},
    ]);
    assert_eq!(published, expected);
    // Go's maps have no order.
    let mut reversed = program;
    reversed["Options"]["com.docker.network.portmap"].as_array_mut().unwrap().reverse();
    site.done("NetworkDriver.ProgramExternalConnectivity", reversed).await;
    assert_eq!(site.daemon.asked_of(ENDPOINT)["ports"], expected);

    let info = site.call("NetworkDriver.EndpointOperInfo", endpoint()).await;
    let shown = &info["Value"]["com.docker.network.portmap"];
    assert_eq!(shown.as_array().unwrap().len(), 5);
    let first = json!({"Proto": 6, "IP": "10.88.5.2", "Port": 80, "HostIP": "0.0.0.0", "HostPort": 8081, "HostPortEnd": 8081});
    assert_eq!(shown[0], first);

    site.done("NetworkDriver.RevokeExternalConnectivity", endpoint()).await;
    assert_eq!(site.daemon.asked_of(ENDPOINT)["ports"], json!([]));
    site.done("NetworkDriver.Leave", endpoint()).await;
    for _ in 0..2 {
        site.done("NetworkDriver.DeleteEndpoint", endpoint()).await;
        site.done("NetworkDriver.RevokeExternalConnectivity", endpoint()).await;
    }
    for _ in 0..2 {
        site.done("NetworkDriver.DeleteNetwork", json!({ "NetworkID": NETWORK })).await;
    }
    assert!(lock(&site.daemon.networks).is_empty() && lock(&site.daemon.containers).is_empty());
    site.end.send(()).unwrap();
    site.plugin.await.unwrap().unwrap();
    assert!(!site.dir.path().join("plugin.sock").exists() && !site.dir.path().join("state").exists());
}

#[tokio::test]
async fn docker_28_with_a_fixed_mac_and_without_some_lists() {
    let site = Site::start().await;
    let network = json!({
        "NetworkID": NETWORK, "IPv6Data": [{"AddressSpace": "LocalDefault", "Gateway": "fd88:8::1/64", "Pool": "fd88:8::/64"}],
        "Options": {"com.docker.network.enable_ipv4": false, "com.docker.network.enable_ipv6": true, "com.docker.network.generic": {}},
        "IPv4Data": null,
    });
    site.done("NetworkDriver.CreateNetwork", network).await;
    let asked = lock(&site.daemon.networks)[NETWORK]["asked"].clone();
    assert_eq!((&asked["ipv4"], &asked["ipv6"]), (&json!(false), &json!(true)));
    let create = json!({
        "Interface": {"Address": "", "AddressIPv6": "fd88:8::2/64", "MacAddress": "02:00:00:00:00:99"},
        "Options": {"com.docker.network.endpoint.macaddress": "AgAAAACZ", "com.docker.network.portmap": null},
    });
    let made = site.call("NetworkDriver.CreateEndpoint", with(endpoint(), create)).await;
    assert_eq!(made, json!({ "Interface": {} }));
    assert_eq!(site.daemon.asked_of(ENDPOINT)["interfaces"][0]["mac"], "02:00:00:00:00:99");
    let program = json!({ "Options": {
        "com.docker.network.driver.private.no_proxy_6to4": false, "com.docker.network.portmap": [port(6, 80, "", 8083)],
    } });
    site.done("NetworkDriver.ProgramExternalConnectivity", with(endpoint(), program)).await;
    assert_eq!(site.daemon.asked_of(ENDPOINT)["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_internal_network_has_no_gateway_and_no_ports() {
    let site = Site::start().await;
    site.create_network(json!({ "com.docker.network.internal": true })).await;
    let interface = json!({ "Interface": {"Address": "10.88.5.2/24", "AddressIPv6": "", "MacAddress": ""} });
    site.call("NetworkDriver.CreateEndpoint", with(endpoint(), interface)).await;
    let joined = site.call("NetworkDriver.Join", endpoint()).await;
    assert_eq!((&joined["Gateway"], &joined["DisableGatewayService"]), (&json!(""), &json!(true)));
    let ports = json!({ "Options": { "com.docker.network.portmap": [port(6, 80, "", 8081)] } });
    site.done("NetworkDriver.ProgramExternalConnectivity", with(endpoint(), ports)).await;
    assert_eq!(site.daemon.asked_of(ENDPOINT)["ports"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_had_is_said_in_one_line() {
    let site = Site::start().await;
    let refused =
        async |call: &str, body: Value| site.call(call, body).await["Err"].as_str().unwrap().to_owned();
    let network = |generic: Value| json!({ "NetworkID": NETWORK, "Options": { "com.docker.network.generic": generic } });
    let unknown = refused("NetworkDriver.CreateNetwork", network(json!({ "nonsense": "1" }))).await;
    assert!(unknown.starts_with("unknown network option \"nonsense\": known are com.docker"), "{unknown}");
    let isolated = network(json!({ "com.docker.network.bridge.gateway_mode_ipv4": "open" }));
    assert!(refused("NetworkDriver.CreateNetwork", isolated).await.contains("unknown gateway mode"));
    let interface = json!({ "Interface": {"Address": "10.88.5.2/24", "AddressIPv6": "", "MacAddress": ""} });
    let gone = refused("NetworkDriver.CreateEndpoint", with(endpoint(), interface.clone())).await;
    assert!(gone.contains("remove it with `docker network rm`"), "{gone}");
    site.create_network(json!({})).await;
    site.call("NetworkDriver.CreateEndpoint", with(endpoint(), interface)).await;
    let icmp = json!({ "Options": { "com.docker.network.portmap": [port(1, 80, "", 8081)] } });
    let protocol = refused("NetworkDriver.ProgramExternalConnectivity", with(endpoint(), icmp)).await;
    assert_eq!(protocol, "IP protocol 1 has no ports that could be published");
    let strange = refused("NetworkDriver.Join", json!({ "NetworkID": 5 })).await;
    assert!(strange.starts_with("rnet's plugin does not understand this NetworkDriver.Join: "), "{strange}");
    assert_eq!(
        refused("NetworkDriver.Join", with(endpoint(), json!({ "EndpointID": "x" }))).await,
        "no such container"
    );

    let (status, _, answer) = site.call_raw("NetworkDriver.Fly", Vec::new()).await;
    let why = "rnet's plugin has no NetworkDriver.Fly";
    assert_eq!((status, answer), (StatusCode::NOT_FOUND, json!({ "Err": why, "Error": why })));
    for call in ["DiscoverNew", "DiscoverDelete", "FreeNetwork"] {
        site.done(&format!("NetworkDriver.{call}"), json!({})).await;
    }
    assert_eq!(site.call("NetworkDriver.AllocateNetwork", json!({})).await, json!({ "Options": {} }));
}

#[tokio::test]
async fn an_address_is_whose_dockerd_says_that_it_is() {
    let site = Site::start().await;
    site.create_network(json!({})).await;
    let create = |digit: &str, addr: &str| {
        let interface = json!({ "Interface": {"Address": addr, "AddressIPv6": "", "MacAddress": ""} });
        with(with(endpoint(), json!({ "EndpointID": digit.repeat(64) })), interface)
    };
    for (digit, addr) in [("a", "10.88.5.2/24"), ("b", "10.88.5.3/24"), ("c", "10.88.5.2/24")] {
        let made = site.call("NetworkDriver.CreateEndpoint", create(digit, addr)).await;
        assert!(made["Err"].is_null(), "{made}");
    }
    let left: Vec<_> = lock(&site.daemon.containers).keys().map(|id| id[..1].to_owned()).collect();
    assert_eq!(left, ["b", "c"], "that of an endpoint which dockerd has lost, and no other");
}

#[tokio::test]
async fn a_network_in_gateway_mode_isolated_has_no_gateway_whatever_docker_has_chosen() {
    let site = Site::start().await;
    let isolated = json!({ "com.docker.network.bridge.gateway_mode_ipv4": "isolated" });
    site.create_network(
        json!({ "com.docker.network.internal": true, "com.docker.network.generic": isolated }),
    )
    .await;
    assert_eq!(lock(&site.daemon.networks)[NETWORK]["asked"]["subnets"][0]["gateway"], Value::Null);
}

#[tokio::test]
async fn what_is_removed_while_no_daemon_runs_is_removed_once_it_does() {
    let mut site = Site::start().await;
    site.create_network(json!({})).await;
    let interface = json!({ "Interface": {"Address": "10.88.5.2/24", "AddressIPv6": "", "MacAddress": ""} });
    site.call("NetworkDriver.CreateEndpoint", with(endpoint(), interface)).await;
    let served = site.served.take().unwrap();
    served.abort();
    _ = served.await;
    for (call, body) in [("DeleteEndpoint", endpoint()), ("DeleteNetwork", json!({ "NetworkID": NETWORK }))] {
        let refused = site.call(&format!("NetworkDriver.{call}"), body).await;
        let why = refused["Err"].as_str().unwrap();
        assert!(
            why.contains("no rnet daemon answers at")
                && why.ends_with("start one with 'rnet --instance fake daemon'"),
            "{why}"
        );
    }
    assert_eq!(site.call("NetworkDriver.EndpointOperInfo", endpoint()).await, json!({ "Value": {} }));
    assert!(site.dir.path().join("state/docker-plugin.json").exists(), "it is kept beyond the plugin's end");
    site.start_daemon();
    while site.dir.path().join("state").exists() {
        time::sleep(Duration::from_millis(10)).await;
    }
    assert!(lock(&site.daemon.networks).is_empty() && lock(&site.daemon.containers).is_empty());
}

#[tokio::test]
async fn pools_and_addresses_are_given_and_taken_back() {
    let site = Site::start().await;
    assert_eq!(
        site.call_raw("IpamDriver.GetDefaultAddressSpaces", Vec::new()).await.2,
        json!({ "LocalDefaultAddressSpace": "rnet-local", "GlobalDefaultAddressSpace": "rnet-global" })
    );
    let (_, _, needs) = site.call_raw("IpamDriver.GetCapabilities", Vec::new()).await;
    assert_eq!(needs, json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }));
    let request = |pool: &str, sub: &str| json!({ "AddressSpace": "rnet-local", "Pool": pool, "SubPool": sub, "Options": null, "V6": false });
    let next = site.call("IpamDriver.RequestPool", request("", "")).await;
    assert_eq!((&next["PoolID"], &next["Pool"]), (&json!("172.18.0.0/16"), &json!("172.18.0.0/16")));
    let given = site.call("IpamDriver.RequestPool", request("10.6.0.0/16", "10.6.5.0/24")).await;
    let pool = given["PoolID"].as_str().unwrap();
    let gateway = json!({ "PoolID": pool, "Address": "", "Options": { "RequestAddressType": "com.docker.network.gateway" } });
    let ask = |addr: &str| json!({ "PoolID": pool, "Address": addr, "Options": {} });
    assert_eq!(site.call("IpamDriver.RequestAddress", gateway).await["Address"], "10.6.0.1/16");
    assert_eq!(site.call("IpamDriver.RequestAddress", ask("")).await["Address"], "10.6.5.0/16");
    assert_eq!(site.call("IpamDriver.RequestAddress", ask("10.6.9.9")).await["Address"], "10.6.9.9/16");
    assert_eq!(
        site.call("IpamDriver.RequestAddress", ask("10.6.9.9")).await["Err"],
        "Address already in use: 10.6.9.9"
    );
    site.done("IpamDriver.ReleaseAddress", json!({ "PoolID": pool, "Address": "10.6.9.9" })).await;
    assert_eq!(site.call("IpamDriver.RequestAddress", ask("10.6.9.9")).await["Address"], "10.6.9.9/16");
    let outside = site.call("IpamDriver.RequestPool", request("10.7.0.0/16", "10.8.0.0/24")).await;
    assert!(outside["Err"].as_str().unwrap().contains("doesn't contain ip-range"), "{outside}");
    for pool in [pool, "172.18.0.0/16"] {
        site.done("IpamDriver.ReleasePool", json!({ "PoolID": pool })).await;
    }
    assert!(!site.dir.path().join("state").exists());
}

#[tokio::test]
async fn a_call_that_is_too_large_is_refused() {
    let site = Site::without_daemon().await;
    let (status, _, answer) = site.call_raw("NetworkDriver.Join", vec![b' '; BODY_LIMIT + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer["Err"], "request body is larger than 16777216 bytes");
}
