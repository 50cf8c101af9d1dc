//! Container engines whose networks rnet serves: thin adapters onto the controller.

pub mod docker;
