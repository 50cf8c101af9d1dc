//! The benchmark measures real traffic, writes its report, and leaves nothing behind. What the figures are is not
//! looked at here.

use std::{fs, process::Command, time::Duration};

use serde_json::Value;
use testbed::process::{self, Process};

const LIMIT: Duration = Duration::from_secs(180);

fn bench(args: &[&str]) -> process::Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rnet-bench"));
    command.args(args);
    process::run(command, LIMIT)
}

#[test]
fn a_quick_run_measures_every_path_it_is_asked_for() {
    testbed::require_root!();
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().join("report");
    let only = "hairpin,ipv6,connect,udp,iptables,rnet,rnet6";
    let finished = bench(&["--quick", "--only", only, "--out", directory.to_str().unwrap()]);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    let report: Value = serde_json::from_slice(&fs::read(directory.join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["complete"], &report["failures"]), (&true.into(), &Value::Array(Vec::new())));
    for (part, reference, path) in [(0, "iptables", "rnet"), (1, "ip6tables", "rnet6")] {
        let figures = &report["parts"][part]["figures"];
        assert_eq!(figures["reference"], reference);
        for workload in ["connect", "udp"] {
            let ratio = figures["ratios"][format!("{workload}/{path}")]["median"].as_f64();
            assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{workload} through {path}: {figures}");
        }
        // Two workloads on two paths, and the reference a second time.
        assert_eq!(figures["cells"].as_array().unwrap().len(), 6);
    }
    for name in ["report.md", "hairpin.svg", "ipv6.svg"] {
        assert!(fs::metadata(directory.join(name)).unwrap().len() > 100, "{name}");
    }
}

#[test]
fn a_quick_run_measures_the_controller() {
    testbed::require_root!();
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().join("report");
    let finished = bench(&["--quick", "--only", "control", "--out", directory.to_str().unwrap()]);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    let report: Value = serde_json::from_slice(&fs::read(directory.join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["complete"], &report["failures"]), (&true.into(), &Value::Array(Vec::new())));
    let figures = &report["parts"][0]["figures"];
    let timings = figures["timings"].as_array().unwrap();
    assert!(timings.iter().all(|timing| timing["seconds"].as_f64().is_some_and(|s| s > 0.0)), "{figures}");
    let measured = |by: &str, what: &str, load: &str| {
        timings.iter().any(|t| (&t["by"], &t["what"], &t["load"]) == (&by.into(), &what.into(), &load.into()))
    };
    for what in ["run", "run-at-once", "remove", "down", "start"] {
        assert!(measured("rnet", what, "5 containers"), "{what}: {figures}");
    }
    for by in ["rnet", "nft", "iptables-restore", "iptables-calls"] {
        assert!(
            measured(by, "publish", "500 ports") && measured(by, "unpublish", "500 ports"),
            "{by}: {figures}"
        );
    }
    for kept in figures["memory"].as_array().unwrap() {
        assert!(kept["rss_kib"].as_u64() >= kept["pss_kib"].as_u64(), "{kept}");
        for map in ["PORTS4", "MAPPINGS", "FLOWS6", "COUNTS"] {
            assert!(kept["maps_bytes"][map].as_u64().is_some_and(|bytes| bytes > 0), "{map}: {kept}");
        }
    }
    for name in ["report.md", "control.svg", "control-ports.svg"] {
        assert!(fs::metadata(directory.join(name)).unwrap().len() > 100, "{name}");
    }
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    testbed::require_root!();
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rnet-bench"));
    command.args(["--only", "control", "--rounds", "1", "--out"]).arg(out.path().join("report"));
    let mut run = Process::start(command);
    let traces = [format!("t{}-", run.id()), format!("rnet-t{}-", run.id())];
    let left_in = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| traces.iter().any(|trace| name.starts_with(trace))).collect()
    };
    testbed::wait_until("a container is started", LIMIT, || {
        left_in("/run/netns").iter().any(|name| name.starts_with(&traces[0])).then_some(())
    });
    run.terminate();
    let status = run.wait(LIMIT).expect("it ends when told to");
    assert_eq!(status.code(), Some(1), "an interrupted run is no success");
    for dir in ["/run/netns", "/run", "/var/lib", testbed::bpf::BPFFS] {
        assert_eq!(left_in(dir), [""; 0], "{dir}");
    }
}

#[test]
fn a_quick_run_fills_and_floods_flow_tables() {
    testbed::require_root!();
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().join("report");
    let finished = bench(&["--quick", "--only", "scale,flood", "--out", directory.to_str().unwrap()]);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    let report: Value = serde_json::from_slice(&fs::read(directory.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["failures"], Value::Array(Vec::new()));

    let scale = &report["parts"][0]["figures"];
    let flows = scale["amounts"]["flows"].as_u64().unwrap();
    let removed = scale["collector"]["all_over"]["removed_flows"].as_array().unwrap();
    assert!(removed.iter().filter_map(Value::as_u64).sum::<u64>() > flows * 9 / 10, "{removed:?}");
    assert!(
        scale["lookups"]
            .as_array()
            .unwrap()
            .iter()
            .all(|it| it["mean_between_quartiles_ns"]["median"].as_f64() > Some(0.0))
    );
    assert!(
        scale["lists"].as_array().unwrap().iter().all(|list| list["cost"]["lines"].as_u64() >= Some(flows))
    );

    let floods = report["parts"][1]["figures"]["floods"].as_array().unwrap();
    assert_eq!(floods.len(), 4, "two paths, with room for the flood and without");
    for flood in floods {
        assert!(flood["sent_segments"].as_u64() > Some(0), "{flood}");
        assert_eq!(flood["effects"].as_array().unwrap().len(), 3);
        let (is_rnet, is_filled) = (flood["filter"] == "rnet", flood["room"] == "fills");
        let is_full = flood["table_full_packets"].as_u64() > Some(0);
        assert!(!is_full || is_rnet && is_filled, "{flood}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_told_with_those_that_do() {
    testbed::require_root!();
    let finished = bench(&["--only", "warp"]);
    assert_eq!(finished.status.code(), Some(1));
    for word in ["`warp`", "published", "stream-no-tso", "rnet-60000", "control"] {
        assert!(finished.stderr.contains(word), "{word}: {}", finished.stderr);
    }
    assert_eq!(finished.stdout, "");
}
