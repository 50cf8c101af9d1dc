//! Packets as the programs see them: which are asked for, and how they are shown.

mod filter;
mod shown;

use anyhow::Result;
use rnet_common::{TraceFilter, TraceRecord};
use tokio::sync::broadcast;

pub use self::{
    filter::PacketFilter,
    shown::{Ends, Names, Packet, Process, Told},
};

/// EtherTypes (IEEE 802), in host byte order.
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const IPV6: u16 = 0x86dd;
}

/// Where packets can be looked at.
pub trait Packets: Send + Sync {
    /// Looks for packets that one of `filters` means.
    ///
    /// # Errors
    /// Too many are looked for already, or the kernel refuses.
    fn look(&self, filters: Vec<TraceFilter>) -> Result<Look>;
}

/// A look at packets.
pub struct Look {
    /// What is seen: also what others look for.
    pub told: broadcast::Receiver<Looked>,
    /// What is looked for.
    pub filters: Vec<TraceFilter>,
    /// Ends the look when it is dropped.
    pub until_dropped: Box<dyn Send>,
}

/// Something seen.
#[derive(Clone, Copy, Debug)]
pub enum Looked {
    /// A packet.
    Packet(TraceRecord),
    /// So many packets were not written down, because there were too many.
    Lost(u64),
}

/// A record as the programs write it.
#[cfg(test)]
mod testing {
    use std::net::SocketAddr;

    use rnet_common::{Be16, Program, Reason, TraceRecord, Tuple, flow::proto};

    use super::{ethertype, filter::wide};

    pub(super) fn record(src: &str, dst: &str, left: Option<(&str, &str)>, reason: Reason) -> TraceRecord {
        let tuple = |src: &str, dst: &str| {
            let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            Tuple {
                src: wide(src.ip()),
                dst: wide(dst.ip()),
                sport: Be16::new(src.port()),
                dport: Be16::new(dst.port()),
            }
        };
        let v6 = src.starts_with('[');
        let came = tuple(src, dst);
        TraceRecord {
            came,
            left: left.map_or(came, |(src, dst)| tuple(src, dst)),
            ifindex: 7,
            ethertype: Be16::new(if v6 { ethertype::IPV6 } else { ethertype::IPV4 }),
            proto: proto::TCP,
            detail: 0x12,
            reason: reason as u8,
            program: Program::FromUplink as u8,
            ..TraceRecord::default()
        }
    }
}
