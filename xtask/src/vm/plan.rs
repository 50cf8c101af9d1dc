//! The kernels, and what is run on each.

use clap::ValueEnum;

/// The kernel of a release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kernel {
    /// Debian 11's: refused.
    #[value(name = "5.10")]
    Bullseye,
    /// Debian 12's: refused.
    #[value(name = "6.1")]
    Bookworm,
    /// Debian 13's.
    #[value(name = "6.12")]
    Trixie,
    /// The newest that Debian has.
    #[value(name = "sid")]
    Sid,
}

/// What becomes of rnet on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Runs,
    IsRefused,
}

/// A run of one of the test binaries.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// What it is called in the report.
    pub(super) name: &'static str,
    /// The binary, below `/work`.
    pub(super) program: &'static str,
    pub(super) arguments: Vec<String>,
    /// How many tests there are of it; unknown where somebody has asked for parts of names.
    pub(super) tests: Option<usize>,
}

/// The one test for kernels that are refused, and the first for all others.
const REFUSAL: &str = "kernel::one_that_is_too_old_is_refused_in_one_line_and_nothing_is_left";
const LOADING: &str = "kernel::one_that_is_new_enough_takes_every_program";

/// Some of each kind: an emulated verifier needs ten seconds for the programs, which each test loads. All tests would
/// take an hour, these four minutes on two idle processors.
const PACKETS: [&str; 6] = [
    "egress::tcp",
    "fragments::fragments_follow_their_first",
    "hairpin::a_container_reaches_itself_and_sees_its_gateway",
    "ipv6::published_udp",
    "xdp::ipv6",
    "xdp::unfinished_checksums_are_left_alone_where_they_may_be",
];
const TRAFFIC: [&str; 12] = [
    "egress::finalised::tcp_leaves_with_the_hosts_address",
    "faults::clock::a_clock_that_is_set_changes_nothing_but_the_times_that_are_shown",
    "hairpin::offloaded::a_container_reaches_its_own_published_port",
    "ipv6::finalised::a_published_port_is_reached_over_ipv6",
    "lifecycle::a_killed_daemon_is_not_missed_and_a_restarted_one_takes_over",
    "lifecycle::down_leaves_nothing",
    "local::every_name_of_the_host_leads_to_the_container_over_tcp",
    "netkit::a_frame_is_what_is_written_in_it_whatever_its_socket_says",
    "netkit::every_way_is_open_that_veths_have",
    "policy::networks_meet_at_published_ports_only",
    "publish::finalised::udp_carries_10_mib_each_way_to_another_port",
    "publish::offloaded::tcp_carries_10_mib_each_way_to_another_port",
];

impl Kernel {
    /// The release of Debian whose kernel it is.
    pub(super) fn suite(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// What becomes of rnet there.
    pub(super) fn expected(self) -> Expected {
        match self {
            Self::Bullseye | Self::Bookworm => Expected::IsRefused,
            Self::Trixie | Self::Sid => Expected::Runs,
        }
    }

    /// What is run there; `filter` is taken instead of the usual selection.
    pub(super) fn steps(self, filter: &[String]) -> Vec<Step> {
        let exactly = |name, program, tests: &[&str]| Step {
            name,
            program,
            arguments: ["--include-ignored", "--exact"]
                .iter()
                .chain(tests)
                .map(|&word| word.into())
                .collect(),
            tests: Some(tests.len()),
        };
        let chosen = |name, program, usual: &[&str]| match filter {
            [] => exactly(name, program, usual),
            asked_for => Step { name, program, arguments: asked_for.to_vec(), tests: None },
        };
        match self.expected() {
            Expected::IsRefused => vec![exactly("refusal", "e2e", &[REFUSAL])],
            Expected::Runs => vec![
                exactly("loading", "e2e", &[LOADING]),
                chosen("packets", "datapath", &PACKETS),
                chosen("traffic", "e2e", &TRAFFIC),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_of_whole_names_and_counted() {
        let steps = Kernel::Trixie.steps(&[]);
        assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), ["loading", "packets", "traffic"]);
        for step in steps {
            assert_eq!(step.arguments[..2], ["--include-ignored", "--exact"]);
            assert_eq!(Some(step.arguments.len() - 2), step.tests);
        }
    }

    #[test]
    fn what_is_asked_for_takes_the_place_of_the_selection_where_rnet_runs() {
        let steps = Kernel::Sid.steps(&["publish::".into()]);
        assert_eq!((steps[0].tests, steps[1].tests), (Some(1), None));
        assert_eq!(steps[2].arguments, ["publish::"]);
        assert_eq!(Kernel::Bookworm.steps(&["publish::".into()])[0].arguments[2], REFUSAL);
    }
}
