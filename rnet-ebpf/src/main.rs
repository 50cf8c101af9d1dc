//! rnet's datapath. Programs are named from the container's side:
//!
//! | program | hook | what it sees |
//! |---|---|---|
//! | `from_container` | tcx ingress of the host's end of a container's veth or netkit | all that a container sends |
//! | `from_uplink` | tcx ingress of an uplink | all that arrives from outside |
//! | `xdp_uplink` | XDP of an uplink, where it is switched on | the same, earlier |
//! | `to_uplink` | tcx egress of an uplink | all that leaves, while a network is delivered via the host's stack |
//! | `from_bridge`, `to_bridge` | tcx ingress and egress of a bridge that an engine has made | what passes between its ports and the host's stack |
//! | `sock_bind4`, `sock_bind6` | cgroup `bind` | host programs that want a port |
//! | `sock_connect4`, `sock_connect6` | cgroup `connect` | host programs that connect, which may be to a published port |
//! | `sock_sendmsg4`, `sock_sendmsg6` | cgroup `sendmsg` | the same for datagrams without a fixed peer |
//! | `sock_recvmsg4`, `sock_recvmsg6` | cgroup `recvmsg` | host programs that are told where a datagram came from |
//! | `sock_peername4`, `sock_peername6` | cgroup `getpeername` | host programs that ask with whom they are connected |
//!
//! A packet's way reads top to bottom in [`container`], [`uplink`] and [`stack`]: parse, conntrack, policy, NAT, deliver.
//! Here a [`Reason`] becomes a verdict, and nowhere else.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "atomic addition, see maps::add"))]

#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod bridge;
#[cfg(target_arch = "bpf")]
mod conntrack;
#[cfg(target_arch = "bpf")]
mod container;
#[cfg(target_arch = "bpf")]
mod deliver;
#[cfg(target_arch = "bpf")]
mod fragment;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod link;
#[cfg(target_arch = "bpf")]
mod local;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod nat;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod pressure;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod recent;
#[cfg(target_arch = "bpf")]
mod rewrite;
#[cfg(target_arch = "bpf")]
mod route;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod socket;
#[cfg(target_arch = "bpf")]
mod stack;
#[cfg(target_arch = "bpf")]
mod trace;
#[cfg(target_arch = "bpf")]
mod uplink;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could come here.
    loop {}
}

// SAFETY: the section from which the loader takes the licence has nothing else in it, and no other symbol has the name.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
