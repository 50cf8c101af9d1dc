//! Docker's own client drives the daemon unmodified: what it prints, and what it is refused.

use std::{fs::File, net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};
use testbed::{
    Docker, Host, Rnet,
    process::Process,
    traffic::{Failure, tcp},
    wait_until,
};

/// A daemon on a host of its own with Docker's client, or an early end where there is no client.
macro_rules! docker {
    ($host:ident, $rnet:ident, $docker:ident) => {
        testbed::require_root!();
        let $host = Host::new();
        let $rnet = Rnet::start(&$host);
        let Some($docker) = Docker::of(&$rnet) else { return };
    };
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn networks_are_created_listed_inspected_and_removed() {
    docker!(host, rnet, docker);
    let create = "network create --subnet 10.88.0.0/24 --ip-range 10.88.0.128/25 --gateway 10.88.0.254 --aux-address printer=10.88.0.129 \
                  --internal --attachable --label tier=back -o com.docker.network.driver.mtu=1400 n1";
    let id = docker.line(&words(create));
    assert!(id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    let id6 = docker.line(&words("network create --ipv6 --subnet 10.89.0.0/24 --subnet fd00:89::/64 n2"));

    let list = docker.ok(&["network", "ls"]);
    let rows: Vec<_> = list.lines().map(words).collect();
    assert_eq!(rows[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"], "{list}");
    for (id, name) in [(&id, "n1"), (&id6, "n2")] {
        assert!(rows.contains(&vec![&id[..12], name, "bridge", "local"]), "{list}");
    }
    let names = docker.ok(&["network", "ls", "--format", "{{.Name}}"]);
    assert_eq!(words(&names), ["bridge", "host", "n1", "n2", "none"]);

    let inspected: Value = serde_json::from_str(&docker.ok(&["network", "inspect", "n1"])).unwrap();
    let mut n1 = inspected[0].clone();
    assert!(n1["Created"].as_str().unwrap().ends_with('Z'), "{n1}");
    // Fields that the client knows only in some of its versions, or that are different each time.
    for field in ["Created", "EnableIPv4"] {
        n1.as_object_mut().unwrap().remove(field);
    }
    let expected = json!({
        "Name": "n1", "Id": id, "Scope": "local", "Driver": "bridge", "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": {}, "Config": [{
            "Subnet": "10.88.0.0/24", "IPRange": "10.88.0.128/25", "Gateway": "10.88.0.254",
            "AuxiliaryAddresses": { "printer": "10.88.0.129" },
        }] },
        "Internal": true, "Attachable": true, "Ingress": false, "ConfigFrom": { "Network": "" }, "ConfigOnly": false,
        "Containers": {}, "Options": { "com.docker.network.driver.mtu": "1400" }, "Labels": { "tier": "back" },
    });
    assert_eq!(n1, expected);
    let subnets =
        docker.line(&["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", &id6[..12]]);
    assert_eq!(subnets, "10.89.0.0/24 fd00:89::/64 ");
    assert_eq!(rnet.run("c1", &["--network", "n1"]).addr, Ipv4Addr::new(10, 88, 0, 128));
    assert_eq!(
        rnet.run("c2", &["--network", "n1"]).addr,
        Ipv4Addr::new(10, 88, 0, 130),
        "129 is the printer's"
    );
    let members = docker.json(&["network", "inspect", "n1"]);
    let members: Vec<_> = members[0]["Containers"].as_object().unwrap().values().cloned().collect();
    assert!(members.iter().any(|m| m["Name"] == "c1" && m["IPv4Address"] == "10.88.0.128/24"), "{members:?}");

    let refused = docker.fails(&["network", "rm", "n1"]);
    assert!(refused.contains("network n1 has active endpoints (c1, c2)"), "{refused}");
    rnet.ok(&["rm", "-f", "c1", "c2"]);
    assert_eq!(docker.ok(&["network", "rm", "n1", &id6]), format!("n1\n{id6}\n"));
    assert!(!docker.ok(&["network", "ls"]).contains("n1 "));
}

#[test]
fn networks_are_filtered_and_pruned() {
    docker!(host, rnet, docker);
    for (name, label) in [("n1", "tier=front"), ("n2", "tier=back"), ("n3", "keep")] {
        docker.ok(&["network", "create", "--label", label, name]);
    }
    rnet.run("c1", &["--network", "n2"]);
    for (filters, names) in [
        (&["driver=bridge"][..], &["bridge", "n1", "n2", "n3"][..]),
        (&["driver=host"], &["host"]),
        (&["name=^n"], &["n1", "n2", "n3", "none"]),
        (&["label=tier"], &["n1", "n2"]),
        (&["label=tier=back"], &["n2"]),
        (&["type=builtin"], &["bridge", "host", "none"]),
        (&["type=custom", "name=3"], &["n3"]),
        (&["dangling=true"], &["n1", "n3"]),
        (&["scope=swarm"], &[]),
    ] {
        let mut args = vec!["network", "ls", "--format", "{{.Name}}"];
        args.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
        assert_eq!(words(&docker.ok(&args)), names, "{filters:?}");
    }
    let labelled = docker.line(&[
        "network",
        "ls",
        "-f",
        "name=n1",
        "--format",
        "{{.ID}} {{.Label \"tier\"}} {{.Labels}}",
    ]);
    assert!(labelled.ends_with(" front tier=front"), "{labelled}");
    let quiet = docker.line(&["network", "ls", "-q", "--no-trunc", "-f", "name=n1"]);
    assert_eq!(quiet.len(), 64, "{quiet}");

    let pruned = docker.ok(&["network", "prune", "-f", "--filter", "label!=keep"]);
    assert_eq!(words(&pruned), ["Deleted", "Networks:", "n1"]);
    assert_eq!(docker.line(&["network", "prune", "-f", "--filter", "until=24h"]), "");
    assert_eq!(words(&docker.ok(&["network", "prune", "-f"])), ["Deleted", "Networks:", "n3"]);
    assert_eq!(
        words(&docker.ok(&["network", "ls", "--format", "{{.Name}}"])),
        ["bridge", "host", "n2", "none"]
    );
}

#[test]
fn containers_are_connected_and_disconnected_while_they_run() {
    docker!(host, rnet, docker);
    docker.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    docker.ok(&["network", "create", "--subnet", "10.89.0.0/24", "n2"]);
    let web = rnet.run("web", &["--network", "n1", "-p", "8080:80"]);
    let other = rnet.run("other", &["--network", "n2"]);
    let _server = tcp::echo(&web.ns, "0.0.0.0:80");
    let second = (Ipv4Addr::new(10, 89, 0, 99), 80).into();

    assert_eq!(docker.ok(&["network", "connect", "--ip", "10.89.0.99", "--alias", "www", "n2", "web"]), "");
    tcp::ask(&other.ns, second);
    tcp::ask(&host.client, host.at(8080));
    let shown = docker.json(&["inspect", "web"]);
    let networks = &shown[0]["NetworkSettings"]["Networks"];
    assert_eq!(networks["n2"]["IPAddress"], "10.89.0.99");
    assert_eq!(networks["n2"]["Aliases"], json!(["www"]));
    assert_eq!(networks["n2"]["IPAMConfig"]["IPv4Address"], "10.89.0.99");
    assert_eq!(networks["n1"]["IPAddress"], "10.88.0.2");
    let member = docker.line(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}}={{.IPv4Address}} {{end}}",
        "n2",
    ]);
    assert!(member.contains("web=10.89.0.99/24 "), "{member}");

    let refused = docker.fails(&["network", "connect", "n2", "web"]);
    assert!(refused.ends_with("endpoint with name web already exists in network n2"), "{refused}");
    assert_eq!(docker.ok(&["network", "disconnect", "n2", "web"]), "");
    assert_eq!(tcp::connect(&other.ns, second).unwrap_err(), Failure::TimedOut);
    tcp::ask(&host.client, host.at(8080));
    let refused = docker.fails(&["network", "disconnect", "n2", "web"]);
    assert!(refused.ends_with("is not connected to network n2"), "{refused}");
    assert_eq!(docker.ok(&["network", "disconnect", "-f", "n2", "web"]), "");
    assert_eq!(docker.line(&["inspect", "-f", "{{len .NetworkSettings.Networks}}", "web"]), "1");
}

