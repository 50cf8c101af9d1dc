//! What command lines mean, and what is said when they mean nothing.

use clap::{CommandFactory as _, error::ErrorKind};

use super::*;
use crate::{
    api::daemon::Parts,
    config::DaemonConfig,
    controller::view,
    host::process::{Foreground, Input},
};

/// A machine that no client needs.
struct NoSystem;

impl System for NoSystem {
    fn daemon(&self, _: &DaemonConfig) -> Result<Parts> {
        unreachable!("no daemon is started")
    }

    fn spawn(&self, _: &view::Container, _: Input) -> Result<Foreground> {
        unreachable!("no command is started")
    }

    fn enter(&self, _: &view::Container, _: &[String], _: Input) -> Result<Foreground> {
        unreachable!("no command is started")
    }

    fn shim(&self, spec: &str) -> u8 {
        u8::try_from(spec.len()).unwrap()
    }
}

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["rnet"].iter().chain(args))
}

fn words(args: &str) -> Result<Cli, clap::Error> {
    parse(&args.split_whitespace().collect::<Vec<_>>())
}

/// What `rnet run ARGS` asks of the daemon.
fn run_request(args: &[&str]) -> crate::controller::request::CreateContainer {
    let cli = parse(&[&["run"], args].concat()).unwrap();
    let Command::Client(ClientCommand::Run(args)) = cli.command else { panic!("{cli:?}") };
    args.into_request().unwrap()
}

#[test]
fn the_arguments_do_not_contradict_one_another() {
    Cli::command().debug_assert();
}

