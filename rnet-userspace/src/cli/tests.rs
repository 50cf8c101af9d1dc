use clap::CommandFactory as _;

use super::*;

fn parse(args: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("rnet").chain(args.split_whitespace()))
}

#[test]
fn the_arguments_do_not_contradict_one_another() {
    Cli::command().debug_assert();
}
