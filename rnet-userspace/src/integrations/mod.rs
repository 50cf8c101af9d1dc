//! Faces that container engines know: each translates between an engine's interface and the daemon's.

pub mod cni;
