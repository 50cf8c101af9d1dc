//! What rnet's two halves must agree on: the keys and values of the maps they share, the reasons
//! for every verdict, and packet arithmetic that is pure and so can be tested on any machine.
//!
//! Rules that hold for every type that lies in a map:
//! - `repr(C)`, padding spelled out and zeroed by the constructor: the kernel hashes keys as bytes.
//! - Addresses and ports are kept as they lie in the packet (network byte order) in aligned words, in
//!   newtypes that cannot be mixed up with host-order integers.
//! - Sizes are asserted at compile time. A change to any of them bumps [`LAYOUT_VERSION`].
#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod addr;
pub mod checksum;
pub mod counter;
pub mod endpoint;
pub mod flow;
pub mod fragment;
pub mod limits;
pub mod local;
mod pod;
pub mod port;
pub mod port_choice;
pub mod pressure;
pub mod settings;
pub mod source;
pub mod timeout;
pub mod trace;
pub mod uplink;

pub use addr::{Be16, Family, Ip4, Ip6, Mac};
pub use counter::{Counter, Program, Reason};
pub use endpoint::{Endpoint, EndpointFlags, Veth};
pub use flow::{Carried, Flow, FlowKey, Side, Tuple};
pub use fragment::{FragmentHead, FragmentKey};
pub use local::{PeerKey, SockAddr};
pub use port::{Backend, HeldKey, Mapping, PortKey};
pub use pressure::{Pressure, SourceNet};
pub use settings::Settings;
pub use source::SourceKey;
pub use trace::{TraceFilter, TraceRecord};
pub use uplink::Uplink;

/// Version of the layout of every shared map. It is part of the path under which maps are pinned
/// (`/sys/fs/bpf/INSTANCE/v<layout>`), so that a controller never reads maps of another shape.
pub const LAYOUT_VERSION: u32 = 6;
