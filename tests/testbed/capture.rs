//! Seeing and sending raw frames on an interface inside a namespace.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::{Netns, Task, packet, traffic::STOP_INTERVAL};

/// Every frame that passes an interface, in both directions, from the start on.
///
/// What leaves is seen as the driver gets it: merged segments and incomplete checksums where the interface
/// offloads them, separate frames with complete checksums where it does not (see [`crate::Checksums`]).
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    task: Task<()>,
    socket: Socket,
    what: String,
}

impl Capture {
    /// Starts capturing on `interface`.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn start(ns: &Netns, interface: &str) -> Self {
        let what = format!("capture on {interface} of {}", ns.name());
        let socket = ns.run(|| open(interface, libc::ETH_P_ALL)).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut reader = socket.try_clone().unwrap_or_else(|e| panic!("{what}: {e}"));
        let frames = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (seen, name) = (Arc::clone(&frames), what.clone());
        let task = ns.spawn(move |stop| {
            let mut buffer = vec![0; 1 << 17];
            loop {
                match reader.read(&mut buffer) {
                    Ok(n) => lock(&seen).push(buffer[..n].to_vec()),
                    // Only once nothing is left in the queue.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && stop.requested() => return,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    // The interface went away or down: what was seen before still counts.
                    Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {}
                    Err(e) => panic!("{name}: {e}"),
                }
            }
        });
        Self { frames, task, socket, what }
    }

    /// The frames so far.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        lock(&self.frames).clone()
    }

    /// Whether a frame that `wanted` describes has been seen so far.
    pub fn has(&self, wanted: impl Fn(&packet::Tuple) -> bool) -> bool {
        lock(&self.frames).iter().filter_map(|f| packet::tuple(f)).any(|t| wanted(&t))
    }

    /// Ends it, and returns all frames.
    ///
    /// # Panics
    /// When the kernel could not keep all of them: whoever looks for what must not be there has to see all.
    pub fn stop(self) -> Vec<Vec<u8>> {
        let lost = lost(&self.socket).unwrap_or_else(|e| panic!("{}: statistics: {e}", self.what));
        self.task.stop();
        assert_eq!(lost, 0, "{}: frames were lost", self.what);
        std::mem::take(&mut lock(&self.frames))
    }
}

/// Sends frames as they are, from `interface` on.
///
/// # Panics
/// When one cannot be sent.
pub fn send(ns: &Netns, interface: &str, frames: &[Vec<u8>]) {
    // It receives nothing, and the kernel takes each frame for what is written in it.
    send_as(ns, interface, 0, frames);
}

/// Sends frames as they are from a socket that says they are of this EtherType, whatever is written in them.
///
/// # Panics
/// When one cannot be sent.
pub fn send_as(ns: &Netns, interface: &str, protocol: u16, frames: &[Vec<u8>]) {
    let what = format!("send on {interface} of {}", ns.name());
    let socket = ns.run(|| open(interface, protocol.into())).unwrap_or_else(|e| panic!("{what}: {e}"));
    for frame in frames {
        let n = socket.send(frame).unwrap_or_else(|e| panic!("{what}: {}: {e}", packet::describe(frame)));
        assert_eq!(n, frame.len(), "{what}");
    }
}

fn lock(frames: &Mutex<Vec<Vec<u8>>>) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A packet socket bound to `interface`.
fn open(interface: &str, protocol: i32) -> io::Result<Socket> {
    let index = if_nametoindex(interface)?;
    // Protocol 0 until it is bound: it would get frames of all interfaces before.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    set_receive_buffer(&socket, 256 << 20)?;
    socket.set_read_timeout(Some(STOP_INTERVAL))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data, smaller than sockaddr_storage and no more strictly aligned, and the
    // storage is zeroed, which is a value of it.
    let addr = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    addr.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    addr.sll_protocol = u16::try_from(protocol).map_err(io::Error::other)?.to_be();
    addr.sll_ifindex = index.cast_signed();
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage holds a sockaddr_ll, filled in above, and `len` is its size.
    let addr = unsafe { SockAddr::new(storage, len) };
    socket.bind(&addr)?;
    Ok(socket)
}

/// Beyond `net.core.rmem_max`, which root may exceed.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    Ok(nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &bytes)?)
}

/// How many frames did not fit the receive buffer since the last call.
fn lost(socket: &Socket) -> io::Result<u32> {
    use std::os::fd::AsRawFd;

    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::tpacket_stats>()).map_err(io::Error::other)?;
    // SAFETY: PACKET_STATISTICS writes at most `len` bytes, the size of `stats`, which lives until the call is
    // over, as does `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(stats.tp_drops) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Checksums, Host, TEN_MIB,
        topology::{CLIENT, HOST, UPLINK},
        traffic::{tcp, udp},
        wait_until,
    };

    #[test]
    fn finalised_traffic_has_right_checksums_and_frames_of_the_mtu() {
        crate::require_root!();
        let host = Host::with(Checksums::Finalised);
        let _servers = (tcp::echo(&host.ns, "0.0.0.0:80"), udp::echo(&host.ns, "0.0.0.0:80"));
        let capture = Capture::start(&host.client, UPLINK);
        tcp::exchange(&tcp::connect(&host.client, host.at(80)).unwrap(), TEN_MIB, 1);
        udp::exchange(&udp::connect(&host.client, host.at(80)), 10_000, 1);
        let frames = capture.stop();
        assert!(frames.len() > 2 * TEN_MIB / 1460, "both directions are seen: {}", frames.len());
        for frame in &frames {
            packet::verify_checksums(frame).unwrap();
            assert!(frame.len() <= 1514, "{}", packet::describe(frame));
        }
    }

    #[test]
    fn with_offload_checksums_are_left_open() {
        crate::require_root!();
        let host = Host::with(Checksums::Offloaded);
        let _server = udp::echo(&host.ns, "0.0.0.0:80");
        let capture = Capture::start(&host.client, UPLINK);
        udp::exchange(&udp::connect(&host.client, host.at(80)), 10_000, 1);
        let frames = capture.stop();
        assert!(frames.iter().filter(|f| packet::is_ip(f)).any(|f| packet::verify_checksums(f).is_err()));
    }

    #[test]
    fn a_sent_frame_arrives_as_it_was() {
        crate::require_root!();
        let host = Host::new();
        let capture = Capture::start(&host.ns, UPLINK);
        let link = packet::Ethernet { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };
        let (src, dst) = (std::net::SocketAddrV4::new(CLIENT, 5), std::net::SocketAddrV4::new(HOST, 6));
        let frame = packet::udp(link, src, dst, b"by hand, and long enough for a frame");
        send(&host.client, UPLINK, std::slice::from_ref(&frame));
        wait_until("the frame arrives", Duration::from_secs(5), || {
            capture.frames().contains(&frame).then_some(())
        });
        assert!(capture.has(|t| t.src.port() == 5 && t.dst.port() == 6));
    }
}
