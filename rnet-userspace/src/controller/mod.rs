//! Networks, endpoints, published ports and address management: the model and its rules. Knows no netlink and
//! no BPF.

pub mod backend;
pub mod error;
pub mod model;
pub mod request;
pub mod view;

pub use error::Error;
