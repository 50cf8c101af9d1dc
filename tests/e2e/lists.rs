//! What lists are chosen by and shown as, and what completes and explains the commands.

use std::time::Duration;

use serde_json::Value;
use testbed::{Host, Rnet, process, wait_until};

fn names(output: &str) -> Vec<&str> {
    output.split_whitespace().collect()
}

#[test]
fn networks_are_chosen_and_shown_as_asked() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let create = |args: &[&str]| rnet.ok(&[&["network", "create"], args].concat());
    let subnet =
        ["--subnet", "10.88.0.0/24", "--ip-range", "10.88.0.128/30", "--aux-address", "printer=10.88.0.129"];
    create(&[&subnet[..], &["--label", "tier=back", "n1"]].concat());
    create(&["--label", "keep", "n2"]);
    create(&["--ipv4=false", "--ipv6", "six"]);

    let listed = |args: &[&str]| rnet.ok(&[&["network", "ls"], args].concat());
    assert_eq!(names(&listed(&["--format", "{{.Name}}"])), ["bridge", "host", "n1", "n2", "none", "six"]);
    assert_eq!(names(&listed(&["-f", "label=tier", "--format", "{{.Name}}"])), ["n1"]);
    assert_eq!(
        names(&listed(&["-f", "type=custom", "-f", "name=^n", "--format", "{{.Name}}"])),
        ["n1", "n2"]
    );
    let table = listed(&["-f", "name=n1", "--format", r#"table {{.Name}}\t{{.Label "tier"}}\t{{.IPv6}}"#]);
    assert_eq!(table, "NAME      TIER      IPV6\nn1        back      false\n");
    assert_eq!(listed(&["-qf", "name=n1", "--no-trunc"]).trim_end().len(), 64);
    assert_eq!(listed(&["-f", "name=six", "--format", "{{.IPv4}} {{.IPv6}}"]), "false true\n");
    let json: Value = serde_json::from_str(&listed(&["-f", "name=n2", "--format", "json"])).unwrap();
    assert_eq!((&json["Name"], &json["Labels"]), (&"n2".into(), &"keep=".into()));

    let shown =
        rnet.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).AuxiliaryAddresses.printer}}", "n1"]);
    assert_eq!(shown, "10.88.0.129\n");
    let addrs = ["c1", "c2"].map(|name| rnet.run(name, &["--network", "n1"]).addr.octets()[3]);
    assert_eq!(addrs, [128, 130], "the printer's address is nobody else's");

    assert_eq!(rnet.ok(&["network", "prune", "-f", "--filter", "label!=keep"]), "Deleted Networks:\nsix\n\n");
    let declined = rnet.cmd(&["network", "prune"]);
    assert_eq!(declined.status.code(), Some(1), "nobody answers");
    assert!(declined.stdout.contains("Are you sure"), "{}", declined.stdout);
    assert_eq!(rnet.ok(&["network", "prune", "--force"]), "Deleted Networks:\nn2\n\n");
    assert_eq!(rnet.ok(&["network", "prune", "--force"]), "");
    assert_eq!(rnet.ok(&["network", "rm", "-f", "ghost"]), "ghost\n");

    for (args, said) in [
        (
            &["network", "ls", "-f", "colour=red"][..],
            "invalid filter 'colour': known are dangling, driver, id",
        ),
        (
            &["network", "ls", "--format", "{{.Nmae}}"],
            "map has no entry for key \"Nmae\"; there are: CreatedAt",
        ),
        (
            &["network", "create", "--aux-address", "a=10.1.0.5", "n3"],
            "no matching subnet for aux-address 10.1.0.5",
        ),
        (&["network", "create", "--ipv4=false", "n3"], "IPv4 or IPv6 must be enabled"),
    ] {
        let line = rnet.fails(args);
        assert!(line.contains(said), "{args:?}: {line}");
    }
}

