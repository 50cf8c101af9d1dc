//! Offloads of interfaces, which are switched by the ioctl that ethtool uses.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

/// `ETHTOOL_SGRO` of linux/ethtool.h: switches generic receive offload.
const SET_RECEIVE_OFFLOAD: u32 = 0x2c;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Has an interface of the calling thread's namespace join the segments that it receives. A veth then polls a queue,
/// which also takes frames without a packet buffer; without it the kernel drops them (`veth_xdp_xmit`).
pub(super) fn join_received(interface: &str) -> io::Result<()> {
    let mut value = Value { command: SET_RECEIVE_OFFLOAD, data: 1 };
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays 0: the kernel reads a C string.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // Any socket of the namespace does.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: SIOCETHTOOL takes a pointer to an ifreq whose ifru_data points to what the command inside it names, an
    // ethtool_value here. Both live on this stack frame until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