#[test]
fn containers_are_listed_and_inspected() {
    docker!(host, rnet, docker);
    docker.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    assert_eq!(words(&docker.ok(&["ps"])).last(), Some(&"NAMES"), "nothing but the header");
    rnet.run(
        "web",
        &["--network", "n1", "-p", "8080:80", "-p", "53/udp", "--expose", "81", "--dns", "9.9.9.9"],
    );
    rnet.ok(&["run", "-d", "--name", "lonely", "--network", "none"]);
    rnet.ok(&["run", "-d", "--name", "done", "--", "sh", "-c", "sleep 0.3; exit 3"]);
    wait_until("the command ends", Duration::from_secs(10), || {
        docker.line(&["ps", "-aq", "--filter", "status=exited"]).len().eq(&12).then_some(())
    });

    let names = |args: &[&str]| {
        let list = docker.ok(&[&["ps", "--format", "{{.Names}}"], args].concat());
        list.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["lonely", "web"]);
    assert_eq!(names(&["-a"]), ["done", "lonely", "web"]);
    assert_eq!(names(&["-l"]), ["done"]);
    assert_eq!(names(&["-n", "2"]), ["done", "lonely"]);
    for (filter, wanted) in [
        ("name=eb", &["web"][..]),
        ("status=exited", &["done"]),
        ("exited=3", &["done"]),
        ("network=n1", &["web"]),
        ("network=none", &["lonely"]),
        ("publish=80", &["web"]),
        ("publish=81", &[]),
        ("expose=80-90", &["web"]),
        ("before=lonely", &["web"]),
        ("since=lonely", &["done"]),
        ("ancestor=debian", &[]),
        ("label=x", &[]),
    ] {
        assert_eq!(names(&["-a", "--filter", filter]), wanted, "{filter}");
    }
    let web = docker.json(&["ps", "--filter", "name=web"]);
    let ports = web[0]["Ports"].as_str().unwrap();
    assert!(
        ports.contains("0.0.0.0:8080->80/tcp") && ports.contains("81/tcp") && ports.contains("->53/udp"),
        "{ports}"
    );
    assert_eq!((&web[0]["State"], &web[0]["Networks"]), (&json!("running"), &json!("n1")));

    assert_eq!(docker.line(&["port", "web", "80"]), "0.0.0.0:8080");
    let listed = docker.ok(&["port", "web"]);
    assert!(listed.lines().any(|line| line == "80/tcp -> 0.0.0.0:8080"), "{listed}");
    assert_eq!(listed.lines().count(), 2, "{listed}");

    let id = docker.line(&["ps", "-q", "--no-trunc", "--filter", "name=web"]);
    let shown = docker.json(&["inspect", &id[..12]]);
    let web = &shown[0];
    assert_eq!((&web["Name"], &web["Id"]), (&json!("/web"), &json!(id)));
    assert_eq!(
        (&web["HostConfig"]["NetworkMode"], &web["HostConfig"]["Dns"]),
        (&json!("n1"), &json!(["9.9.9.9"]))
    );
    assert_eq!(
        web["NetworkSettings"]["Ports"]["80/tcp"],
        json!([{ "HostIp": "0.0.0.0", "HostPort": "8080" }])
    );
    assert_eq!(web["NetworkSettings"]["Ports"]["81/tcp"], Value::Null);
    let n1 = &web["NetworkSettings"]["Networks"]["n1"];
    assert_eq!((&n1["IPAddress"], &n1["Gateway"]), (&json!("10.88.0.2"), &json!("10.88.0.1")));
    let template = "{{.State.Status}} {{.State.ExitCode}} {{range $name, $of := .NetworkSettings.Networks}}{{$name}}{{end}}";
    assert_eq!(docker.line(&["inspect", "-f", template, "lonely"]), "running 0 none");
    assert_eq!(docker.line(&["inspect", "-f", "{{.Driver}}", "n1"]), "bridge", "networks are found as well");
    let both = docker.line(&["inspect", "--type", "container", "-f", "{{.State.ExitCode}}", "done"]);
    assert_eq!(both, "3");
}

