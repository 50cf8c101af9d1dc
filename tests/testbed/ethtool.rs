//! The offloads that the tests switch.

use std::{io, net::UdpSocket, os::fd::AsRawFd};

use crate::Netns;

/// `ETHTOOL_STXCSUM` of linux/ethtool.h: set transmit checksum offload.
const SET_TX_CHECKSUM: u32 = 0x17;

/// `ETHTOOL_SGRO`: set generic receive offload.
const SET_GRO: u32 = 0x2c;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches transmit checksum offload of an interface. Off, the kernel writes complete checksums before the
/// driver sees a packet, and with them goes segmentation offload.
///
/// # Panics
/// When the interface cannot do it.
pub(crate) fn set_tx_checksum(ns: &Netns, interface: &str, on: bool) {
    ns.run(|| request(interface, SET_TX_CHECKSUM, on.into())).unwrap_or_else(|e| {
        panic!("switch transmit checksum offload of {interface} in {}: {e}", ns.name());
    });
}

/// Has an interface join the segments that it receives, which a veth does not by itself.
///
/// # Panics
/// When the interface cannot do it.
pub(crate) fn set_gro(ns: &Netns, interface: &str) {
    ns.run(|| request(interface, SET_GRO, 1))
        .unwrap_or_else(|e| panic!("switch receive offload of {interface} in {} on: {e}", ns.name()));
}

fn request(interface: &str, command: u32, data: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut value = Value { command, data };
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays 0: the kernel reads a C string.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    let mut ifreq = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // SAFETY: SIOCETHTOOL takes a pointer to ifreq whose ifru_data points to the struct that the command
    // inside it names, an ethtool_value here; both live on this stack frame until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
