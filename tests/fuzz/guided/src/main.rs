//! libFuzzer over one of rnet's readers: the one that `RNET_FUZZ_TARGET` names. Half of the inputs are changed as the tests
//! change theirs, by words and as JSON, the others as libFuzzer does.

#![no_main]

#[path = "../../mutate.rs"]
mod mutate;

use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rnet::fuzzing::{Shape, Target, targets};

use crate::mutate::Mutator;

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("RNET_FUZZ_TARGET").unwrap_or_default();
        let found = targets().into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("RNET_FUZZ_TARGET={name:?} is none of {:?}", targets()))
    })
}

fuzz_target!(|input: &[u8]| (target().run)(input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = StdRng::seed_from_u64(seed.into());
    if random.random() {
        return fuzzer_mutate(data, size, max_size);
    }
    let Target { shape, words, .. } = target();
    let mut mutator = Mutator { random: &mut random, json: *shape == Shape::Json, words, longest: max_size };
    let input = data[..size].to_vec();
    let changed = mutator.mutated(&input, &input);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
});
