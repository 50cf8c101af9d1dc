//! The soak tests for longer than a run of all tests has time for, with the binary that users get.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{build, setup, test::in_kernel};

#[derive(Args)]
pub(crate) struct Options {
    /// How long connections, ports, containers and networks come and go.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// How often the daemon is killed.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// What the moments of the kills come from.
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::test_tools()?;
    let built = build::run(&build::Options { release: true })?;
    let mut variables = vec![
        ("RNET_SOAK_SECONDS", (u64::from(options.minutes) * 60).to_string()),
        ("RNET_SOAK_KILLS", options.kills.to_string()),
    ];
    variables.extend(options.seed.map(|seed| ("RNET_SOAK_SEED", seed.to_string())));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    in_kernel("e2e", &built, &["soak::", "--nocapture"].map(Into::into), &variables)?;
    Ok(ExitCode::SUCCESS)
}