#[test]
fn documented_command_lines_are_understood() {
    for line in [
        "daemon",
        "daemon --uplink eth0 --uplink eth1 --snat-port-range 1024-9999",
        "daemon --config /etc/rnet/daemon.json --validate",
        "daemon --replace-layout",
        "down",
        "network create n1",
        "network create -d bridge --subnet 10.1.0.0/24 --ip-range 10.1.0.128/25 --gateway 10.1.0.254 n1",
        "network create --ipv6 --internal --attachable -o com.docker.network.driver.mtu=1400 --label a=b n1",
        "network ls",
        "network ls -q --no-trunc",
        "network ls --format json",
        "network ls -f driver=bridge --filter label=a=b --format {{.ID}}",
        "network inspect -f {{json.}} n1",
        "network create --aux-address a=10.1.0.5 --subnet 10.1.0.0/24 --ipv4=false --ipv6=true n1",
        "network create --ipv4 --ipv6 n1",
        "network prune -f --filter until=24h",
        "network connect n1 web",
        "network connect --ip 10.1.0.9 --ip6 fd00::9 --alias a --alias b --gw-priority -1 --mac-address 02:42:ac:11:00:02 n1 web",
        "network disconnect -f n1 web",
        "network rm -f n1",
        "events",
        "events --since 10m --until 2026-01-02T15:04:05Z --filter type=network --format json",
        "completions bash",
        "man /tmp/man1",
        "network inspect n1 n2",
        "network rm n1 n2",
        "run -d",
        "run -d --rm --name web --network n1 --ip 10.1.0.7 -p 8080:80 -p 127.0.0.1::80/udp -- sleep 1",
        "run --mac-address 02:42:ac:11:00:02 --dns 9.9.9.9 --add-host db:10.0.0.1 -h web --rootfs / true",
        "run --network n1 --network name=n2,alias=a,gw-priority=1 --network-alias w -P --expose 80 true",
        "run --from 10.0.0.0/8 --from 192.0.2.7 -p 80 --dns-search a.test --dns-option ndots:1 true",
        "attach --name x --netns /run/netns/x --network n1 -p 8080:80",
        "attach --name x --pid 7",
        "publish web 8080:80 53/udp",
        "publish --from 10.0.0.0/8 web 8080:80",
        "publish web --from 10.0.0.0/8 8080:80",
        "unpublish web 8080:80 80",
        "exec web sh -c true",
        "exec web -- ls -l",
        "ps",
        "ps -a --format json",
        "ps -aq",
        "ps -n 3 --no-trunc -f status=exited",
        "ps -l",
        "inspect web",
        "inspect -f {{.Id}} web",
        "stop web db",
        "rm -f web db",
        "exec -it web sh",
        "exec -i -t web -- sh",
        "run -it --rm --sysctl net.core.somaxconn=100 --sysctl kernel.sem=1 sh",
        "run -dt web",
        "logs web",
        "logs -f --tail 10 web",
        "logs -n all web",
        "port web",
        "port web 80/tcp",
        "port web --format json",
        "status",
        "status --format json",
        "stats --format json",
        "drops",
        "drops -w --format json",
        "drops -w -c web",
        "trace",
        "trace -p tcp --host 10.0.0.0/8 --port 80 -c web --verdict dropped -n 5 --duration 10 --explain",
        "trace -s 10.0.0.1 -d fd00::/8 --sport 1 --dport 2 -i eth0 -r spoofed,internal --format json",
        "trace --format {{.Reason}}",
        "conntrack ls --format json",
        "conntrack ls -p udp -s 10.0.0.0/8 --dst fd00::1 --sport 5000 --dport 53 --addr 192.0.2.1",
        "conntrack flush",
        "conntrack flush --proto 132 --orig-src 10.0.0.1",
        "conntrack timeouts",
        "conntrack timeouts udp=30s tcp-established=2h --format json",
        "daemon --ipv6 --fixed-cidr-v6 fd00:7::/64 --timeout udp=5s --timeout icmp=10 --max-flows 1000 --max-ports 10",
        "--instance lab ps",
        "ps --instance lab",
    ] {
        if let Err(error) = words(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_usage_is_told_apart_from_refusals() {
    for line in [
        "",
        "frobnicate",
        "run",
        "run --name web",
        "run --no-such-flag",
        "run -d --no-such-flag true",
        "run --ip 10.0.0.300 true",
        "run --from 10.0.0.0/33 true",
        "attach --name x",
        "attach --netns /run/netns/x",
        "attach --name x --pid 7 --netns /run/netns/x",
        "publish web",
        "unpublish web",
        "run --mac-address 1 true",
        "run --dns example.org true",
        "network",
        "network create",
        "network create -d overlay n1",
        "network create --subnet 10.0.0.1 n1",
        "network create --gateway here n1",
        "network create -o =x n1",
        "network rm",
        "network create --ipv6=maybe n1",
        "network create --aux-address 10.1.0.5 n1",
        "network connect n1",
        "network connect --ip fd00::1 n1 web",
        "network ls --filter name",
        "network ls --format {{.ID",
        "network inspect --format table n1",
        "ps -n 0",
        "completions cmd",
        "man",
        "exec web",
        "exec web --no-such-flag true",
        "rm",
        "ps --format yaml",
        "daemon --snat-port-range 9-1",
        "daemon --fixed-cidr-v6 fd00:7::/64",
        "daemon --timeout udp",
        "daemon --max-flows 0",
        "daemon --max-ports 131073",
        "conntrack ls --proto ip4",
        "conntrack flush --src here",
        "conntrack timeouts udp=fast",
        "--instance ../x ps",
        "--instance .x ps",
        "--instance abcdefghijklmnopqrstuvwxyz-1234567 ps",
    ] {
        assert_eq!(words(line).unwrap_err().exit_code(), 2, "{line}");
    }
    for line in ["--help", "-h", "--version", "run --help", "network --help", "network create -h"] {
        let shown = words(line).unwrap_err();
        assert!(matches!(shown.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion), "{line}");
        assert_eq!(shown.exit_code(), 0, "{line}");
    }
}

#[test]
fn wrong_values_are_told_with_what_would_be_right() {
    let told = |line: &str| words(line).unwrap_err().to_string();
    assert!(told("network create --subnet 10.0.0.1 n1").contains("as 10.1.0.0/24"));
    assert!(told("network create -o =x n1").contains("the key is missing"));
    assert!(told("daemon --snat-port-range 9-1").contains("as 1024-32767"));
    assert!(told("--instance .x ps").contains("begin with a letter or digit"));
}

#[test]
fn a_specification_of_ports_is_left_to_the_daemon() {
    for spec in ["", ":", "8080:", "abc", "8080:80/icmp", "[::1]:80:80", "7000-7010:7000-7010"] {
        assert_eq!(run_request(&["-d", "-p", spec]).publish, [spec]);
    }
}

#[test]
fn what_follows_the_command_is_the_commands() {
    let server = ["python3", "-m", "http.server", "-p", "80", "--rm", "-h", "--help"];
    for separator in [&[][..], &["--"]] {
        let request = run_request(&[&["-d", "--name", "web"], separator, &server].concat());
        assert_eq!(request.command, server);
        assert!(request.publish.is_empty() && !request.remove && request.hostname.is_none());
    }
    let cli = parse(&["exec", "web", "sh", "-c", "exit 7", "--help"]).unwrap();
    let Command::Client(ClientCommand::Exec(exec)) = cli.command else { panic!("{cli:?}") };
    assert_eq!(exec.command, ["sh", "-c", "exit 7", "--help"]);
}

#[test]
fn a_root_directory_is_named_from_the_root() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(run_request(&["-d", "--rootfs", "image"]).rootfs, Some(here.join("image")));
    assert_eq!(run_request(&["-d", "--rootfs", "/image"]).rootfs, Some("/image".into()));
}

#[test]
fn without_a_daemon_every_client_names_the_one_to_start() {
    for line in [
        "ps",
        "down",
        "status",
        "stats",
        "drops",
        "conntrack ls",
        "conntrack flush",
        "conntrack timeouts",
        "network ls",
        "network create n1",
        "network inspect bridge",
        "network rm n1 n2",
        "network prune -f",
        "network connect n1 web",
        "network disconnect n1 web",
        "events",
        "drops -w",
        "trace --port 80",
        "run -d",
        "run true",
        "exec web true",
        "inspect web",
        "stop web",
        "rm -f web",
        "exec -it web sh",
        "exec -i -t web -- sh",
        "run -i --rm --sysctl net.core.somaxconn=100 --sysctl kernel.sem=1 sh",
        "run -dt web",
        "logs web",
        "logs -f --tail 10 web",
        "logs -n all web",
        "port web",
    ] {
        let cli = words(&format!("--instance never-started {line}")).unwrap();
        let error = cli.run(Arc::new(NoSystem)).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "no rnet daemon answers at /run/never-started/rnet.sock: start one with 'rnet --instance \
             never-started daemon'",
            "{line}"
        );
    }
}

#[test]
fn the_shim_needs_no_daemon_and_its_status_is_passed_on() {
    assert_eq!(parse(&["shim", "{ }"]).unwrap().run(Arc::new(NoSystem)).unwrap(), 3);
}