#[test]
fn containers_are_chosen_and_shown_as_asked() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    rnet.ok(&["network", "create", "--subnet", "10.88.0.0/24", "n1"]);
    rnet.run("web", &["-p", "8080:80"]);
    rnet.run("db", &["--network", "n1"]);
    rnet.ok(&["run", "-d", "--name", "done", "--", "true"]);
    wait_until("the command ends", Duration::from_secs(10), || {
        (!rnet.ok(&["ps", "-q", "-f", "status=exited"]).is_empty()).then_some(())
    });
    let listed = |args: &[&str]| rnet.ok(&[&["ps", "--format", "{{.Names}}"], args].concat());
    assert_eq!(names(&listed(&[])), ["db", "web"]);
    assert_eq!(names(&listed(&["-n", "2"])), ["done", "db"]);
    assert_eq!(names(&listed(&["-f", "network=n1"])), ["db"]);
    assert_eq!(names(&listed(&["-f", "publish=80/tcp"])), ["web"]);
    assert_eq!(
        rnet.ok(&["ps", "-f", "name=web", "--format", "{{.Ports}}|{{.Networks}}"]),
        "0.0.0.0:8080->80/tcp|bridge\n"
    );

    rnet.ok(&["network", "connect", "--alias", "store", "--gw-priority", "5", "n1", "web"]);
    let template = "{{range $name, $of := .NetworkSettings.Networks}}{{$name}} {{$of.GwPriority}} {{json $of.Aliases}};{{end}}";
    assert_eq!(rnet.ok(&["inspect", "-f", template, "web"]), "bridge 0 null;n1 5 [\"store\"];\n");
    let dns = rnet.ok(&["inspect", "-f", "{{json .NetworkSettings.Networks.n1.DNSNames}}", "web"]);
    let id = rnet.ok(&["ps", "-q", "-f", "name=web"]);
    assert_eq!(dns, format!("[\"web\",\"store\",\"{}\"]\n", id.trim_end()));
    rnet.ok(&["network", "disconnect", "n1", "web"]);
    assert_eq!(rnet.ok(&["inspect", "-f", template, "web"]), "bridge 0 null;\n");
    let line = rnet.fails(&["network", "disconnect", "n1", "web"]);
    assert!(line.contains("is not connected to network n1"), "{line}");
    rnet.ok(&["network", "disconnect", "-f", "n1", "web"]);
    let compact = rnet.ok(&["inspect", "--format", "json", "web", "db"]);
    assert_eq!(serde_json::from_str::<Value>(&compact).unwrap().as_array().unwrap().len(), 2);
    assert_eq!(compact.lines().count(), 1);
}

#[test]
fn completions_and_manual_are_made_of_the_commands() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    for (shell, has) in
        [("bash", "complete -F _rnet"), ("zsh", "#compdef rnet"), ("fish", "complete -c rnet")]
    {
        let script = rnet.ok(&["completions", shell]);
        assert!(script.contains(has) && script.contains("gw-priority"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(rnet.ok(&["man", directory.path().to_str().unwrap()]), "");
    let page = std::fs::read_to_string(directory.path().join("rnet-network-connect.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("alias"), "{page}");
}

/// What a command shows on a terminal, which script(1) gives it.
fn on_terminal(host: &Host, rnet: &Rnet<'_>, args: &[&str], variables: &[(&str, &str)]) -> String {
    let command = rnet.command(args);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = host.ns.command("script");
    script.env_remove("NO_COLOR").env("TERM", "xterm").envs(variables.iter().copied());
    script.args(["-q", "-c", &words.join(" "), "/dev/null"]);
    process::run(script, Duration::from_secs(20)).stdout
}

#[test]
fn what_takes_long_says_on_a_terminal_what_it_is_doing() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::start(&host);
    let linger = "trap 'sleep 1.5; exit' TERM; while :; do sleep 0.05; done";
    for name in ["quiet", "shown"] {
        rnet.ok(&["run", "-d", "--name", name, "--", "sh", "-c", linger]);
    }
    let shown = on_terminal(&host, &rnet, &["stop", "shown"], &[]);
    assert!(shown.contains("stopping shown") && shown.trim_end().ends_with("shown"), "{shown:?}");
    let quiet = rnet.cmd(&["stop", "quiet"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("quiet\n", ""));
}

#[test]
fn colours_are_for_terminals() {
    testbed::require_root!();
    let host = Host::new();
    let rnet = Rnet::new(&host);
    let shown = |variables: &[(&str, &str)]| on_terminal(&host, &rnet, &["ps"], variables);
    assert!(shown(&[]).contains("\x1b[31m"), "{:?}", shown(&[]));
    assert!(!shown(&[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!rnet.fails(&["ps"]).contains('\x1b'));
}
