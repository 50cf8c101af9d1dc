//! rnet's controller: container networks over netlink and eBPF.
//!
//! ```text
//!  argv ─ cli ┐                                          ┌─ host      ── rtnetlink ─▶ netns, bridge, veth, routes
//!             ├▶ api ─▶ controller ─ plan ─ apply ───────┼─ datapath  ── typed maps ─▶ pinned maps ◀─▶ rnet-ebpf
//!  HTTP ──────┘                              │            └─ store     ── a file for each object
//!                                   directory ┴─ dns ── the networks' gateways, port 53
//! ```
//!
//! [`integrations`] are how engines ask: clients of `api`, or listeners beside it.
//!
//! One direction only: `cli → config → api → controller → {host, datapath, store}`. The controller is given what touches
//! the kernel as the traits of [`controller::backend`], so that its rules are tested without root; [`system`] puts
//! the real ones together.

pub mod api;
mod bounded;
pub mod cli;
pub mod config;
pub mod controller;
pub mod datapath;
pub mod dns;
pub mod doctor;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod integrations;
mod shares;
pub mod store;
pub mod system;
pub mod version;
