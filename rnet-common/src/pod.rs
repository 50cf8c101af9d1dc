//! Leave for the controller to read and write the shared types as raw map keys and values.
#![cfg(feature = "user")]

use crate::{
    addr::{Ip4, Ip6},
    counter::Counter,
    endpoint::Endpoint,
    flow::{Flow, FlowKey},
    port::{Backend, HeldKey, Mapping, PortKey},
    settings::Settings,
};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)` or `repr(transparent)` over integers and byte arrays, so every bit pattern is a
        // value; padding is spelled out as fields, and the size asserts beside each type would fail if the
        // compiler had added any.
        unsafe impl aya::Pod for $type {}
    )+};
}

pod!(Ip4, Ip6, Counter, HeldKey, Mapping, Settings);
pod!(Endpoint<Ip4>, Endpoint<Ip6>, Flow<Ip4>, Flow<Ip6>, FlowKey<Ip4>, FlowKey<Ip6>);
pod!(Backend<Ip4>, Backend<Ip6>, PortKey<Ip4>, PortKey<Ip6>);
