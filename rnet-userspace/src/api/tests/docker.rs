//! Docker's calls and their JSON.

use super::*;
use crate::{
    api::{calls::Filters, docker},
    controller::{events::Kind, view::ExposedPort},
};

fn filters(pairs: &[(&str, &str)]) -> Filters {
    let mut filters = Filters::new();
    for (field, value) in pairs {
        filters.entry((*field).into()).or_default().insert((*value).into());
    }
    filters
}

#[tokio::test]
async fn networks_have_dockers_fields_with_and_without_a_version() {
    let daemon = Daemon::start().await;
    let wanted = r#"{"Name":"n1","IPAM":{"Config":[{"Subnet":"10.1.0.0/24","Gateway":"10.1.0.9"}]},"Labels":{"a":"b"}}"#;
    let (status, created) = daemon.http("POST", "/v1.47/networks/create", Some(wanted)).await;
    assert_eq!((status, &created["Warning"]), (201, &json!("")));
    let id = created["Id"].as_str().unwrap();

    let expected = json!({
        "Name": "n1", "Id": id, "Created": "2026-01-02T03:04:05.678901234Z", "Scope": "local", "Driver": "bridge",
        "EnableIPv4": true, "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": {}, "Config": [{ "Subnet": "10.1.0.0/24", "Gateway": "10.1.0.9" }] },
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": { "Network": "" },
        "ConfigOnly": false, "Containers": {}, "Options": {}, "Labels": { "a": "b" },
    });
    assert_eq!(daemon.http("GET", "/v1.24/networks/n1?verbose=false", None).await, (200, expected.clone()));
    let (status, list) = daemon.http("GET", "/networks", None).await;
    assert_eq!((status, list.as_array().unwrap().len(), &list[1]), (200, 2, &expected));
    assert_eq!(daemon.http("DELETE", &format!("/networks/{id}"), None).await, (204, json!("")));
    assert_eq!(daemon.http("GET", "/networks/n1", None).await.0, 404);
}

