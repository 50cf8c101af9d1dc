//! The engines that other tests stand on, by themselves: each runs a container with its own networking, and leaves
//! nothing behind.
#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

mod dockerd;
mod follow;
mod podman;
