//! The engines that other tests stand on, by themselves: each runs a container with its own networking, and leaves
//! nothing behind.
#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

mod cni;
mod containerd;
mod dockerd;
mod driver;
mod follow;
mod machine;
mod netavark;
mod podman;
mod trixie;
