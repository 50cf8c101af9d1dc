//! How much the verifier has to look at: a program that grows is seen to.

use std::{env, fs, path::PathBuf};

use aya::programs::{Program, ProgramError};

use crate::lab::Lab;

/// Growth that is let pass: compilers differ.
const TOLERANCE: f64 = 1.25;

#[test]
fn the_verifier_s_work_is_as_recorded() {
    testbed::require_root!();
    let record = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("datapath/instructions.txt");
    let lab = Lab::new();
    let mut counted: Vec<(String, u32)> = Vec::new();
    for (name, program) in lab.ebpf.programs() {
        if let Some(instructions) = verified(program) {
            println!("{name}: {instructions} instructions verified");
            counted.push((name.to_owned(), instructions));
        }
    }
    counted.sort();
    assert!(!counted.is_empty());
    if env::var_os("RNET_UPDATE").is_some() {
        let lines: String = counted.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        return fs::write(&record, lines).unwrap();
    }
    let recorded = fs::read_to_string(&record).unwrap();
    for (name, count) in counted {
        let line = recorded.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse::<f64>().ok());
        let limit = line.unwrap_or_else(|| panic!("{name} is not in {}", record.display())) * TOLERANCE;
        assert!(
            f64::from(count) <= limit,
            "the verifier looks at {count} instructions of {name}, over {limit:.0}: if that is meant, run this with \
             RNET_UPDATE=1"
        );
    }
}

/// Instructions that the verifier has looked at, each as often as it did; absent for a program that is not loaded.
fn verified(program: &Program) -> Option<u32> {
    match program.info() {
        Ok(info) => info.verified_instruction_count(),
        Err(ProgramError::NotLoaded) => None,
        Err(error) => panic!("ask about a program: {error}"),
    }
}