#[test]
fn events_are_told_as_they_happen() {
    docker!(host, rnet, docker);
    let told = tempfile::NamedTempFile::new().unwrap();
    let mut listening = docker.command(&[
        "events",
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    listening.stdout(told.reopen().unwrap()).stderr(File::open("/dev/null").unwrap());
    let _listening = Process::start(listening);
    // Nothing tells when the client listens: a network is made until it hears of one.
    let heard = || std::fs::read_to_string(told.path()).unwrap();
    wait_until("the client listens", Duration::from_secs(20), || {
        docker.ok(&["network", "create", "first"]);
        docker.ok(&["network", "rm", "first"]);
        heard().contains("create first").then_some(())
    });
    docker.ok(&["network", "create", "n1"]);
    rnet.run("web", &["-p", "8080:80"]);
    docker.ok(&["network", "connect", "n1", "web"]);
    docker.ok(&["network", "disconnect", "n1", "web"]);
    docker.ok(&["network", "rm", "n1"]);
    wait_until("the last is told", Duration::from_secs(20), || heard().contains("destroy n1").then_some(()));
    let lines = heard();
    let of_n1: Vec<_> = lines.lines().filter_map(|line| line.strip_suffix(" n1")).collect();
    assert_eq!(of_n1, ["create", "connect", "disconnect", "destroy"], "{lines}");

    rnet.ok(&["rm", "-f", "web"]);
    // The client cuts a time off to the second: this second's events are past in the next.
    let past = |args: &[&str]| {
        docker.ok(&[&["events", "--since", "1h", "--until=-1s", "--format", "{{.Type}} {{.Action}}"], args]
            .concat())
    };
    let of_web = past(&["--filter", "container=web"]);
    let actions: Vec<_> = of_web.lines().map(|line| line.trim_start_matches("container ")).collect();
    assert_eq!((actions.first(), actions.last()), (Some(&"create"), Some(&"destroy")), "{of_web}");
    let destroyed =
        past(&["--filter", "type=network", "--filter", "event=destroy", "--filter", "network=n1"]);
    assert_eq!(destroyed, "network destroy\n");
    let json = docker.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "network=n1",
        "--format",
        "{{json .}}",
    ]);
    let connect = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let connect = connect.into_iter().find(|event| event["Action"] == "connect").unwrap();
    assert_eq!(
        (&connect["scope"], &connect["Actor"]["Attributes"]["type"]),
        (&json!("local"), &json!("bridge"))
    );
}

