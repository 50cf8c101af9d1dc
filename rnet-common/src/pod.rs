//! Leave for the controller to read and write the shared types as raw map keys and values.
#![cfg(feature = "user")]

use aya::Pod;

use crate::{
    addr::{Family, Ip4, Ip6},
    counter::Counter,
    endpoint::{Endpoint, Veth},
    flow::{Flow, FlowKey},
    local::{PeerKey, SockAddr},
    port::{Backend, HeldKey, Mapping, PortKey},
    pressure::{Pressure, SourceNet},
    settings::Settings,
    source::SourceKey,
    trace::{Recorder, TraceFilter, TraceRecord},
    uplink::Uplink,
};

macro_rules! pod {
    ($($type:ident$(<$family:ident>)?),+ $(,)?) => {$(
        // SAFETY: `repr(C)` or `repr(transparent)` over integers and byte arrays, so every bit pattern is a
        // value; padding is spelled out as fields, and the size asserts beside each type would fail for either
        // family if the compiler had added any.
        unsafe impl$(<$family: Family + Pod>)? Pod for $type$(<$family>)? {}
    )+};
}

pod!(
    Ip4,
    Ip6,
    Counter,
    HeldKey,
    Mapping,
    Pressure,
    Recorder,
    Settings,
    SourceNet,
    TraceFilter,
    TraceRecord,
    Uplink,
    Veth
);
pod!(Endpoint<A>, Flow<A>, FlowKey<A>, Backend<A>, PeerKey<A>, PortKey<A>, SockAddr<A>, SourceKey<A>);