#[tokio::test]
async fn containers_have_dockers_fields() {
    let daemon = Daemon::start().await;
    let publish = vec!["8080:80".to_owned()];
    let wanted = CreateContainer { publish, ..detached("web", &["serve", "-v"]) };
    let id = daemon.client.create_container(&wanted).await.unwrap().id;
    daemon.client.create_container(&named("idle", &["later"])).await.unwrap();

    let (status, list) = daemon.http("GET", "/containers/json", None).await;
    assert_eq!((status, list.as_array().unwrap().len()), (200, 1), "those that run: {list}");
    let web = &list[0];
    assert_eq!(
        (&web["Id"], &web["Names"], &web["Command"]),
        (&json!(id), &json!(["/web"]), &json!("serve -v"))
    );
    assert_eq!(
        web["Ports"],
        json!([{ "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }])
    );
    assert_eq!((&web["State"], &web["Created"]), (&json!("running"), &json!(1_767_323_045)));
    assert!(web["Status"].as_str().unwrap().starts_with("Up "), "{web}");
    let (_, all) = daemon.http("GET", "/containers/json?all=true", None).await;
    assert_eq!(all.as_array().unwrap().len(), 2);

    let (status, web) = daemon.http("GET", "/v1.48/containers/web/json", None).await;
    assert_eq!((status, &web["Name"], &web["State"]["Running"]), (200, &json!("/web"), &json!(true)));
    assert_eq!((&web["Path"], &web["Args"]), (&json!("serve"), &json!(["-v"])));
}

#[tokio::test]
async fn dockers_client_can_tell_who_answers() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.http("GET", "/_ping", None).await, (200, json!("OK")));
    assert_eq!(daemon.http("HEAD", "/_ping", None).await, (200, json!("")));
    let (_, version) = daemon.http("GET", "/version", None).await;
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.48"), &json!("1.24")));
    assert_eq!(version["GitCommit"], json!(crate::version::commit()));
    daemon.client.create_container(&detached("web", &[])).await.unwrap();
    let (_, info) = daemon.http("GET", "/info", None).await;
    assert_eq!(
        (&info["Containers"], &info["ContainersRunning"], &info["ID"]),
        (&json!(1), &json!(1), &json!("fake"))
    );
}

#[tokio::test]
async fn a_containers_network_has_dockers_fields() {
    let daemon = Daemon::start().await;
    let wanted = CreateContainer {
        publish: vec!["8080:80".into()],
        dns: vec![[9, 9, 9, 9].into()],
        dns_search: vec!["example.org".into()],
        extra_hosts: vec!["db:10.0.0.1".into()],
        ..detached("web", &["serve"])
    };
    let id = daemon.client.create_container(&wanted).await.unwrap().id;
    let n1 = daemon.http("POST", "/networks/create", Some(r#"{"Name":"n1"}"#)).await.1["Id"].clone();
    let connect =
        r#"{"Container":"web","EndpointConfig":{"Aliases":["www"],"IPAMConfig":{"IPv4Address":"10.1.0.9"}}}"#;
    assert_eq!(daemon.http("POST", "/networks/n1/connect", Some(connect)).await, (200, json!("")));
    {
        let mut containers = daemon.control.containers.lock().unwrap();
        let web = containers.get_mut(&id).unwrap();
        let port = |port| ExposedPort { port, protocol: Default::default() };
        web.exposed = vec![port(80), port(81)];
        let endpoint = &mut web.endpoints[1];
        endpoint.names = vec!["web".into(), "www".into()];
        endpoint.gw_priority = 3;
    }
    let (_, web) = daemon.http("GET", "/v1.48/containers/web/json", None).await;
    let endpoint = web["NetworkSettings"]["Networks"]["bridge"]["EndpointID"].clone();
    let bridge = web["NetworkSettings"]["Networks"]["bridge"]["NetworkID"].clone();
    let interface = |network: &Value, more: Value| {
        let mut interface = json!({
            "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "02:42:ac:11:00:02",
            "DriverOpts": null, "GwPriority": 0, "NetworkID": network, "EndpointID": endpoint,
            "Gateway": "172.17.0.1", "IPAddress": "172.17.0.2", "IPPrefixLen": 16, "IPv6Gateway": "",
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null,
        });
        interface.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        interface
    };
    let more = json!({
        "IPAMConfig": { "IPv4Address": "10.1.0.9" }, "Aliases": ["www"], "DNSNames": ["web", "www"], "GwPriority": 3,
    });
    let expected = json!({
        "SandboxID": id, "SandboxKey": "/run/netns/x",
        "Ports": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }], "81/tcp": null },
        "EndpointID": endpoint, "Gateway": "172.17.0.1", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
        "IPAddress": "172.17.0.2", "IPPrefixLen": 16, "IPv6Gateway": "", "MacAddress": "02:42:ac:11:00:02",
        "Networks": { "bridge": interface(&bridge, json!({})), "n1": interface(&n1, more) },
    });
    assert_eq!(web["NetworkSettings"], expected);
    let expected = json!({
        "NetworkMode": "bridge", "PortBindings": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }] },
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "AutoRemove": false, "Dns": ["9.9.9.9"],
        "DnsOptions": [], "DnsSearch": ["example.org"], "ExtraHosts": ["db:10.0.0.1"], "IpcMode": "private",
        "Links": null, "UTSMode": "",
    });
    assert_eq!(web["HostConfig"], expected);
    assert_eq!(web["Config"]["ExposedPorts"], json!({ "80/tcp": {}, "81/tcp": {} }));
}

#[tokio::test]
async fn containers_come_onto_networks_and_leave_them() {
    let daemon = Daemon::start().await;
    daemon.client.create_container(&detached("web", &["serve"])).await.unwrap();
    daemon.http("POST", "/networks/create", Some(r#"{"Name":"n1"}"#)).await;
    let endpoints = || daemon.control.containers.lock().unwrap().values().next().unwrap().endpoints.clone();

    let connect = docker::Connect {
        container: "web".into(),
        endpoint_config: docker::Endpoint { aliases: Some(vec!["db".into()]), ..Default::default() },
    };
    daemon.client.connect("n1", &connect).await.unwrap();
    assert_eq!(endpoints()[1].aliases, ["db"]);
    let refused = daemon.client.connect("n1", &connect).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { status: 403, .. }), "{refused}");
    assert_eq!(refused.to_string(), "endpoint with name web already exists in network n1");

    let disconnect = docker::Disconnect { container: "web".into(), force: false };
    daemon.client.disconnect("n1", &disconnect).await.unwrap();
    assert_eq!(endpoints().len(), 1);
    let refused = daemon.client.disconnect("n1", &disconnect).await.unwrap_err();
    assert!(refused.to_string().ends_with("is not connected to network n1"), "{refused}");
}

