//! What engines call: programs that speak their protocols on one side and are clients of the daemon on the other.

pub mod docker_plugin;
