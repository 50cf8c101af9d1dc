//! Every reader over its corpus, then over inputs made of it: always the same ones, so that a failure is seen again.
//!
//! `RNET_FUZZ_ITERATIONS` makes more of them for each reader, `RNET_FUZZ_SEED` others, `RNET_FUZZ_TARGET` those of one
//! reader alone. An input that fails is left in `target/fuzz`; once understood it belongs into the corpus.

#[path = "mutate.rs"]
mod mutate;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use self::mutate::Mutator;
use super::{Shape, Target, targets};

/// Inputs of each reader.
const ITERATIONS: usize = 3000;
/// Any number, always the same.
const SEED: u64 = 20_261_125;
/// The longest input, in bytes.
const LONGEST: usize = 4096;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// The seeds of a reader, in the order of their names.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let dir = root().join("tests/fuzz/corpus").join(target.name);
    let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort_unstable();
    let read = |path: PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

fn withstands(target: &Target, seed: u64, iterations: usize) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 3, "{target:?} has {} seeds", corpus.len());
    for (name, input) in &corpus {
        check(target, input, name);
    }
    // Of readers that are added, the others' inputs do not depend.
    let own = target.name.bytes().fold(seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = StdRng::seed_from_u64(own);
    let mut inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    for n in 0..iterations {
        let [input, other] = [(); 2].map(|()| inputs.choose(&mut random).cloned().unwrap_or_default());
        let json = target.shape == Shape::Json;
        let mut mutator = Mutator { random: &mut random, json, words: target.words, longest: LONGEST };
        let input = mutator.mutated(&input, &other);
        check(target, &input, &format!("seed {seed}, input {n}"));
        // Some are changed further.
        if n % 16 == 0 && inputs.len() < 200 {
            inputs.push(input);
        }
    }
}

fn check(target: &Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let dir = root().join("target/fuzz");
        let file = dir.join(format!("failed-{}", target.name));
        let kept = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, input));
        panic!("{target:?} fails, {what}: {} {kept:?}: {:?}", file.display(), String::from_utf8_lossy(input));
    }
}

#[test]
fn every_reader_withstands_what_its_seeds_become() {
    let iterations = number("RNET_FUZZ_ITERATIONS").map_or(ITERATIONS, |n| usize::try_from(n).unwrap());
    let seed = number("RNET_FUZZ_SEED").unwrap_or(SEED);
    let only = env::var("RNET_FUZZ_TARGET").ok();
    let mut targets = targets();
    targets.retain(|target| only.as_ref().is_none_or(|only| only == target.name));
    assert!(!targets.is_empty(), "there is no target {only:?}");
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = std::time::Instant::now();
            withstands(target, seed, iterations);
            println!("{target:?}: {iterations} in {:?}", began.elapsed());
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> =
            (1..thread::available_parallelism().map_or(1, usize::from)).map(|_| scope.spawn(work)).collect();
        work();
        others.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn every_reader_has_a_corpus_and_every_corpus_a_reader() {
    let mut names: Vec<_> = targets().iter().map(|target| target.name.to_owned()).collect();
    let dirs = fs::read_dir(root().join("tests/fuzz/corpus")).unwrap();
    let mut dirs: Vec<_> = dirs.map(|dir| dir.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    dirs.sort_unstable();
    assert_eq!(dirs, names);
}