#[test]
fn refusals_have_dockers_words_and_status() {
    docker!(host, rnet, docker);
    rnet.run("web", &[]);
    rnet.ok(&["run", "-d", "--name", "lonely", "--network", "none"]);
    docker.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    for (args, said) in [
        ("network create n1", "network with name n1 already exists"),
        ("network create bridge", "operation is not permitted on predefined bridge network"),
        ("network create -d overlay n2", "there is no driver overlay"),
        ("network create -d host n2", "only one instance of \"host\" network is allowed"),
        ("network create --subnet 10.88.0.0/25 n2", "Pool overlaps with other one on this address space"),
        ("network create --subnet 10.0.0.1/24 n2", "it should be 10.0.0.0/24"),
        ("network create -o nonsense=1 n2", "unknown network option"),
        ("network create --ipam-driver other n2", "address management"),
        ("network create --config-only n2", "config-only"),
        ("network rm bridge", "bridge is a pre-defined network and cannot be removed"),
        ("network rm ghost", "ghost"),
        ("network inspect ghost", "ghost"),
        ("network connect ghost web", "network ghost not found"),
        ("network connect n1 ghost", "No such container: ghost"),
        ("network connect --ip 10.99.0.1 n1 web", "10.99.0.1"),
        ("network connect --ip 10.88.0.1 n1 web", "ddress already in use"),
        ("network connect --link web:db n1 web", "links are not supported"),
        ("network connect --driver-opt a=b n1 web", "no options for an endpoint"),
        ("network connect n1 lonely", "in private (none) mode"),
        ("network disconnect n1 web", "is not connected to network n1"),
        ("network ls --filter colour=red", "invalid filter 'colour'"),
        ("network ls --filter type=mine", "type"),
        ("network prune -f --filter name=n1", "invalid filter 'name'"),
        ("ps --filter status=up", "status"),
        ("ps --filter before=ghost", "No such container: ghost"),
        ("port ghost", "No such container: ghost"),
        ("port web 80", "80"),
        ("inspect ghost", "ghost"),
        ("events --since 1 --until 0 --filter colour=red", "until"),
    ] {
        let refused = docker.fails(&words(args));
        assert!(refused.contains(said), "docker {args}: {refused}");
    }
    assert_eq!(
        docker.line(&["network", "inspect", "-f", "{{len .Containers}}", "n1"]),
        "0",
        "nothing is left of what was refused"
    );
}

#[test]
fn a_container_on_the_hosts_network_is_on_that_alone() {
    docker!(host, rnet, docker);
    rnet.ok(&["run", "-d", "--name", "web", "--network", "host", "--", "sleep", "600"]);
    docker.ok(&["network", "create", "n1"]);
    assert_eq!(
        docker.line(&["ps", "--filter", "network=host", "--format", "{{.Names}} {{.Networks}}"]),
        "web host"
    );
    let networks =
        docker.line(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.NetworkID}}{{end}}", "web"]);
    assert_eq!(networks, docker.line(&["network", "inspect", "-f", "{{.Id}}", "host"]));
    for args in [["network", "connect", "n1", "web"], ["network", "disconnect", "host", "web"]] {
        let refused = docker.fails(&args);
        assert!(
            refused.contains("container cannot be disconnected from host network"),
            "{args:?}: {refused}"
        );
    }
}

#[test]
fn the_client_knows_who_answers() {
    docker!(host, rnet, docker);
    let server =
        docker.line(&["version", "--format", "{{.Server.Version}} {{.Server.Os}} {{.Server.MinAPIVersion}}"]);
    assert!(server.ends_with(" linux 1.24"), "{server}");
    assert!(docker.ok(&["version"]).contains("rnet"));
    let info = docker.line(&[
        "info",
        "--format",
        "{{.Containers}} {{.ID}} {{.Swarm.LocalNodeState}} {{.Plugins.Network}}",
    ]);
    assert_eq!(info, format!("0 {} inactive [bridge host null]", rnet.instance()));
    assert!(docker.ok(&["info"]).contains("Network: bridge host null"));
    // What rnet is not about is refused as a server refuses that does not know it.
    let refused = docker.fails(&["volume", "ls"]);
    assert!(refused.contains("page not found"), "{refused}");
    rnet.run("web", &[]);
    assert_eq!(docker.line(&["info", "--format", "{{.ContainersRunning}}"]), "1");
}
