//! Black-box tests: the built `rnet` on hosts made of network namespaces, spoken to with real sockets and looked
//! at with the kernel's own tools. One file a subject; a test's name is the behaviour that it holds rnet to.
#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

/// Makes tests of functions that take a host: each runs once with checksums left to the receiver, and once with
/// the uplink's sender completing them, where a wrong checksum difference costs packets.
macro_rules! with_and_without_offload {
    ($($name:ident),+ $(,)?) => {
        mod offloaded {
            $(#[test]
            fn $name() {
                testbed::require_root!();
                super::$name(&testbed::Host::with(testbed::Checksums::Offloaded));
            })+
        }
        mod finalised {
            $(#[test]
            fn $name() {
                testbed::require_root!();
                super::$name(&testbed::Host::with(testbed::Checksums::Finalised));
            })+
        }
    };
}

mod adopted;
mod attach;
mod attack;
mod bench;
mod cni;
mod concurrency;
mod config;
mod control;
mod control6;
mod dns;
mod docker;
mod doctor;
mod egress;
mod fragments;
mod hairpin;
mod healing;
mod icmp;
mod instances;
mod ipv6;
mod kernel;
mod lifecycle;
mod limits;
mod listen;
mod lists;
mod local;
mod local6;
mod loopback;
mod netavark;
mod netkit;
mod opinion;
mod policy;
mod ports;
mod pressure;
mod privileges;
mod process;
mod publish;
mod rollback;
mod running;
mod soak;
mod sources;
mod spoof;
mod support_bundle;
mod switching;
mod tracing;
mod upgrade;
mod via_stack;
mod via_stack_rules;
mod watching;
mod watching_traffic;
mod xdp;
