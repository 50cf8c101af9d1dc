//! Thin adapters: what engines say, in the words of the controller.

pub mod cni;
pub mod docker;
pub mod docker_plugin;
pub mod netavark;