#[tokio::test]
async fn lists_are_filtered() {
    let daemon = Daemon::start().await;
    for body in [r#"{"Name":"n1","Labels":{"a":"1"}}"#, r#"{"Name":"n2","Labels":{"a":"2"}}"#] {
        assert_eq!(daemon.http("POST", "/networks/create", Some(body)).await.0, 201);
    }
    let names = async |pairs: &[(&str, &str)]| {
        let networks = daemon.client.networks(&filters(pairs)).await.unwrap();
        networks.into_iter().map(|network| network.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]).await, ["bridge", "n1", "n2"]);
    assert_eq!(names(&[("label", "a=2")]).await, ["n2"]);
    assert_eq!(names(&[("type", "custom"), ("name", "1")]).await, ["n1"]);

    daemon.client.create_container(&detached("web", &["serve"])).await.unwrap();
    daemon.client.create_container(&named("idle", &["later"])).await.unwrap();
    let names = async |all, limit, pairs: &[(&str, &str)]| {
        let containers = daemon.client.containers(all, limit, &filters(pairs)).await.unwrap();
        containers.into_iter().flat_map(|container| container.names).collect::<Vec<_>>()
    };
    assert_eq!(names(false, None, &[]).await, ["/web"]);
    assert_eq!(names(true, None, &[("network", "bridge"), ("name", "idle")]).await, ["/idle"]);
    assert_eq!(names(false, None, &[("status", "created")]).await, ["/idle"]);
    assert_eq!(names(false, Some(1), &[]).await.len(), 1);
}

#[tokio::test]
async fn what_nobody_uses_is_pruned() {
    let daemon = Daemon::start().await;
    for body in [r#"{"Name":"n1","Labels":{"keep":""}}"#, r#"{"Name":"n2"}"#] {
        daemon.http("POST", "/networks/create", Some(body)).await;
    }
    let pruned = daemon.client.prune_networks(&filters(&[("label!", "keep")])).await.unwrap();
    assert_eq!(pruned.networks_deleted, Some(vec!["n2".into()]));
    assert_eq!(
        daemon.http("POST", "/networks/prune", None).await,
        (200, json!({ "NetworksDeleted": ["n1"] }))
    );
    assert_eq!(daemon.http("POST", "/networks/prune", None).await, (200, json!({ "NetworksDeleted": null })));
    assert_eq!(daemon.control.networks.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn events_are_told_as_they_happen_until_the_daemon_ends() {
    let daemon = Daemon::start().await;
    let before =
        daemon.http("GET", "/events?since=0&until=0s&filters=%7B%22type%22%3A%5B%22network%22%5D%7D", None);
    let (status, before) = before.await;
    assert_eq!(
        (status, &before["Action"], &before["Actor"]["Attributes"]["name"]),
        (200, &json!("create"), &json!("bridge"))
    );

    let only = filters(&[("type", "network"), ("event", "create"), ("event", "destroy")]);
    let mut events = daemon.client.events("", "", &only).await.unwrap();
    daemon.client.create_container(&detached("web", &["serve"])).await.unwrap();
    daemon.http("POST", "/networks/create", Some(r#"{"Name":"n1"}"#)).await;
    daemon.client.remove_network("n1").await.unwrap();
    for action in ["create", "destroy"] {
        let event = ends("an event comes", events.next()).await.unwrap().unwrap();
        assert_eq!((event.kind, event.action.as_str()), (Kind::Network, action));
        assert_eq!(event.actor.attributes["name"], "n1");
    }
    let mut both = daemon.client.events("0", "", &filters(&[("container", "web")])).await.unwrap();
    let first = ends("the past is told", both.next()).await.unwrap().unwrap();
    assert_eq!((first.status.as_deref(), first.kind), (Some("create"), Kind::Container));

    let mut limited = daemon.client.events("", "-50ms", &filters(&[("event", "die")])).await.unwrap();
    assert_eq!(ends("the time comes", limited.next()).await.unwrap(), None);

    drop(daemon.end);
    assert_eq!(ends("the stream ends", events.next()).await.unwrap(), None);
    ends("the daemon ends though somebody listened", daemon.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn every_answer_says_who_answers() {
    let daemon = Daemon::start().await;
    for path in ["/_ping", "/nowhere", "/v1.99/networks"] {
        let stream = UnixStream::connect(daemon.socket()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method("HEAD").uri(path).header("host", "x");
        let answer = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((header("api-version").as_str(), header("ostype").as_str()), ("1.48", "linux"), "{path}");
        assert!(header("server").starts_with("rnet/"), "{path}");
    }
}
