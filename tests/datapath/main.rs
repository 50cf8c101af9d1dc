//! Each program by itself, packet in and packet out, through `BPF_PROG_TEST_RUN`. What comes out is compared byte by
//! byte with a packet that was built from scratch.

#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

mod egress;
mod frames;
mod hairpin;
mod lab;
mod lifetime;
mod publish;
mod random;
mod refusals;
mod switching;
