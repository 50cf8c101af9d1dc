//! Containers that XDP delivers to.

use super::*;
use crate::controller::model::xdp::Xdp;

fn takes_frames(bench: &Bench) -> Vec<bool> {
    bench.fake.tables().endpoints.values().map(|endpoint| endpoint.takes_frames).collect()
}

fn with_xdp(bench: &Bench) -> Config {
    Config { xdp: Xdp::Native, ..bench.config() }
}

#[test]
fn containers_take_frames_where_that_is_asked_for_those_that_were_there_included() {
    let bench = Bench::new();
    let mut instance = bench.start();
    instance.create_container(&namespace("before")).unwrap();
    assert_eq!(takes_frames(&bench), [false]);
    assert!(!bench.fake.world().log.contains(&"take_frames".to_owned()));
    drop(instance);
    let mut instance = bench.start_with(with_xdp(&bench)).unwrap();
    assert_eq!(takes_frames(&bench), [true]);
    instance.create_container(&namespace("after")).unwrap();
    assert_eq!(takes_frames(&bench), [true, true]);
    drop(instance);
    drop(bench.start());
    assert_eq!(takes_frames(&bench), [false, false]);
}

/// They are delivered to as ever.
#[test]
fn a_container_that_takes_none_is_made_all_the_same() {
    let bench = Bench::new();
    let mut instance = bench.start_with(with_xdp(&bench)).unwrap();
    bench.fake.world().log.clear();
    instance.create_container(&namespace("first")).unwrap();
    let calls = std::mem::take(&mut bench.fake.world().log);
    instance.remove_container("first", true).unwrap();
    let at = calls.iter().position(|call| call == "take_frames").unwrap() + 1;
    bench.fake.set(Fate::FailAt(at));
    instance.create_container(&namespace("web")).unwrap();
    bench.fake.set(Fate::Well);
    assert_eq!(takes_frames(&bench), [false]);
    drop(instance);
    drop(bench.start_with(with_xdp(&bench)).unwrap());
    assert_eq!(takes_frames(&bench), [true], "it is tried again at the next start");
}
