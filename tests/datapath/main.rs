//! Each program by itself, packet in and packet out, through `BPF_PROG_TEST_RUN`. What comes out is compared byte by
//! byte with a packet that was built from scratch.

#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

mod arp;
mod attack;
mod bridge;
mod egress;
mod fragments;
mod frames;
mod frames6;
mod hairpin;
mod icmp;
mod ipv6;
mod lifetime;
mod next_hop;
mod pressure;
mod publish;
mod random;
mod refusals;
mod sequences;
mod size;
mod sources;
mod stack;
mod stack_errors;
mod stack_policy;
mod switching;
mod trace;
mod xdp;

use testbed::lab;
